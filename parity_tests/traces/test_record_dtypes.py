"""Mixed precision is recorded as it is, in both frameworks, and judged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from helpers.storing import reloaded
from helpers.synthetic_traces import refused
from torch import nn

import twinstep
import twinstep.jax
import twinstep.torch
from twinstep import Trace, Verdict, compare
from twinstep.trace import dtypes

KINDS = ("bfloat16", "float16", "complex64")
STEPS = 4
W = np.array([[1.5, -0.75], [0.5, 2.0]], np.float32)
X = np.array([[1.0, 0.5], [-0.25, 2.0], [0.75, -1.5]], np.float32)


def by_torch(kind: str, lr: float = 0.125, **options: Any) -> Trace:
    """SGD with momentum on a mean of squares."""
    dtype = getattr(torch, kind)
    model = nn.Linear(2, 2, bias=False, dtype=dtype)
    model.weight.data = torch.tensor(W).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.5)
    with twinstep.torch.record(model, **options) as rec:
        for _ in range(STEPS):
            rec.batch(x=torch.tensor(X).to(dtype))
            optimizer.zero_grad()
            loss = model(torch.tensor(X).to(dtype)).abs().square().mean()
            loss.backward()
            optimizer.step()
    return rec.trace


def by_jax(kind: str, lr: float = 0.125, stacked: bool = False, **options: Any) -> Trace:
    """The same."""
    params, x = {"weight": jnp.asarray(W, kind)}, jnp.asarray(X, kind)
    tx = twinstep.jax.watch(optax.sgd(lr, momentum=0.5))
    state, told = tx.init(params), []
    for _ in range(STEPS):
        loss, grads = jax.value_and_grad(
            lambda p: jnp.mean(jnp.square(jnp.abs(x @ p["weight"].T)))
        )(params)
        updates, state = tx.update(jax.tree.map(jnp.conj, grads), state, params)
        params = optax.apply_updates(params, updates)
        told.append({"loss": loss, "params": params, "opt_state": state, "batch": {"x": x}})
    with twinstep.jax.record({"weight": jnp.asarray(W, kind)}, **options) as rec:
        if stacked:
            rec.steps(**jax.tree.map(lambda *leaves: jnp.stack(leaves), *told))
        else:
            for step in told:
                rec.step(**step)
    return rec.trace


def named_alike(trace: Trace) -> Trace:
    """optax's trace under PyTorch's name."""
    (array,) = trace.opt_state.values()
    return Trace(**{**vars(trace), "opt_state": {"weight.momentum_buffer": array}})


@pytest.mark.parametrize("kind", KINDS)
def test_both_frameworks_record_the_dtype_and_are_judged(kind: str, tmp_path: Path) -> None:
    theirs, ours = by_torch(kind), named_alike(by_jax(kind))
    for trace in (theirs, ours, reloaded(ours, tmp_path)):
        for stage in ("params", "raw_grads", "grads", "opt_state"):
            (array,) = getattr(trace, stage).values()
            assert dtypes.name(array.dtype) == kind
        assert trace.metadata.dtype == trace.losses.dtype == "float32"
        assert dtypes.name(trace.inputs_of(0)["x"].dtype) == kind
    assert compare(theirs, ours).verdict.same
    found = compare(theirs, named_alike(by_jax(kind, lr=0.5)))
    assert found.verdict is Verdict.MISMATCH
    assert found.first is not None
    assert (found.first.step, found.first.stage) == (1, "params")


@pytest.mark.parametrize("record", [by_torch, by_jax])
@pytest.mark.parametrize("kind", KINDS)
def test_a_recording_is_the_same_in_memory_streamed_and_stacked(
    record: Callable[..., Trace], kind: str, tmp_path: Path
) -> None:
    whole = record(kind)
    assert compare(whole, record(kind, out=tmp_path / "trace")).verdict is Verdict.EQUAL
    if record is by_jax:
        assert compare(whole, record(kind, stacked=True)).verdict is Verdict.EQUAL


def test_pytorchs_bits_are_kept() -> None:
    trace = by_torch("bfloat16")
    values = dtypes.numbers(trace.params["weight"][0])
    assert values.tolist() == torch.tensor(W).bfloat16().float().tolist()


def test_given_gradients_may_be_wider_than_what_was_backpropagated() -> None:
    """As where a scaled bfloat16 gradient is scaled back in float32."""
    narrow = {"w": jnp.ones(2, jnp.bfloat16)}
    wide = optax.stateless(lambda g, p: jax.tree.map(lambda a: a.astype(jnp.float32) / 3, g))
    tx = twinstep.jax.watch(optax.chain(wide, twinstep.jax.watch("grads"), optax.sgd(0.1)))
    _, state = tx.update(narrow, tx.init(narrow), narrow)
    with twinstep.jax.record(narrow) as rec:
        rec.step(loss=1.0, params={"w": jnp.zeros(2, jnp.bfloat16)}, opt_state=state)
    assert rec.trace.grads["w"].dtype == np.float32
    assert rec.trace.grads["w"][0, 0] == np.float32(1 / 3)


def test_counters_are_alike_whatever_they_are_counted_in() -> None:
    params = {"w": jnp.ones(2, jnp.bfloat16)}
    state = {"count": jnp.int32(300), "skipped": jnp.array([1, 2], jnp.int32)}
    with twinstep.jax.record(params) as rec:
        rec.step(loss=1.0, params={"w": jnp.zeros(2, jnp.bfloat16)}, opt_state=state)
    kept = rec.trace.opt_state
    assert (str(kept["count"].dtype), kept["count"].tolist()) == ("float32", [300])
    assert (str(kept["skipped"].dtype), kept["skipped"].tolist()) == ("int32", [[1, 2]])


def told(before: Any, *after: Any) -> None:
    with twinstep.jax.record({"w": before}) as rec:
        for one in after:
            rec.step(loss=1.0, params={"w": one})


FLOAT8 = "is float8_e4m3fn, expected "
REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "another dtype": (
        lambda: told(jnp.ones(2, jnp.bfloat16), jnp.ones(2)),
        "step 1: params, w is float32, before it was bfloat16",
    ),
    "integer parameters": (
        lambda: told(jnp.ones(2, jnp.int32)),
        "parameter 'w' is int32, expected float32, float64, bfloat16, float16, complex64",
    ),
    "float8": (lambda: told(jnp.ones(2, jnp.float8_e4m3fn)), f"parameter 'w' {FLOAT8}"),
    "both": (
        lambda: twinstep.jax.record({"a": np.ones(2, np.float32), "b": np.ones(2)}),
        "parameters are float32 and float64, expected one of",
    ),
    "a float8 buffer": (
        lambda: twinstep.jax.record(
            {"w": jnp.ones(2)}, buffers={"b": jnp.ones(2, "float8_e4m3fn")}
        ),
        f"step 1: buffers, b {FLOAT8}",
    ),
}


@pytest.mark.parametrize(("act", "says"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_kept_exactly_is_refused(act: Callable[[], object], says: str) -> None:
    assert refused(act).startswith(says)


def test_pytorchs_float8_is_refused_by_name() -> None:
    model = nn.Linear(2, 1)
    model.register_buffer("scale", torch.ones(2).to(torch.float8_e4m3fn))

    def run() -> None:
        with twinstep.torch.record(model):
            model(torch.ones(3, 2)).sum().backward()
            torch.optim.SGD(model.parameters()).step()

    assert refused(run).startswith(f"step 1: buffers, scale {FLOAT8}")


def test_pytorchs_views_of_a_conjugate_are_read() -> None:
    tensor = torch.tensor([1 + 2j]).conj()
    assert twinstep.torch.reading.array(tensor).tolist() == [1 - 2j]
