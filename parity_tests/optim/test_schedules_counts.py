"""What schedules are asked with: fractions of an epoch, arrays of counts, the widest integer."""

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.synthetic_traces import refused
from helpers.torch_schedules import (
    BY_EPOCH,
    BY_STEP,
    CLASSES,
    CYCLE,
    E9,
    KINDS,
    LR,
    Case,
    by_name,
    case,
    moved,
    optimizer_for,
    steps_without_updates,
    worst,
)

from twinstep.jax import optim
from twinstep.jax.optim import swa_lr

pytestmark = [pytest.mark.quick_to_compile, pytest.mark.usefixtures("x64")]


def test_every_schedule_is_here() -> None:
    assert {one.name for one in KINDS} == CLASSES.keys() - {"reduce_lr_on_plateau"}


# ---------------------------------------------------------------------------------------- fractions

EPOCHS = np.concatenate([np.arange(8) / 1, np.random.RandomState(0).uniform(0, 59, 60)])


def stepped_to(one: Case, epochs: Any, key: str = "lr") -> np.ndarray:
    """What PyTorch's optimizer has after each `scheduler.step(epoch)`."""
    optimizer = optimizer_for(one.lr)
    scheduler, found = one.torch_side(optimizer), []
    with warnings.catch_warnings(), steps_without_updates():
        warnings.filterwarnings("ignore", message="The epoch parameter in")
        for epoch in epochs:
            scheduler.step(float(epoch))
            found.append(float(optimizer.param_groups[0][key]))
    return np.array(found)


@pytest.mark.parametrize("one", BY_EPOCH, ids=by_name)
def test_a_fraction_of_an_epoch_is_pytorchs(one: Case) -> None:
    schedule, expected = one.twin(), stepped_to(one, EPOCHS)
    assert worst(np.asarray(jax.jit(schedule)(jnp.asarray(EPOCHS))), expected) <= 1
    assert worst(np.array([schedule(epoch) for epoch in EPOCHS]), expected) <= 1
    if schedule.momentum is not None:
        momenta = stepped_to(one, EPOCHS, "momentum")
        assert worst(np.asarray(jax.jit(schedule.momentum)(jnp.asarray(EPOCHS))), momenta) <= 1
    with jax.enable_x64(False):
        narrow = EPOCHS.astype(np.float32)
        rates = np.asarray(one.twin()(jnp.asarray(narrow)))
    # a wave's slope times half an ulp of the epoch, beside the rate's own last bits
    near = stepped_to(one, narrow)
    assert np.max(np.abs(rates - near) / (np.abs(near) + LR)) <= 64 * 2.0**-24


