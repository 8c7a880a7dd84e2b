"""Schedules on clocks of their own, and their functions that no compiled step can call.

Several clocks in one schedule, updates that are skipped, tables made on the host: against PyTorch's
schedulers in loops that step them that way.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from helpers.synthetic_traces import refused
from helpers.torch_schedules import (
    CYCLE,
    E9,
    KINDS,
    LINE,
    LR,
    WAVES,
    Case,
    at_once,
    case,
    moved,
    optimizer_for,
    scanned,
    steps_without_updates,
    torch_rates,
    worst,
)

from twinstep.jax import optim
from twinstep.jax.optim import lr_scheduler

pytestmark = [pytest.mark.quick_to_compile, pytest.mark.usefixtures("x64")]


# ----------------------------------------------------------------------------------- several clocks

UPDATES = 4  # an epoch
LINES = case("linear_lr", total_iters=11)
STAIRS = case("step_lr", step_size=2, gamma=0.7)
BY_BATCH_AND_EPOCH = [(one, STAIRS) for one in KINDS if one.twin().initial == LR]
BY_BATCH_AND_EPOCH += [
    (LINES, one) for one in KINDS if one.name not in ("cyclic_lr", "one_cycle_lr")
]
BY_BATCH_AND_EPOCH += [(LINES, CYCLE), (case("cosine_annealing_lr", T_max=7), E9)]


def two_clocks(by_batch: Case, by_epoch: Case, steps: int = 60) -> np.ndarray:
    """(steps,) the rates where one scheduler is stepped after each batch, one after each epoch."""
    optimizer, rates = optimizer_for(LR), []
    with steps_without_updates():
        first, second = by_batch.torch_side(optimizer), by_epoch.torch_side(optimizer)
        for step in range(1, steps + 1):
            rates.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()
            first.step()
            if step % UPDATES == 0:
                second.step()
    return np.array(rates)


@pytest.mark.parametrize(
    ("by_batch", "by_epoch"),
    BY_BATCH_AND_EPOCH,
    ids=[f"{a.name}-{b.name}" for a, b in BY_BATCH_AND_EPOCH],
)
def test_two_clocks_in_one_schedule(by_batch: Case, by_epoch: Case) -> None:
    expected = two_clocks(by_batch, by_epoch)
    chain = lr_scheduler.chained_scheduler([by_batch.twin(), by_epoch.twin().every(UPDATES)])
    assert worst(scanned(chain, 60), expected) <= 1
    assert worst(at_once(chain.tabulate(60), 60), expected) <= 1
    late = lr_scheduler.chained_scheduler([by_batch.twin(), by_epoch.twin().every(UPDATES + 1)])
    assert not worst(at_once(late.tabulate(60), 60), expected) <= 1


def test_a_clock_in_a_clock() -> None:
    """And a momentum on the slower one."""
    for one in (CYCLE, case("chained_scheduler", LINE, E9)):
        slow = one.twin().every(2).every(3)
        assert worst(at_once(slow, 60), np.repeat(torch_rates(one.torch_side, 10), 6)) <= 1
    momenta = torch_rates(CYCLE.torch_side, 10, read=lambda group: group["momentum"])
    assert worst(at_once(CYCLE.twin().every(6).momentum, 60), np.repeat(momenta, 6)) <= 1


def test_clocks_that_there_are_not() -> None:
    slow = STAIRS.twin().every(2)
    for number in (0, 2.5, -1, "2"):
        refused(partial(STAIRS.twin().every, number), f"step_lr.every: updates is {number!r}")
    refused(lambda: STAIRS.twin().tabulate(2.5), "step_lr.tabulate: steps is 2.5")
    one = E9.twin()
    for parts in ([slow, one], [one, slow], [lr_scheduler.chained_scheduler([one, slow]), one]):
        refused(partial(lr_scheduler.sequential_lr, parts, [3]), "has a clock of its own")


# --------------------------------------------------------------------------------- skipped updates

SKIPPED = (2, 3, 9)
CURVE, START = np.diag([1.0, 3.0, 0.5]), np.array([1.0, -2.0, 0.5])


def scaled_path(kind: Any, words: dict[str, Any], waits: bool, steps: int = 14) -> np.ndarray:
    """(steps, 3) under a GradScaler that meets inf; waits: whether the scheduler does so then."""
    param, curve = torch.nn.Parameter(torch.tensor(START)), torch.tensor(CURVE)
    optimizer, path = kind([param], lr=LR, **words), []
    scheduler, scaler = E9.torch_side(optimizer), torch.amp.GradScaler("cpu", init_scale=4.0)
    with steps_without_updates():
        for step in range(steps):
            optimizer.zero_grad()
            loss = (0.5 * param @ curve @ param) * (math.inf if step in SKIPPED else 1.0)
            scaler.scale(loss).backward()
            before = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            if not waits or scaler.get_scale() >= before:
                scheduler.step()
            path.append(param.detach().numpy().copy())
    return np.array(path)


def skipping_path(optimizer: Any, steps: int = 14) -> np.ndarray:
    """The same."""

    def body(carry: Any, step: Any) -> tuple[Any, Any]:
        params, state = carry
        skipped = jnp.any(step == jnp.array(SKIPPED))
        grads = jnp.asarray(CURVE) @ params * jnp.where(skipped, jnp.inf, 1.0)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    start = jnp.asarray(START)
    run = jax.jit(lambda: jax.lax.scan(body, (start, optimizer.init(start)), jnp.arange(steps))[1])
    return np.asarray(run())


@pytest.mark.parametrize(
    ("kind", "ours", "words"),
    [
        (torch.optim.SGD, optim.sgd, {"momentum": 0.9}),
        (torch.optim.Adam, optim.adam, {}),
        (torch.optim.RMSprop, optim.rmsprop, {}),
    ],
    ids=["SGD", "Adam", "RMSprop"],
)
def test_a_schedule_where_updates_are_skipped(kind: Any, ours: Any, words: dict[str, Any]) -> None:
    """The optimizer's clock waits, that of `own_clock` goes on."""
    schedule = E9.twin()
    waits = optax.apply_if_finite(ours(lr=schedule, **words), 100)
    goes_on = lr_scheduler.own_clock(
        lambda count: optax.apply_if_finite(ours(lr=schedule(count), **words), 100)
    )
    for optimizer, right, wrong in ((waits, True, False), (goes_on, False, True)):
        path = skipping_path(optimizer)
        # of parameters of size 1, each step's rounding
        np.testing.assert_allclose(path, scaled_path(kind, words, right), rtol=1e-13, atol=1e-14)
        assert not np.allclose(path, scaled_path(kind, words, wrong), rtol=1e-6)


