"""Faults that fit no table: in numbers that overflow or underflow, late, or in a free run alone."""

import dataclasses
import types
from typing import Any

import jax
import pytest

from faults.pairs import (
    Honest,
    Pair,
    Plant,
    Side,
    Spot,
    compared,
    leave_noise_out,
    pair,
    spot_of,
    verify_only,
)
from faults.plants_anywhere import initial_params, loss, together
from faults.plants_jax import in_jax_step, jax_loss_by
from faults.plants_torch import at, backpropagated, in_torch_step, params_by, update_at
from twinstep import Verdict
from twinstep.runs import launch

pytestmark = pytest.mark.quick_to_compile


HUGE = [
    pair("chain_rule", "float64", x=1e80, learning_rate=1e-161, steps=3),
    pair("chain_rule", "float32", x=1e15, learning_rate=1e-31),
]
HALF_AS_LARGE_AGAIN: dict[Side, Plant] = {
    "torch": loss(lambda value: value + 0.5 * value.detach()),
    "jax": jax_loss_by(
        lambda right, size, *given: right(*given) + jax.lax.stop_gradient(0.5 * right(*given))
    ),
}


@pytest.mark.parametrize("side", HALF_AS_LARGE_AGAIN)
@pytest.mark.parametrize("huge", HUGE, ids=str)
def test_loss_of_numbers_whose_squares_overflow(
    huge: Pair, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_noise_out(monkeypatch)
    comparison = compared(huge, verify_only, **{side: HALF_AS_LARGE_AGAIN[side]})
    assert comparison.verdict in (Verdict.MISMATCH, Verdict.INVALID), comparison.reason
    assert comparison.smallest_allowance("gate") != 0


@pytest.mark.parametrize("huge", HUGE, ids=str)
def test_numbers_whose_squares_overflow_are_no_fault(huge: Pair, honest_jax: Honest) -> None:
    comparison = honest_jax.compared(huge)
    assert comparison.verdict is not Verdict.MISMATCH, comparison.reason


DENORMAL = [
    pair("chain_rule", "float32", x=1e-20, y=1e-20, steps=3),
    pair("chain_rule", "float64", x=1e-160, y=1e-160, steps=3),
]


@pytest.mark.parametrize("tiny", DENORMAL, ids=str)
def test_denormal_gradients_prove_nothing(tiny: Pair, honest_jax: Honest) -> None:
    """XLA flushes them to 0, PyTorch does not; so nor can a fault in them be seen."""
    twice_as_large = backpropagated(lambda g: 2 * g)
    for found in (honest_jax.compared(tiny), honest_jax.compared(tiny, torch=twice_as_large)):
        assert found.verdict is Verdict.INVALID


def denormal(array: Any) -> Any:
    """As many numbers between 0 and the smallest normal one."""
    return array * 0 + {"float32": 1e-40, "float64": 1e-310}[str(array.dtype)]


START = initial_params("weight", denormal)
LOST_MOVE = in_torch_step(update=update_at(1, lambda k, run: None))
DOUBLED = in_torch_step(start=at(2, params_by(lambda p: 2 * p)))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_parameters_that_start_denormal(dtype: str, honest_jax: Honest) -> None:
    for plants, spot in (
        ((), None),
        ((LOST_MOVE,), Spot(1, "params", "weight")),
        ((DOUBLED,), Spot(2, "loss", "loss")),
    ):
        tiny = pair("linear_regression", dtype)
        comparison = honest_jax.compared(tiny, jax=START, torch=together(START, *plants))
        assert spot_of(comparison) == spot, comparison.reason
        assert comparison.verdict.same == (spot is None)


LONG = pair("sgd_single_sample", steps=10_000)


@pytest.mark.slow
def test_ten_thousand_steps_and_a_fault_in_the_last_thousand(honest_jax: Honest) -> None:
    comparison = honest_jax.compared(LONG)
    assert comparison.verdict.same, comparison.reason
    assert comparison.steps == 10_000
    late = in_torch_step(start=at(9_000, params_by(lambda p: p * (1 + 1e-10))))
    comparison = honest_jax.compared(LONG, torch=late)
    assert comparison.verdict is Verdict.MISMATCH, comparison.reason
    assert spot_of(comparison) == Spot(9_000, "loss", "loss")


def in_its_own_run(plant: Plant) -> Plant:
    """A fault where JAX trains by itself; the steps that it makes again are right."""

    def planted(patch: pytest.MonkeyPatch, example: Any) -> None:
        driver = launch.driver
        wrong = types.ModuleType(example.__name__)
        vars(wrong).update(vars(example))
        plant(patch, wrong)

        def meddled(framework: str, spec: Any, *rest: Any, **options: Any) -> Any:
            right = driver(framework, spec, *rest, **options)
            return right if framework == "torch" else dataclasses.replace(right, example=wrong)

        patch.setattr(launch, "driver", meddled)

    return planted


def twice(make: Any, optimizer: Any) -> Any:
    """The step is made twice and recorded as one."""
    right = make(optimizer)
    return lambda state, batch: right(right(state, batch)[0], batch)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("example", ["adam_update", "sgd_linear_model"])
def test_two_steps_recorded_as_one_are_no_drift(example: str, dtype: str) -> None:
    plant = in_its_own_run(in_jax_step(twice))
    comparison = compared(pair(example, dtype, steps=4), jax=plant)
    assert comparison.verdict is Verdict.MISMATCH, comparison.reason
    assert comparison.first is not None
    assert comparison.first.step == 1
