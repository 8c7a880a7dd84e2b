"""Each fault of a buffer or a batch is named, and nothing else is; faults of real ports too."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from port.drawn_traces import (
    MOMENTUM,
    SAMPLES,
    drawn,
    first,
    found,
    kinds,
    roughly,
    with_batch,
    with_buffers,
    with_grads,
    with_start,
)
from port.planting import Plant, named
from port.ports import jax_trace, torch_trace
from port.programs import conv_nnx
from twinstep.port.causes.first_causes import causes_of
from twinstep.port.proving import found_mapping, proved
from twinstep.port.sides import lined_up
from twinstep.trace.ledger import Trace

Change = Callable[[np.ndarray], np.ndarray]

_rng = np.random.default_rng(7)

# Buffers

_B = 1 - MOMENTUM


def _moved(momentum: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return lambda before, statistic: (1 - momentum) * before + momentum * statistic


BUFFERS: list[tuple[str, Any, Any, dict[str, float]]] = [
    ("statistics stay", lambda b, s: b, lambda b, s: b, {}),
    ("momentum turned round", _moved(_B), _moved(_B), {"momentum": _B}),
    ("momentum", _moved(0.03), _moved(0.03), {"momentum": 0.03}),
    ("moved twice", _moved(0.19), _moved(0.19), {"momentum": 0.19}),
    (
        "biased running variance",
        _moved(MOMENTUM),
        lambda b, s: _moved(MOMENTUM)(b, s * 95 / 96),
        {"values": 96},
    ),
    (
        "momentum, biased running variance",
        _moved(0.01),
        lambda b, s: _moved(0.01)(b, s * 95 / 96),
        {"momentum": 0.01},
    ),
    ("standard deviation kept", _moved(MOMENTUM), lambda b, s: _moved(MOMENTUM)(b, s**0.5), {}),
    (
        "standard deviation kept",
        _moved(MOMENTUM),
        lambda b, s: _moved(MOMENTUM)(b, (s * 95 / 96) ** 0.5),
        {},
    ),
    (
        "rounded",
        lambda b, s: _moved(MOMENTUM)(b, s).astype(np.float32),
        lambda b, s: _moved(MOMENTUM)(b, s).astype(np.float32),
        {},
    ),
]


@pytest.mark.parametrize(("kind", "mean", "var", "values"), BUFFERS)
def test_what_batch_norm_keeps(kind: str, mean: Any, var: Any, values: dict[str, float]) -> None:
    torch = drawn()
    causes = found(torch, with_buffers(torch, mean, var), "buffers", 1, "bn.running_var")
    assert kinds(causes) == [kind]
    assert causes[0].values == pytest.approx(values)


def test_mean_and_variance_swapped() -> None:
    torch = drawn()
    means, variances = (torch.buffers[f"bn.running_{n}"] for n in ("mean", "var"))
    statistics = [(b[1] - _B * b[0]) / MOMENTUM for b in (means, variances)]
    jax = with_buffers(
        torch,
        lambda b, s: _moved(MOMENTUM)(b, statistics[1]),
        lambda b, s: _moved(MOMENTUM)(b, statistics[0]),
    )
    assert kinds(found(torch, jax, "buffers", 1, "bn.running_mean")) == [
        "mean and variance swapped"
    ]


def test_honest_and_unknown_buffers_have_no_cause() -> None:
    torch = drawn()
    assert not found(torch, roughly(torch), "buffers", 1, "bn.running_mean")

    def noisy(before: np.ndarray, statistic: np.ndarray) -> np.ndarray:
        noise = 1 + 0.1 * _rng.normal(size=statistic.shape)
        return _moved(MOMENTUM)(before, statistic * noise)

    assert not found(torch, with_buffers(torch, noisy, noisy), "buffers", 1, "bn.running_mean")


def test_a_variance_that_starts_at_0_and_statistics_of_evaluation() -> None:
    torch = drawn()
    start = {
        "bn.running_mean": torch.buffers["bn.running_mean"],
        "bn.running_var": torch.buffers["bn.running_var"].copy(),
    }
    start["bn.running_var"][0] = 0
    (cause,) = found(
        torch, dataclasses.replace(torch, buffers=start), "buffers", 0, "bn.running_var"
    )
    assert cause.says == "bn.running_var is 0 everywhere"
    jax = with_buffers(torch, lambda b, s: b, lambda b, s: b)
    jax = with_grads(jax, lambda _, g: g + 1e-3 * _rng.normal(size=g.shape))
    assert kinds(found(torch, jax, "loss", 1, "loss")) == ["candidate: evaluation mode"]


# Batches

BATCHES: list[tuple[str, Callable[[dict[str, np.ndarray], Trace], dict[str, np.ndarray]], str]] = [
    (
        "samples in another order",
        lambda b, _: {n: a[::-1] for n, a in b.items()},
        "in reverse, as are those of y",
    ),
    (
        "samples in another order apart",
        lambda b, _: b | {"x": np.roll(b["x"], 1, 0)},
        "rolled by 1, those of y are not",
    ),
    ("batch of another step", lambda _, t: t.inputs_of(2), "step 4 has what PyTorch has 1 earlier"),
    ("batch of another step", lambda _, t: t.inputs_of(5), "2 later"),
    (
        "fewer samples",
        lambda b, _: {n: a[:4] for n, a in b.items()},
        "4 of PyTorch's 6 samples: 0, 1, 2, 3",
    ),
    ("samples repeated", lambda b, _: b | {"x": b["x"][[0, 1, 2, 3, 0, 1]]}, "more than once"),
    ("normalized", lambda b, _: b | {"x": b["x"] / 2 + 3}, "times 0.5 plus 3"),
    ("normalized", lambda b, _: b | {"x": (b["x"] - [1, 2, 3, 4]) / [2, 4, 8, 5]}, "along axis 1"),
    ("normalized", lambda b, _: b | {"x": b["x"] + 1}, "PyTorch's plus 1"),
    ("rounded", lambda b, _: b | {"x": b["x"].astype(np.float16).astype(float)}, "float16"),
    ("flipped", lambda b, _: b | {"x": b["x"][:, ::-1]}, "along axis 1"),
]


@pytest.mark.parametrize(("kind", "change", "says"), BATCHES)
def test_what_a_batch_is_instead(kind: str, change: Any, says: str) -> None:
    torch = drawn()
    causes = found(torch, with_batch(torch, 3, change(torch.inputs_of(3), torch)), "batch", 4, "x")
    assert kinds(causes) == [kind]
    assert says in causes[0].says


def test_every_step_has_the_batch_of_the_next() -> None:
    torch = drawn()
    jax = torch
    for row in range(len(torch)):
        jax = with_batch(jax, row, torch.inputs_of((row + 1) % len(torch)))
    for name in ("x", "y"):
        (cause,) = found(torch, jax, "batch", 1, name)
        assert (cause.kind, cause.values) == ("batch of another step", {"steps": 1.0})
        assert "steps 1, 2, 3" in cause.says


def test_honest_and_unknown_batches_have_no_cause() -> None:
    torch = drawn()
    assert not found(torch, torch, "batch", 4, "x")
    other = {"x": _rng.normal(size=(SAMPLES, 4)), "y": torch.inputs_of(3)["y"]}
    assert not found(torch, with_batch(torch, 3, other), "batch", 4, "x")


def test_an_update_is_no_business_of_this() -> None:
    torch = drawn()
    assert not found(
        torch, with_start(torch, {"head.bias": np.zeros_like}), "params", 3, "head.bias"
    )
    assert not found(torch, with_grads(torch, lambda _, g: 2 * g), "params", 1, "head.bias")


# Real ports


def sums(logits: jax.Array, y: jax.Array) -> jax.Array:
    return len(y) * conv_nnx.criterion(logits, y)


def penalized(f: Callable[..., Any], **flags: Any) -> Callable[..., Any]:
    def loss(params: Any, *more: Any) -> Any:
        value, stats = f(params, *more)
        return value + 0.025 * sum(jnp.sum(p**2) for p in jax.tree.leaves(params)), stats

    return jax.value_and_grad(loss, **flags)


class Biased(conv_nnx.BatchNorm):
    """Keeps the variance that it normalizes by."""

    def keep(self, mean: jax.Array, var: jax.Array, count: int) -> None:
        super().keep(mean, var * (count - 1) / count, count)


biased = functools.partial(conv_nnx.ConvNet, norm=Biased)


def turned(arrays: dict[str, Any]) -> None:
    arrays["fc1.weight"] = arrays["fc1.weight"].T


PLANTS = [
    ("sum for mean", "loss", 1, {"criterion": sums}),
    ("decay in the gradient", "loss", 1, {"value_and_grad": penalized}),
    ("biased running variance", "buffers", 1, {"model": biased}),
    ("transposed", "params", 0, named(conv_nnx.from_torch, turned)),
]


@pytest.fixture(scope="module")
def theirs() -> Trace:
    return torch_trace("conv_nnx", 1, "float64", steps=3)


@pytest.mark.quick_to_compile
@pytest.mark.parametrize(("kind", "stage", "step", "parts"), PLANTS)
def test_faults_of_a_real_port(theirs: Trace, kind: str, stage: str, step: int, parts: Any) -> None:
    mapping = found_mapping(theirs, jax_trace("conv_nnx", theirs))
    wrong = jax_trace("conv_nnx", theirs, Plant("conv_nnx", kind, kind, stage, step, parts))
    proof = proved(theirs, wrong, mapping)
    finding = proof.comparison().first
    assert finding is not None
    assert (finding.stage, finding.step) == (stage, step)
    causes = causes_of(proof.torch, proof.jax, finding)
    assert kinds(causes) == [kind]
    assert proof.comparison().causes == (causes[0].says,)


@pytest.mark.quick_to_compile
def test_an_honest_port_has_no_cause(theirs: Trace) -> None:
    right = jax_trace("conv_nnx", theirs)
    sides = lined_up(theirs, right, found_mapping(theirs, right))
    for step, stage, leaf in (
        (0, "params", "fc1.weight"),
        (1, "loss", "loss"),
        (1, "raw_grads", "conv1.weight"),
        (1, "buffers", "bn1.running_var"),
        (2, "batch", "x"),
    ):
        assert not causes_of(*sides, first(stage, step, leaf))


@pytest.mark.quick_to_compile
def test_a_map_found_by_the_values_of_a_wrong_start(theirs: Trace) -> None:
    mapping = found_mapping(theirs, jax_trace("conv_nnx", theirs))
    assert mapping is not None
    (piece,) = mapping.leaves["fc1.kernel"]
    by_values = {**mapping.leaves, "fc1.kernel": (dataclasses.replace(piece, axes=(0, 1)),)}
    mapping = dataclasses.replace(mapping, leaves=by_values)
    start = named(conv_nnx.from_torch, turned)
    wrong = jax_trace("conv_nnx", theirs, Plant("conv_nnx", "turned", "layout", "loss", 1, start))
    proof = proved(theirs, wrong, mapping)
    finding = proof.comparison().first
    assert finding is not None
    assert finding.stage == "loss"
    (cause,) = causes_of(proof.torch, proof.jax, finding)
    assert cause.says == (
        "perhaps: fc1.kernel lies as PyTorch has it, the other leaves called kernel are transposed"
    )
