"""twinstep.jax.optim.lr_scheduler against torch.optim.lr_scheduler: every rate of 1,000 steps.

The bar is `torch_schedules.worst`: 1e-14 of the rate, beside 1e-16 of the largest one.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.optim_database import optim_db
from helpers.torch_schedules import (
    LR,
    Case,
    at_once,
    case,
    optimizer_for,
    scanned,
    stepped,
    torch_rates,
    twin_of,
    worst,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from twinstep.jax.optim import lr_scheduler

pytestmark = [pytest.mark.quick_to_compile, pytest.mark.usefixtures("x64")]

STEPS = 1000


def _halving(count: Any) -> Any:
    return 1 / (1 + count // 40)


def _wavering(count: Any) -> Any:
    return 0.99 + count % 3 / 200


E9, CONSTANT, LINE = case("exponential_lr", gamma=0.9), case("constant_lr"), case("linear_lr")
COSINE = case("cosine_annealing_lr", T_max=40, eta_min=0.01)
LAMBDA = case("lambda_lr", lr_lambda=_halving)
PRODUCT = case("multiplicative_lr", lr_lambda=_wavering)
CYCLE = case("cyclic_lr", base_lr=0.01, max_lr=0.1, step_size_up=7)
SHORT_CYCLE = case("one_cycle_lr", max_lr=0.1, total_steps=900)
UP = {"base_lr": 0.1, "max_lr": 0.2, "step_size_up": 3}


def chain(*parts: Case) -> Case:
    """A chained_scheduler."""
    return case("chained_scheduler", *parts)


def sequence(*parts: Case, at: list[int]) -> Case:
    """A sequential_lr."""
    return case("sequential_lr", *parts, milestones=at)


SINGLE = [
    LAMBDA,
    PRODUCT,
    case("step_lr", step_size=30),
    case("step_lr", step_size=1, gamma=0.99),
    case("step_lr", step_size=500, gamma=1 - 1e-5),
    case("multi_step_lr", milestones=[30, 80]),
    case("multi_step_lr", milestones=[80, 0, 30, 80], gamma=0.3),
    case("multi_step_lr", milestones=[]),
    CONSTANT,
    case("constant_lr", factor=0.5, total_iters=1),
    LINE,
    case("linear_lr", start_factor=1.0, end_factor=0.0, total_iters=997),
    case("linear_lr", start_factor=0.9429544484484028, end_factor=0.87, total_iters=1018),
    case("linear_lr", start_factor=0.4, total_iters=1),
    E9,
    case("exponential_lr", gamma=1.01),
    case("polynomial_lr"),
    case("polynomial_lr", total_iters=997, power=0.5),
    case("polynomial_lr", total_iters=920, power=1.0, lr=0.001),
    case("polynomial_lr", total_iters=30, power=0.0),
    COSINE,
    *(case("cosine_annealing_lr", T_max=size) for size in (1, 2, 10, 499)),
    case("cosine_annealing_lr", T_max=333, eta_min=1e-5),
    case("cosine_annealing_lr", T_max=546, eta_min=0.079),
    case("cosine_annealing_lr", T_max=90, eta_min=0.3),
    case("cosine_annealing_warm_restarts", T_0=1),
    case("cosine_annealing_warm_restarts", T_0=10, eta_min=1e-4),
    case("cosine_annealing_warm_restarts", T_0=10, T_mult=2, eta_min=1e-4),
    case("cosine_annealing_warm_restarts", T_0=7, T_mult=3),
    CYCLE,
    case("cyclic_lr", base_lr=1, max_lr=5, step_size_up=4, step_size_down=11, mode="triangular2"),
    case("cyclic_lr", base_lr=0.1, max_lr=0, step_size_up=9, mode="exp_range", gamma=0.99),
    case("cyclic_lr", base_lr=0.001, max_lr=0.1, step_size_up=2.5, step_size_down=1.25),
    case("cyclic_lr", **UP, scale_fn=lambda x: 1 / (1 + x)),
    case("cyclic_lr", **UP, scale_fn=lambda x: 0.999**x, scale_mode="iterations"),
    case("one_cycle_lr", max_lr=0.1, total_steps=STEPS),
    case("one_cycle_lr", max_lr=0.1, epochs=10, steps_per_epoch=111, anneal_strategy="linear"),
    case("one_cycle_lr", max_lr=0.1, total_steps=STEPS, pct_start=0.25, three_phase=True),
    case("one_cycle_lr", max_lr=0.1, total_steps=1001, pct_start=0.0, final_div_factor=10),
]
COMBINED = [
    chain(CONSTANT, E9),
    chain(E9, COSINE),  # eta_min adds
    chain(CONSTANT, case("cosine_annealing_lr", T_max=20), PRODUCT),
    chain(LAMBDA, case("step_lr", step_size=3)),
    sequence(LINE, COSINE, at=[5]),
    sequence(E9, LINE, case("exponential_lr", gamma=0.95), at=[3, 20]),
    sequence(CONSTANT, E9, case("cosine_annealing_warm_restarts", T_0=3, T_mult=2), at=[4, 60]),
    sequence(E9, LINE, COSINE, at=[0, 10]),
    sequence(E9, LINE, COSINE, at=[5, 5]),
    sequence(E9, LINE, at=[-3]),
    sequence(E9, PRODUCT, at=[10]),  # goes on from where the first ended
    sequence(E9, LAMBDA, CYCLE, at=[10, 30]),
    sequence(CYCLE, dataclasses.replace(E9, lr=0.01), at=[20]),
    sequence(case("linear_lr", lr=0.004), SHORT_CYCLE, at=[100]),
    # one inside the other: PyTorch makes the inner one step once more as it builds the outer one
    sequence(chain(LINE, E9), COSINE, at=[17]),
    sequence(chain(case("polynomial_lr"), COSINE, PRODUCT, CONSTANT), E9, at=[10]),
    sequence(chain(case("multi_step_lr", milestones=[0, 5]), E9), E9, at=[10]),
    sequence(sequence(E9, LINE, at=[1]), E9, at=[30]),
    sequence(sequence(sequence(E9, LINE, CONSTANT, at=[2, 7]), E9, at=[30]), PRODUCT, at=[50]),
    sequence(chain(sequence(E9, LINE, at=[2]), E9), E9, at=[9]),
    chain(sequence(E9, COSINE, at=[5]), E9),
    chain(E9, sequence(E9, COSINE, at=[5])),
]


def _says(one: Case) -> str:
    inner = ",".join(map(_says, one.parts))
    return f"{one.name}({inner})" if inner else one.name


def _rates(one: Case, steps: int = STEPS) -> np.ndarray:
    first = one
    while first.parts:
        first = first.parts[0]
    return torch_rates(one.torch_side, steps, lr=first.lr)


@pytest.mark.parametrize("one", [*SINGLE, *COMBINED], ids=_says)
def test_every_rate_is_pytorchs(one: Case) -> None:
    expected, schedule = _rates(one), one.twin()
    assert worst(scanned(schedule, STEPS), expected) <= 1
    assert worst(stepped(schedule, STEPS), expected) <= 1
    assert schedule(3).dtype == jnp.float64
    assert schedule(3) == schedule(jnp.int32(3))


def _scheduler_inputs() -> list[Any]:
    """PyTorch's own: lists of schedulers that share an optimizer."""
    found = [inputs for info in optim_db for inputs in info.scheduler_inputs]
    return found + [info.metadata_for_sparse[1] for info in optim_db if info.metadata_for_sparse[1]]


