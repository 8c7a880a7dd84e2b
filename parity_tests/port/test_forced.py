"""A port's own loss_fn and step_fn, judged at every step from PyTorch's recorded parameters."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twinstep
import twinstep.jax.rewriting.search
from port.small_pair import adam, forward, step_of, torch_side, transposed
from twinstep import extras
from twinstep.trace.ledger import Trace


@functools.cache
def pair(dtype: str = "float64") -> tuple[Trace, Trace]:
    """PyTorch's recording, and that of a port that made the very same numbers."""
    theirs = torch_side(5, dtype)
    return theirs, dataclasses.replace(
        theirs, metadata=dataclasses.replace(theirs.metadata, framework="jax")
    )


def start(dtype: str = "float64") -> Any:
    """The parameters as a step takes them."""
    tree: dict[str, dict[str, jax.Array]] = {}
    for name, array in pair(dtype)[0].params.items():
        layer, leaf = name.split(".")
        tree.setdefault(layer, {})[leaf] = jnp.asarray(array[0])
    return tree


def state(tx: Any, dtype: str = "float64") -> Any:
    """The state before the first step."""
    params = start(dtype)
    return params, (tx.init(params), jnp.zeros((), int))


def loss_of(forward: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda params, batch: jnp.mean(forward(params, batch["x"]) ** 2)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_right_port_is_called_the_same(dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        step = {"step_fn": step_of(adam()), "state": state(adam(), dtype)}
        for given in ({"loss_fn": loss_of(forward)}, step):
            found = twinstep.prove(*pair(dtype), **given)
            assert found.verdict.same, str(found)
            assert found.notes == ()


@pytest.mark.parametrize("change", [1e-9, 1e-3])
def test_a_wrong_loss_is_found(change: float) -> None:
    wrong = loss_of(lambda params, x: forward(params, x) * (1 + change))
    found = twinstep.prove(*pair(), loss_fn=wrong)
    assert found.first is not None
    assert (found.first.stage, found.first.step) == ("loss", 1)


def test_where_no_difference_fits_it_is_said() -> None:
    wrong = loss_of(lambda params, x: jnp.sin(3 * forward(params, x)) + 0.3)
    found = twinstep.prove(*pair(), loss_fn=wrong)
    assert not found.causes
    assert "of what was tried in loss_fn no one difference makes it PyTorch's" in found.notes


def test_what_a_run_did_beside_its_loss_is_told_apart_from_it() -> None:
    theirs, ours = pair()
    off = dataclasses.replace(ours, losses=ours.losses * (1 + 1e-6))
    found = twinstep.prove(theirs, off, loss_fn=loss_of(forward))
    assert found.first is not None
    assert (found.first.stage, found.first.step) == ("loss", 1)
    assert any("loss_fn itself makes PyTorch's" in note for note in found.notes)


def test_a_program_that_cannot_be_taken_apart_leaves_the_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*given: Any) -> Any:
        raise RuntimeError("no such primitive\nmore")

    monkeypatch.setattr(twinstep.jax.rewriting.search, "flattened", fails)
    wrong = loss_of(lambda params, x: forward(params, x) * 1.5)
    found = twinstep.prove(*pair(), loss_fn=wrong)
    assert not found.verdict.same
    assert "loss_fn was not taken apart: RuntimeError: no such primitive" in found.notes


def test_a_layout_that_only_the_loss_tells_is_named() -> None:
    found = twinstep.prove(*pair(), loss_fn=loss_of(transposed))
    assert found.first is not None
    assert found.first.stage == "loss"
    assert any("2.weight" in cause and "the losses are" in cause for cause in found.causes)


def test_a_gradient_that_is_wrong_beside_a_right_loss_is_found() -> None:
    def stopped(params: Any, x: Any) -> Any:
        layer = params["2"] | {"bias": jax.lax.stop_gradient(params["2"]["bias"])}
        return forward(params | {"2": layer}, x)

    found = twinstep.prove(*pair(), loss_fn=loss_of(stopped))
    assert found.first is not None
    assert (found.first.stage, found.first.leaf, found.first.step) == ("raw_grads", "2.bias", 1)


def test_a_wrong_step_is_found_at_its_step() -> None:
    def late(count: Any) -> Any:  # twice the rate from the third update on
        return jnp.where(count < 2, 2.0**-6, 2.0**-5)

    with jax.enable_x64(True):
        tx = adam(late)
        found = twinstep.prove(*pair(), step_fn=step_of(tx), state=state(tx))
    assert found.first is not None
    assert (found.first.stage, found.first.step) == ("params", 3)


def test_an_unknown_optimizer_is_judged_by_step_fn() -> None:
    theirs, ours = pair()
    known = {n: {**one, "class": "Mine"} for n, one in theirs.program["optimizers"].items()}
    mine = dataclasses.replace(theirs, program={**theirs.program, "optimizers": known})
    assert not twinstep.prove(mine, ours).verdict.same
    with jax.enable_x64(True):
        found = twinstep.prove(mine, ours, step_fn=step_of(adam()), state=state(adam()))
    assert found.verdict.same


@pytest.mark.parametrize(
    ("step_fn", "says"),
    [
        (lambda state, batch: 1 / 0, "step 1: step_fn raised ZeroDivisionError"),
        (lambda state, batch: (state, 0.0, 1), "expected (state, loss)"),
        (lambda state, batch: (state, jnp.zeros(2)), "a loss of shape (2,), expected ()"),
        (lambda state, batch: ((state[0],), 0.0), "step_fn gives no leaf"),
        (
            lambda state, batch: ((jax.tree.map(lambda x: x[:1], state[0]), state[1]), 0.0),
            "step_fn makes state, '0.0.bias' float64 of shape (1,), it was float64 of (32,)",
        ),
    ],
)
def test_what_a_step_may_not_do_is_said(step_fn: Any, says: str) -> None:
    with jax.enable_x64(True), pytest.raises(twinstep.InputError) as refused:
        twinstep.prove(*pair(), step_fn=step_fn, state=state(adam()))
    assert says in str(refused.value)


def of_two_optimizers(trace: Trace) -> Trace:
    """A trace of which one leaf has two updates of five."""
    raw = {**trace.raw_grads, "2.bias": trace.raw_grads["2.bias"][:2]}
    stages = ("params/2.bias", "raw_grads/2.bias", "grads/2.bias")
    params = {**trace.params, "2.bias": trace.params["2.bias"][:3]}
    rows = dict.fromkeys(stages, np.array([0, 2]))
    return dataclasses.replace(trace, params=params, raw_grads=raw, grads=raw, rows=rows)


def test_two_optimizers_are_no_one_step() -> None:
    says = r"2\.bias: 2 of 5 updates are of it, expected all"
    with pytest.raises(twinstep.InputError, match=says):
        twinstep.prove(*map(of_two_optimizers, pair()), loss_fn=loss_of(forward))


def test_without_jax_all_but_the_updates_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "installed", lambda module: module != "jax")
    theirs, ours = pair()
    found = twinstep.prove(theirs, ours)
    assert str(found).startswith("invalid: updates of 0.weight are not judged: to judge updates")
    wrong = dataclasses.replace(ours, losses=ours.losses * 1.5)
    found = twinstep.prove(theirs, wrong)
    assert found.first is not None
    assert found.first.stage == "loss"
