"""The schedules at work: in optimizers and compiled loops, with a metric, in float32, refused."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from helpers.porting_schedules import PAGE, ROWS, faults, gaps, is_as_stated, shown, stated
from helpers.torch_schedules import (
    CLASSES,
    LR,
    OF_PEAK,
    Case,
    at_once,
    case,
    optimizer_for,
    scanned,
    steps_without_updates,
    torch_rates,
    worst,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import ReduceLROnPlateau

from twinstep.errors import InputError
from twinstep.jax.optim import adam, lr_scheduler, sgd

pytestmark = pytest.mark.usefixtures("x64")

CURVE = np.diag([1.0, 3.0, 0.5])
START = np.array([1.0, -2.0, 0.5])


# --------------------------------------------------------------------------------------- optimizers


def _torch_path(kind: Any, words: dict[str, Any], build: Callable[[Any], Any], steps: int) -> Any:
    """(steps, 3) the parameters of a small quadratic after each update."""
    param, curve = torch.nn.Parameter(torch.tensor(START)), torch.tensor(CURVE)
    optimizer = kind([param], **words)
    scheduler, path = build(optimizer), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = 0.5 * param @ curve @ param
        loss.backward()
        optimizer.step()
        plateau = isinstance(scheduler, ReduceLROnPlateau)
        scheduler.step(*([loss.item()] if plateau else []))
        path.append(param.detach().numpy().copy())
    return np.array(path)


def _jax_path(optimizer: Any, steps: int) -> Any:
    """The same."""

    def body(carry: Any, _: None) -> tuple[Any, Any]:
        params, state = carry
        updates, state = optimizer.update(jnp.asarray(CURVE) @ params, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    params = jnp.array(START)
    run = jax.jit(lambda c: jax.lax.scan(body, c, None, length=steps)[1])
    return np.asarray(run((params, optimizer.init(params))))


CYCLIC = case("cyclic_lr", base_lr=0.001, max_lr=0.05, step_size_up=11, mode="triangular2")
ONE = case("one_cycle_lr", max_lr=0.05, total_steps=200)
MOVING = [
    CYCLIC,
    ONE,
    case("one_cycle_lr", max_lr=0.05, total_steps=200, three_phase=True, anneal_strategy="linear"),
    case("sequential_lr", case("constant_lr"), CYCLIC, milestones=[30]),
    case("sequential_lr", CYCLIC, case("exponential_lr", gamma=0.99, lr=0.001), milestones=[29]),
    case("chained_scheduler", CYCLIC, case("exponential_lr", gamma=0.99, lr=0.001)),
]


@pytest.mark.parametrize("one", MOVING, ids=lambda one: one.name)
def test_schedules_that_move_the_momentum(one: Case) -> None:
    schedule = one.twin()
    expected = _torch_path(torch.optim.SGD, {"lr": LR, "momentum": 0.9}, one.torch_side, 200)
    path = _jax_path(sgd(lr=schedule, momentum=schedule.momentum), 200)
    np.testing.assert_allclose(path, expected, rtol=1e-12, atol=1e-14)
    expected = _torch_path(torch.optim.Adam, {"lr": LR}, one.torch_side, 200)
    path = _jax_path(adam(lr=schedule, betas=(schedule.momentum, 0.999)), 200)
    np.testing.assert_allclose(path, expected, rtol=1e-12, atol=1e-14)
    momenta = torch_rates(one.torch_side, 200, read=lambda group: group["momentum"])
    assert worst(scanned(schedule.momentum, 200), momenta) <= 1
    assert not worst(scanned(lambda count: schedule.momentum(count + 1), 200), momenta) <= 1


def test_one_that_does_not_move_the_momentum_has_none() -> None:
    assert lr_scheduler.cyclic_lr(0.1, 0.1, 0.2, cycle_momentum=False).momentum is None
    assert lr_scheduler.one_cycle_lr(0.1, 0.1, 100, cycle_momentum=False).momentum is None


def test_a_compiled_loop_is_traced_once() -> None:
    """Every count is the same program, and two of them too."""
    chained = case("chained_scheduler", case("cosine_annealing_lr", T_max=9), CYCLIC)
    for one in (case("step_lr", step_size=3), case("linear_lr"), chained, *MOVING):
        schedule = one.twin()
        optimizer = sgd(lr=schedule, momentum=0.9)
        update = jax.jit(optimizer.update)
        _, state = update(jnp.ones(3), optimizer.init(jnp.ones(3)))
        with jax.no_tracing(True):
            for _ in range(3):
                _, state = update(jnp.ones(3), state)


# ------------------------------------------------------------------------------------------ plateau

WORDS: dict[str, st.SearchStrategy[Any]] = {
    "mode": st.sampled_from(["min", "max"]),
    "factor": st.sampled_from([0.1, 0.5, 0.9, 0.0]),
    "patience": st.integers(0, 6),
    "threshold": st.sampled_from([0.0, 1e-4, 0.1, 1.0]),
    "threshold_mode": st.sampled_from(["rel", "abs"]),
    "cooldown": st.integers(0, 4),
    "min_lr": st.sampled_from([0, 1e-3, 0.2]),
    "eps": st.sampled_from([1e-8, 1e-3, 0.0]),
}
METRICS = st.lists(
    st.sampled_from([1.0, 0.9, 0.89, 0.5, 0.0, -1.0, math.nan, math.inf]) | st.floats(-2, 2),
    min_size=60,
    max_size=60,
)


def _plateau(metrics: Any, **words: Any) -> tuple[Any, Any]:
    """(steps, 4) of PyTorch's fields after each metric, and of ours."""
    optimizer = optimizer_for(LR)
    scheduler = ReduceLROnPlateau(optimizer, **words)
    theirs = []
    for metric in metrics:
        scheduler.step(metric)
        fields = scheduler.best, scheduler.num_bad_epochs, scheduler.cooldown_counter
        theirs.append([optimizer.param_groups[0]["lr"], *fields])
    plateau = lr_scheduler.reduce_lr_on_plateau(LR, **words)
    state, ours, update = plateau.init(), [], jax.jit(plateau.update)
    for metric in metrics:
        state = update(state, metric)
        ours.append([float(value) for value in state])
    return np.array(theirs, float), np.array(ours)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(words=st.fixed_dictionaries(WORDS), metrics=METRICS)