METRICS = np.maximum(2.0, 5 - 0.01 * np.arange(STEPS)) + 0.1 * np.sin(np.arange(STEPS))


def test_pytorchs_own_scheduler_inputs() -> None:
    inputs = _scheduler_inputs()
    assert sum(len(info.scheduler_inputs) for info in optim_db) >= 27
    for makers in inputs:
        twins = [twin_of(make(optimizer_for(LR))) for make in makers]
        assert worst(_together(twins), torch_rates(makers, metrics=METRICS)) <= 1


def _together(twins: list[Any]) -> np.ndarray:
    """The rates of schedules, and a plateau at most, that share one."""
    plain = [twin for twin in twins if isinstance(twin, lr_scheduler.Schedule)]
    (plateau,) = [twin for twin in twins if twin not in plain] or [
        lr_scheduler.reduce_lr_on_plateau(LR, patience=10**6)
    ]
    rate: Any = LR
    for schedule in plain:
        rate = schedule.first(rate)

    def body(state: Any, given: Any) -> tuple[Any, Any]:
        count, metric = given
        rate = state.lr
        for schedule in plain:
            rate = schedule.step(rate, count)
        return plateau.update(state._replace(lr=rate), metric), state.lr

    start = plateau.init()._replace(lr=jnp.asarray(rate, float))
    given = jnp.arange(1, STEPS + 1), jnp.asarray(METRICS)
    return np.asarray(jax.jit(lambda: jax.lax.scan(body, start, given)[1])())