@pytest.mark.parametrize(("T_0", "T_mult"), [(1, 10), (3, 2), (7, 3), (5, 5), (2, 6), (10, 2)])
def test_a_restart_is_where_pytorchs_logarithm_has_it(T_0: int, T_mult: int) -> None:  # noqa: N803  # PyTorch's names
    """A bit before its epoch, or after it: PyTorch's log(1000, 10) is below 3."""
    begins = [T_0 * (T_mult**cycle - 1) // (T_mult - 1) for cycle in range(1, 7)]
    beside = [(np.nextafter(b, 0), b, np.nextafter(b, 1e9), b + 0.5) for b in begins]
    one = case("cosine_annealing_warm_restarts", T_0=T_0, T_mult=T_mult, eta_min=0.01)
    epochs = np.ravel(beside)
    rates = np.asarray(jax.jit(one.twin())(jnp.asarray(epochs)))
    assert worst(rates, stepped_to(one, epochs)) <= 1


def test_steps_within_an_epoch() -> None:
    """`scheduler.step(epoch + i / iters)`, as PyTorch's page has it."""
    one, iters = case("cosine_annealing_warm_restarts", T_0=2, T_mult=3), 7
    epochs = [epoch + i / iters for epoch in range(9) for i in range(iters)]
    schedule = one.twin()
    rates = moved(optim.sgd(lr=lambda count: schedule(count / iters)), len(epochs))
    assert worst(rates, stepped_to(one, epochs)) <= 1


def slower(one: Case) -> Any:
    return one.twin().every(2)


def tabulated(one: Case) -> Any:
    return one.twin().tabulate(9)


TURNING_LATE = case("sequential_lr", CYCLE, E9, milestones=[9])
TURNING = case("chained_scheduler", CYCLE, E9)
FRACTIONS: dict[str, Callable[[], Any]] = {
    **{one.name: one.twin for one in BY_STEP},
    **{f"{one.name}.every": functools.partial(slower, one) for one in KINDS},
    **{f"{one.name}.tabulate": functools.partial(tabulated, one) for one in KINDS},
    "a chain's momentum": lambda: TURNING.twin().momentum,
    "a sequence's momentum": lambda: TURNING_LATE.twin().momentum,
    "a slower momentum": lambda: CYCLE.twin().every(2).momentum,
    "swa_lr": lambda: swa_lr(0.1, 0.05),
}


@pytest.mark.parametrize("name", FRACTIONS)
def test_other_fractions_are_refused(name: str) -> None:
    schedule = FRACTIONS[name]()
    refused(lambda: schedule(3.7), "count is 3.7", "a whole number")
    refused(lambda: schedule(jnp.float32(3)), "count is an array of float32", "integers")
    refused(lambda: jax.jit(schedule)(jnp.arange(3.0)), "count is an array of float64", "integers")
    assert schedule(3.0) == schedule(3) == schedule(np.uint8(3))


# ------------------------------------------------------------------------------------------- arrays


@pytest.mark.parametrize("one", [*KINDS, case("multi_step_lr", milestones=[])], ids=by_name)
def test_an_array_of_counts_gives_an_array_of_rates(one: Case) -> None:
    counts = jnp.array([[0, 3, 1], [40, 17, 2]], jnp.int32)
    for schedule in (one.twin(), one.twin().every(3), one.twin().tabulate(50)):
        rates = jax.jit(schedule)(counts)
        one_by_one = np.array([[schedule(int(count)) for count in row] for row in counts])
        assert rates.shape == counts.shape
        assert worst(np.asarray(rates), one_by_one) <= 1
        assert schedule(jnp.zeros((0, 2), int)).shape == (0, 2)


def _asked(make: Callable[[Any], Any]) -> list[Any]:
    """The dtypes of the counts that a function given to an optimizer is asked with."""
    seen = []

    def rate(count: Any) -> Any:
        seen.append(count.dtype)
        return 0.1 * count / (count + 1)

    optimizer, params = make(rate), jnp.ones((2, 2))
    needed = {  # by LBFGS and SparseAdam
        "value": jnp.asarray(4.0),
        "value_and_grad_fn": jax.value_and_grad(lambda p: jnp.sum(p**2)),
        "touched": jnp.ones(2, bool),
    }
    given = needed if isinstance(optimizer, optax.GradientTransformationExtraArgs) else {}
    optimizer.update(params, optimizer.init(params), params, **given)
    return seen


def _stepped_by(made: Any) -> Any:
    """An optimizer as it is, a schedule as SGD's."""
    return made if hasattr(made, "update") else optim.sgd(lr=made)


MORE = {"swa_lr": {"swa_lr": 0.05}}
LR_OF = {
    name: getattr(optim, name)
    for name in optim.__all__
    if name != "lr_scheduler" and "lr" in inspect.signature(getattr(optim, name)).parameters
}


@pytest.mark.parametrize("name", LR_OF)
def test_a_plain_function_is_asked_in_the_widest_integer(name: str) -> None:
    """Quotients of an int32 are float32, x64 or not: 1.7e-8 off."""
    seen = _asked(lambda rate: _stepped_by(LR_OF[name](lr=rate, **MORE.get(name, {}))))
    assert {*seen} == {jnp.dtype("int64")}


def test_a_plain_function_as_momentum_too() -> None:
    assert {*_asked(lambda rate: optim.sgd(lr=0.1, momentum=rate))} == {jnp.dtype("int64")}
    assert {*_asked(lambda rate: optim.adam(betas=(rate, rate)))} == {jnp.dtype("int64")}