def test_a_plateau_is_pytorchs_to_the_bit(words: dict[str, Any], metrics: list[float]) -> None:
    theirs, ours = _plateau(metrics, **words)
    np.testing.assert_array_equal(ours, theirs)


def test_the_plateau_comparison_rejects() -> None:
    metrics = 5 - np.minimum(np.arange(60), 20) / 10
    theirs, ours = _plateau(metrics, patience=3, cooldown=2, factor=0.5)
    np.testing.assert_array_equal(ours, theirs)
    assert theirs[-1, 0] < LR / 8
    for words in ({"patience": 4}, {"patience": 2}, {"cooldown": 1}, {"factor": 0.4}):
        _, other = _plateau(metrics, **{"patience": 3, "cooldown": 2, "factor": 0.5, **words})
        assert not np.array_equal(other, theirs)


@pytest.mark.parametrize("injected", [False, True], ids=["made in the step", "injected"])
def test_a_plateaus_rate_reaches_the_optimizer(injected: bool) -> None:
    """The two ways of its documentation, in one compiled loop."""
    words: dict[str, Any] = {"factor": 0.7, "patience": 1, "threshold": 0.3}
    plateau = lr_scheduler.reduce_lr_on_plateau(0.6, **words)
    first = sgd(lr=0.6, momentum=0.9)
    if injected:
        first = optax.inject_hyperparams(lambda lr: sgd(lr, momentum=0.9))(lr=0.6)

    def update(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        inner, rates = state
        if injected:
            optimizer, inner = first, inner._replace(hyperparams={"lr": rates.lr})
        else:
            optimizer = sgd(lr=rates.lr, momentum=0.9)
        updates, inner = optimizer.update(grads, inner, params)
        return updates, (inner, plateau.update(rates, 0.5 * params @ grads))

    schedulers: list[ReduceLROnPlateau] = []

    def build(optimizer: torch.optim.Optimizer) -> ReduceLROnPlateau:
        schedulers.append(ReduceLROnPlateau(optimizer, **words))
        return schedulers[0]

    expected = _torch_path(torch.optim.SGD, {"lr": 0.6, "momentum": 0.9}, build, 100)
    ours = optax.GradientTransformation(lambda p: (first.init(p), plateau.init()), update)
    np.testing.assert_allclose(_jax_path(ours, 100), expected, rtol=1e-12, atol=1e-13)
    assert schedulers[0].get_last_lr()[0] < 0.6 / 4


# ------------------------------------------------------------------------------------------ float32

NARROW = [
    case("step_lr", step_size=500, gamma=1 - 1e-5),
    case("exponential_lr", gamma=0.997),
    case("linear_lr", start_factor=1.0, end_factor=0.0, total_iters=997),
    case("polynomial_lr", total_iters=997, power=0.5),
    case("cosine_annealing_lr", T_max=300),
    case("cosine_annealing_lr", T_max=10, eta_min=0.01),
    case("cosine_annealing_warm_restarts", T_0=70, T_mult=2),
    case("cyclic_lr", base_lr=0.001, max_lr=0.1, step_size_up=7, step_size_down=4),
    case("cyclic_lr", base_lr=0.001, max_lr=0.1, step_size_up=300, mode="triangular2"),
    case("one_cycle_lr", max_lr=0.1, total_steps=1000),
    case("one_cycle_lr", max_lr=0.1, total_steps=1000, anneal_strategy="linear"),
    case("chained_scheduler", case("linear_lr"), case("exponential_lr", gamma=0.99)),
    case("sequential_lr", case("linear_lr"), case("polynomial_lr"), milestones=[5]),
]


@pytest.mark.parametrize("one", NARROW, ids=lambda one: one.name)
def test_float32_loses_only_its_last_bits(one: Case) -> None:
    """Of the rate itself, however near 0 it comes, and not only of the largest one."""
    expected = torch_rates(one.torch_side, 1000)
    with jax.enable_x64(False):
        rates = scanned(one.twin())
        assert rates.dtype == np.float32
    allowed = 8 * 2.0**-24 * np.abs(expected) + 1e-12 * np.max(np.abs(expected))
    assert np.max(np.abs(rates - expected) / allowed) <= 1


def test_a_table_knows_its_end() -> None:
    one = case("chained_scheduler", case("exponential_lr", gamma=0.9), case("linear_lr"))
    schedule = one.twin()
    table = schedule.tabulate(10)
    np.testing.assert_allclose(at_once(table, 10), at_once(schedule, 10), rtol=1e-15)
    assert math.isnan(table(10))
    assert math.isnan(lr_scheduler.one_cycle_lr(0.1, 0.1, 10)(11))


@pytest.mark.parametrize(
    "one",
    [
        case("cosine_annealing_lr", T_max=3000, eta_min=0.01),
        case("cosine_annealing_lr", T_max=7),
        case("linear_lr", total_iters=20000),
        case("polynomial_lr", total_iters=20000),
        case("linear_lr", total_iters=50),
    ],
    ids=lambda one: one.name,
)
def test_after_the_tables_there_is_a_closed_form(one: Case) -> None:
    """Which has not got what PyTorch's rounding adds up to by then."""
    steps = 21000
    expected = torch_rates(one.torch_side, steps)
    np.testing.assert_allclose(at_once(one.twin(), steps), expected, rtol=1e-9, atol=1e-13)
    assert OF_PEAK < 1e-13


# ------------------------------------------------------------------------------------------- errors

twins: Any = lr_scheduler  # what a type checker refuses has to be refused for those who run none
E9, CYCLE = twins.exponential_lr(0.1, 0.9), twins.cyclic_lr(0.1, 0.1, 0.2)
REFUSED: dict[str, Callable[[], Any]] = {
    "lr is -0.1": lambda: twins.step_lr(-0.1, 30),
    "lr is None": lambda: twins.step_lr(None, 30),
    "lr is nan": lambda: twins.exponential_lr(math.nan, 0.9),
    "step_size is 0": lambda: twins.step_lr(0.1, 0),
    "step_size is 2.5": lambda: twins.step_lr(0.1, 2.5),
    "milestones[1] is -5": lambda: twins.multi_step_lr(0.1, [3, -5]),
    "gamma is 'x'": lambda: twins.exponential_lr(0.1, "x"),
    "lr_lambda is 0.9": lambda: twins.lambda_lr(0.1, 0.9),
    "list is for parameter groups": lambda: twins.multiplicative_lr(0.1, [abs]),
    "constant_lr: factor is 1.1": lambda: twins.constant_lr(0.1, 1.1),
    "constant_lr: factor is 0": lambda: twins.constant_lr(0.1, 0),
    "start_factor is 0": lambda: twins.linear_lr(0.1, 0),
    "start_factor is 1.5": lambda: twins.linear_lr(0.1, 1.5),
    "end_factor is -0.1": lambda: twins.linear_lr(0.1, end_factor=-0.1),
    "total_iters is 0": lambda: twins.linear_lr(0.1, total_iters=0),
    "power is -1": lambda: twins.polynomial_lr(0.1, power=-1),
    "T_max is 0": lambda: twins.cosine_annealing_lr(0.1, 0),
    "T_0 is 0": lambda: twins.cosine_annealing_warm_restarts(0.1, 0),
    "T_0 is 2.0": lambda: twins.cosine_annealing_warm_restarts(0.1, 2.0),
    "T_mult is 0": lambda: twins.cosine_annealing_warm_restarts(0.1, 2, 0),
    "eta_min is 'a'": lambda: twins.cosine_annealing_warm_restarts(0.1, 2, 1, "a"),
    "mode is 'up'": lambda: twins.cyclic_lr(0.1, 0.1, 0.2, mode="up"),
    "step_size_up is 0": lambda: twins.cyclic_lr(0.1, 0.1, 0.2, 0),
    "max_lr is [0.1]": lambda: twins.cyclic_lr(0.1, 0.1, [0.1]),
    "max_lr is [0.2]": lambda: twins.one_cycle_lr(0.1, [0.2], 9),
    "total_steps is 0": lambda: twins.one_cycle_lr(0.1, 0.1, 0),
    "total_steps is None": lambda: twins.one_cycle_lr(0.1, 0.1, epochs=3),
    "epochs is -1": lambda: twins.one_cycle_lr(0.1, 0.1, epochs=-1, steps_per_epoch=3),
    "steps_per_epoch is 1.5": lambda: twins.one_cycle_lr(0.1, 0.1, epochs=1, steps_per_epoch=1.5),
    "pct_start is 1.5": lambda: twins.one_cycle_lr(0.1, 0.1, 9, pct_start=1.5),
    "pct_start is 1,": lambda: twins.one_cycle_lr(0.1, 0.1, 9, pct_start=1),
    "pct_start is 0.25": lambda: twins.one_cycle_lr(0.1, 0.1, 4, pct_start=0.25),
    "anneal_strategy is 'x'": lambda: twins.one_cycle_lr(0.1, 0.1, 9, anneal_strategy="x"),
    "chained_scheduler: schedules is []": lambda: twins.chained_scheduler([]),
    "schedules[0] is a Plateau": lambda: twins.chained_scheduler([twins.reduce_lr_on_plateau(0.1)]),
    "schedules[1] starts from 0.2": lambda: twins.chained_scheduler(
        [E9, twins.exponential_lr(0.2, 0.9)]
    ),
    "schedules[1] starts from 0.004": lambda: twins.sequential_lr(
        [E9, twins.one_cycle_lr(0.1, 0.1, 9)], [3]
    ),
    "more than one that moves": lambda: twins.sequential_lr([CYCLE, CYCLE], [3]),
    "sequential_lr: schedules is []": lambda: twins.sequential_lr([], []),
    "milestones is [3, 5]": lambda: twins.sequential_lr([E9, E9], [3, 5]),
    "milestones is [5, 3]": lambda: twins.sequential_lr([E9] * 3, [5, 3]),
    "schedules[1] is a chained_scheduler": lambda: twins.sequential_lr(
        [E9, twins.chained_scheduler([E9])], [3]
    ),
    "last_epoch is 5": lambda: twins.step_lr(0.1, 30, last_epoch=5),
    "mode is 'mean'": lambda: twins.reduce_lr_on_plateau(0.1, "mean"),
    "factor is 1.0": lambda: twins.reduce_lr_on_plateau(0.1, factor=1.0),
    "threshold_mode is 'x'": lambda: twins.reduce_lr_on_plateau(0.1, threshold_mode="x"),
    "min_lr is [0]": lambda: twins.reduce_lr_on_plateau(0.1, min_lr=[0]),
}


@pytest.mark.parametrize(("says", "make"), REFUSED.items(), ids=REFUSED)
def test_what_is_refused(says: str, make: Callable[[], Any]) -> None:
    with pytest.raises(InputError) as caught:
        make()
    message = str(caught.value)
    assert says in message
    assert "\n" not in message
    assert "expected" in message
    assert message.partition(":")[0] in lr_scheduler.__all__


def test_what_pytorch_cannot_turn_to() -> None:
    """The reason for one of the refusals."""
    one = case("exponential_lr", gamma=0.9)
    turn = case("sequential_lr", one, case("chained_scheduler", one), milestones=[3])
    with pytest.raises(NotImplementedError), steps_without_updates():
        torch_rates(turn.torch_side, 5)


# ------------------------------------------------------------------------------------ the documents


def test_the_porting_page_is_true() -> None:
    measured = {row.torch: gaps(row) for row in ROWS}
    measure, text = (lambda row: measured[row.torch]), PAGE.read_text()
    assert faults(text, measure) == [], "python -m parity_tests.helpers.porting_schedules --write"
    assert all(stated(text)[row.torch][1] == "last bits" for row in ROWS)
    # and it is seen when it is not
    first = ROWS[0]
    for old, new in (
        (first.twin, "lambda_lr(0.1)"),
        (first.why, "for no reason"),
        ("A gap is", "No gap is"),
        (f"| {stated(text)[first.torch][0]} |", "| 0.5 |"),
        (f"| `{first.torch}`", "| `Other(opt)`"),
    ):
        assert old in text
        assert faults(text.replace(old, new, 1), measure)


def test_how_gaps_are_stated() -> None:
    for gap in (0.0, 1e-15, 3e-9, 0.0123, 0.5, math.inf, math.nan):
        assert is_as_stated(shown(gap), gap)
    for words, gap in (("last bits", 1e-9), ("1e-8", 1e-15), ("0.5", 0.4), ("NaN", 0.1)):
        assert not is_as_stated(words, gap)


def test_every_public_scheduler_has_a_twin_and_is_on_the_porting_page() -> None:
    called = {row.torch.partition("(")[0] for row in ROWS}
    assert called == set(torch.optim.lr_scheduler.__all__) - {"LRScheduler"}
    assert called == {kind.__name__ for kind in CLASSES.values()}