def test_a_schedule_that_steps_with_every_micro_batch() -> None:
    schedule = E9.twin()
    ours = lr_scheduler.own_clock(lambda count: optim.accumulate(optim.sgd(lr=schedule(count)), 3))
    rates = torch_rates(E9.torch_side, 9)
    np.testing.assert_allclose(moved(ours, 9), np.where(np.arange(9) % 3 == 2, 3 * rates, 0))


# ------------------------------------------------------------------------------ tables on the host


def python_only(count: int) -> float:
    """What no compiled step can call."""
    return 0.5 if count < 3 else 1 / math.sqrt(count)


PLAIN = [0.5, 1.0, 0.25, *([0.9] * 58)]
FUNCTIONS: dict[str, Callable[[int], Any]] = {
    "if": python_only,
    "math": lambda count: 1 + math.cos(count),
    "a list": lambda count: PLAIN[count],
    "NumPy": lambda count: 1 / np.sqrt(1 + np.float64(count)),
    "a while loop": lambda count: 0.5 ** len([n for n in (2, 4) if n <= count]),
    "an int": lambda count: 10**count % 7,
}


def with_function(f: Callable[[int], Any]) -> list[Case]:
    """Every place for a function, alone, in others and on a slower clock."""
    words = WAVES | {"cycle_momentum": False}
    alone = [
        case("lambda_lr", lr_lambda=f),
        case("multiplicative_lr", lr_lambda=f),
        case("cyclic_lr", **words, scale_fn=f),
        case("cyclic_lr", **words, scale_fn=f, scale_mode="iterations"),
    ]
    one, other, *_ = alone
    return [
        *alone,
        case("chained_scheduler", E9, one),
        case("sequential_lr", E9, other, milestones=[4]),
        case("sequential_lr", case("chained_scheduler", other, E9), one, milestones=[20]),
    ]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_pythons_has_a_table(name: str) -> None:
    for one in with_function(FUNCTIONS[name]):
        expected, schedule = torch_rates(one.torch_side, 60), one.twin()
        table = schedule.tabulate(60)
        assert worst(at_once(table, 60), expected) <= 1, one
        assert math.isnan(table(60))
        slow = schedule.every(3).tabulate(60)
        assert worst(at_once(slow, 60), np.repeat(expected[:20], 3)) <= 1, one
        chain = case("chained_scheduler", one, E9)
        if one.name != "cyclic_lr":  # a table is a part of others like any schedule
            rates = at_once(lr_scheduler.chained_scheduler([table, E9.twin()]).tabulate(60), 60)
            assert worst(rates, torch_rates(chain.torch_side, 60)) <= 1, one


@pytest.mark.parametrize("name", ["if", "math", "a list", "NumPy"])
def test_a_compiled_step_cannot_call_it(name: str) -> None:
    for one in with_function(FUNCTIONS[name]):
        schedule = one.twin()
        refused(partial(at_once, schedule, 60), "asks for the count's value", ".tabulate(steps)")


def test_a_table_asks_for_what_pytorch_asks_for() -> None:
    """MultiplicativeLR begins with count 1."""
    one = case("multiplicative_lr", lr_lambda=lambda count: 1 / count)
    assert worst(at_once(one.twin().tabulate(60), 60), torch_rates(one.torch_side, 60)) <= 1
    with pytest.raises(ZeroDivisionError):
        case("lambda_lr", lr_lambda=lambda count: 1 / count).twin().tabulate(9)