# ------------------------------------------------------------------------------------------- random

LRS = st.one_of(st.sampled_from([0.1, 1e-3, 1.0, 0.3]), st.floats(1e-6, 2))
LENGTHS = st.one_of(st.integers(1, 12), st.sampled_from(range(1, 1100, 37)))
FRACTIONS = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))
POSITIVE = st.one_of(st.sampled_from([0.25, 1 / 3, 1.0]), st.floats(1e-3, 1))
# nearer to 1 PyTorch's every product is rounded alike, which adds up
GAMMAS = st.one_of(st.sampled_from([0.1, 0.5, 0.9, 0.99]), st.floats(0.05, 0.9999))
ETAS = st.one_of(st.sampled_from([0.0, 1e-6, 0.01]), st.floats(0, 0.5))
RANDOM: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "lambda_lr": {"lr_lambda": GAMMAS.map(lambda g: lambda t: 1 / (1 + g * t))},
    "step_lr": {"step_size": LENGTHS, "gamma": GAMMAS},
    "multi_step_lr": {
        "milestones": st.lists(st.integers(0, STEPS), max_size=6),
        "gamma": GAMMAS,
    },
    "constant_lr": {"factor": POSITIVE, "total_iters": LENGTHS},
    "linear_lr": {"start_factor": POSITIVE, "end_factor": FRACTIONS, "total_iters": LENGTHS},
    "exponential_lr": {"gamma": GAMMAS},
    "polynomial_lr": {"total_iters": LENGTHS, "power": st.floats(0, 4)},
    "cosine_annealing_lr": {"T_max": LENGTHS, "eta_min": ETAS},
    "cosine_annealing_warm_restarts": {
        "T_0": LENGTHS,
        "T_mult": st.integers(1, 4),
        "eta_min": ETAS,
    },
    "cyclic_lr": {
        "base_lr": ETAS,
        "max_lr": LRS,
        "step_size_up": LENGTHS,
        "step_size_down": st.none() | LENGTHS,
        "mode": st.sampled_from(["triangular", "triangular2", "exp_range"]),
        "gamma": GAMMAS,
    },
    "one_cycle_lr": {
        "max_lr": LRS,
        "total_steps": st.integers(STEPS, 2 * STEPS),
        "pct_start": st.floats(0.01, 0.999),  # at 1 PyTorch divides by 0
        "anneal_strategy": st.sampled_from(["cos", "linear"]),
        "three_phase": st.booleans(),
        "div_factor": st.floats(1, 50),
        "final_div_factor": st.sampled_from([1.0, 100.0, 1e4]),
    },
}


@pytest.mark.parametrize("name", RANDOM)
def test_random_arguments(name: str) -> None:
    @settings(max_examples=200, deadline=None, derandomize=True, database=None)
    @given(lr=LRS, words=st.fixed_dictionaries(RANDOM[name]))
    def run(lr: float, words: dict[str, Any]) -> None:
        one = case(name, lr=lr, **words)
        assert worst(at_once(one.twin(), STEPS), _rates(one)) <= 1

    run()


SHORT = [
    *(E9, CONSTANT, LINE, LAMBDA, PRODUCT, COSINE),
    case("polynomial_lr", total_iters=9, power=2.0),
    case("step_lr", step_size=4, gamma=0.7),
    case("multi_step_lr", milestones=[0, 3, 3, 9], gamma=0.8),
    case("cosine_annealing_warm_restarts", T_0=4, T_mult=2),
]
LEAVES = st.sampled_from(SHORT)


def _combine(inner: st.SearchStrategy[Case]) -> st.SearchStrategy[Case]:
    chains = st.lists(inner, min_size=1, max_size=3).map(lambda parts: chain(*parts))
    sequences = st.tuples(inner, st.lists(LEAVES, max_size=2)).flatmap(
        lambda parts: st.lists(
            st.integers(1, 30), min_size=len(parts[1]), max_size=len(parts[1])
        ).map(lambda marks: sequence(parts[0], *parts[1], at=sorted(marks)))
    )
    return chains | sequences


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(one=st.recursive(LEAVES, _combine, max_leaves=5))
def test_random_combinations(one: Case) -> None:
    expected, schedule = _rates(one, 100), one.twin()
    assert worst(stepped(schedule, 100), expected) <= 1
    assert worst(scanned(schedule, 100), expected) <= 1


# ------------------------------------------------------------------------------------------ planted

STAIRS = case("step_lr", step_size=30, gamma=0.5)
STEEP = case("exponential_lr", gamma=0.999)
DECADE = case("multi_step_lr", milestones=[30, 80])
WAVE = case("cosine_annealing_lr", T_max=100, eta_min=0.01)
CHAIN = chain(E9, WAVE)
TURN = sequence(CONSTANT, STEEP, at=[3])
ONE = case("one_cycle_lr", max_lr=0.1, total_steps=STEPS)
ONE_MORE = case("one_cycle_lr", max_lr=0.1, total_steps=STEPS + 1)

Change = Callable[[Any], Callable[[Any], Any]]


def moved(by: int) -> Change:
    """The rate of another count."""
    return lambda schedule: lambda count: schedule(jnp.maximum(count + by, 0))


# a change of the schedule, or another one
FAULTS: dict[str, tuple[Case, Change | Case]] = {
    "one count late": (STEEP, moved(-1)),
    "one count early": (STEEP, moved(1)),
    "gamma a count late": (STAIRS, moved(-1)),
    "gamma at the start too": (STAIRS, lambda s: lambda count: 0.5 * s(count)),
    "after the milestone, not at it": (DECADE, case("multi_step_lr", milestones=[31, 81])),
    "the cosine ends at T_max": (WAVE, lambda s: lambda count: s(jnp.minimum(count, 100))),
    "a restart for a rise": (WAVE, case("cosine_annealing_warm_restarts", T_0=100, eta_min=0.01)),
    "a chain as a product": (
        CHAIN,
        lambda s: lambda count: E9.twin()(count) * WAVE.twin()(count) / LR,
    ),
    "a chain in another order": (CHAIN, chain(WAVE, E9)),
    "goes on from the rate before": (
        TURN,
        lambda s: lambda count: jnp.where(count < 3, s(count), s(2) * 0.999 ** (count - 3)),
    ),
    "turns a count late": (TURN, sequence(CONSTANT, STEEP, at=[4])),
    "a cycle of one step more": (ONE, ONE_MORE),
    "peak at a whole step": (
        ONE_MORE,
        case("one_cycle_lr", max_lr=LR, total_steps=STEPS + 1, pct_start=300 / (STEPS + 1)),
    ),
    "in float32": (STEEP, lambda s: optax.exponential_decay(LR, 1, 0.999)),
    "a little off": (STEEP, lambda s: lambda count: s(count) * (1 + 3e-14)),
    "NaN": (STEEP, lambda s: lambda count: jnp.where(count == 500, jnp.nan, s(count))),
}


@pytest.mark.parametrize(("one", "fault"), FAULTS.values(), ids=FAULTS)
def test_the_comparison_rejects(one: Case, fault: Change | Case) -> None:
    wrong = fault.twin() if isinstance(fault, Case) else fault(one.twin())
    assert worst(at_once(wrong), _rates(one)) > 1


def test_the_comparison_rejects_another_length() -> None:
    assert worst(np.ones(3), np.ones(4)) > 1
