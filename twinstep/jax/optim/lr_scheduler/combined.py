"""The schedulers of schedulers: all of them at each step, or one after the other.

PyTorch builds the schedulers in order on one optimizer, and each leaves its mark on the rate as it
is built. The rates here are those; they count on the schedules to be in the order of building.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax.numpy as jnp

from twinstep.errors import InputError, check_arguments
from twinstep.jax.optim.lr_scheduler.base import (
    Rate,
    Schedule,
    from_the_start,
    recursion,
    whole,
)
from twinstep.jax.optim.lr_scheduler.counts import Count, clock, whole_count


def chained_scheduler(schedules: Iterable[Schedule]) -> Schedule:
    """All schedules at every count, each on the rate that the one before it left.

    Where all of them only multiply, their product; else a loop over the counts in each call, which
    `tabulate` makes once. So a cosine with `eta_min` pulls towards it from wherever the others have
    come: a product of optax's schedules is something else.

    One with a slower clock, `every`, steps along only as its own clock does.

    Args:
        schedules: Schedules of one initial rate, in the order of PyTorch's construction.

    Returns:
        A `Schedule`: the rate, () float, after so many updates, () int.

    Raises:
        InputError: For none, for what is no schedule, and for schedules that no one optimizer can
            have.

    Example:
        >>> from twinstep.jax.optim.lr_scheduler import (
        ...     chained_scheduler, constant_lr, exponential_lr
        ... )
        >>> # PyTorch: ChainedScheduler([ConstantLR(opt, 0.5, 2), ExponentialLR(opt, 0.9)])
        >>> schedule = chained_scheduler([constant_lr(0.1, 0.5, 2), exponential_lr(0.1, 0.9)])
        >>> [round(float(schedule(count)), 4) for count in range(4)]
        [0.05, 0.045, 0.081, 0.0729]

    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.ChainedScheduler.html
    """
    return _chain(_together("chained_scheduler", schedules), 0)


def _chain(given: Sequence[Schedule], entries: int) -> Schedule:
    schedules = [_entered(schedule, entries) for schedule in given]

    def step(rate: Rate, count: Count) -> Rate:
        for schedule in schedules:
            rate = schedule.step(rate, count)
        return rate

    def first(rate: Rate) -> Rate:
        if entries:  # a full step, in PyTorch, of what a scheduler of one would not change yet
            return step(rate, whole_count(0))
        for schedule in schedules:
            rate = schedule.first(rate)
        return rate

    lr = given[0].lr
    multipliers = [schedule.factor for schedule in schedules if schedule.factor is not None]
    multiplied = len(multipliers) == len(schedules) and not entries

    def factor(count: Count) -> Any:
        return math.prod(part(count) for part in multipliers)

    moving = next((part.momentum for part in schedules if part.momentum), None)

    return Schedule(
        name="chained_scheduler",
        lr=lr,
        at=(lambda count: lr * factor(count)) if multiplied else recursion(lambda: first(lr), step),
        step=step,
        first=first,
        restart=None,
        initial=given[0].initial,
        factor=factor if multiplied else None,
        momentum=moving and (lambda count: moving(clock("chained_scheduler", count))),
        reentered=lambda more: _chain(given, entries + more),
        on_host=lambda steps: _chain(_on_host(given, steps), entries),
        parts=tuple(given),
    )


def sequential_lr(
    schedules: Iterable[Schedule], milestones: Iterable[int], last_epoch: int = -1
) -> Schedule:
    """One schedule after the other: each begins at its milestone, with its own count from 0.

    It begins from the optimizer's rate whatever the one before left; only multiplicative_lr goes on
    from there, and costs a loop over the counts in each call, which `tabulate` makes once.
    `optax.join_schedules` turns at the same counts.

    Args:
        schedules: Schedules of one initial rate, in the order of PyTorch's construction.
        milestones: Counts at which the second, third, ... one begins, in order; one less than the
            schedules.
        last_epoch: -1 only: the optimizer's state keeps the count.

    Returns:
        A `Schedule`: the rate, () float, after so many updates, () int.

    Raises:
        InputError: For milestones that are not one less than the schedules or not in order, and for
            a chained_scheduler or sequential_lr that is not the first: PyTorch cannot turn to it.
            For one with a slower clock (`every`). For schedules, as `chained_scheduler` does.

    Example:
        >>> from twinstep.jax.optim.lr_scheduler import exponential_lr, linear_lr, sequential_lr
        >>> # PyTorch: SequentialLR(opt, [LinearLR(opt, 0.5, total_iters=2),
        >>> #                             ExponentialLR(opt, 0.9)], milestones=[2])
        >>> warmup = linear_lr(0.1, 0.5, total_iters=2)
        >>> schedule = sequential_lr([warmup, exponential_lr(0.1, 0.9)], milestones=[2])
        >>> [round(float(schedule(count)), 4) for count in range(5)]
        [0.05, 0.075, 0.1, 0.09, 0.081]

    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.SequentialLR.html
    """
    name = "sequential_lr"
    given, marks = _together(name, schedules), list(milestones)
    check_arguments(
        name,
        milestones=(
            marks,
            f"{len(given) - 1}, one less than the schedules",
            lambda values: len(values) == len(given) - 1,
        ),
        **{f"milestones[{i}]": whole(mark, -(2**31)) for i, mark in enumerate(marks)},
        last_epoch=from_the_start(last_epoch),
    )
    check_arguments(
        name, milestones=(marks, "increasing numbers", lambda values: values == sorted(values))
    )
    if slowed := [i for i, schedule in enumerate(given) if _slowed(schedule)]:
        raise InputError(
            f"{name}: schedules[{slowed[0]}] has a clock of its own, expected one for all: PyTorch "
            "steps them together (call `every` on the sequential_lr, or chain the schedules)"
        )
    for i, schedule in enumerate(given[bisect_right(marks, 0) + 1 :], bisect_right(marks, 0) + 1):
        if schedule.restart is None:
            raise InputError(
                f"{name}: schedules[{i}] is a {schedule.name}, expected it to be the first: "
                "PyTorch cannot turn to it"
            )
    return _sequence(given, [int(mark) for mark in marks], 0)


def _sequence(given: Sequence[Schedule], milestones: list[int], entries: int) -> Schedule:
    """entries: how many sequential_lr it is in; each leaves its own count one further on."""
    schedules = [_entered(schedule, entries + 1) for schedule in given]
    initial, begins = given[0].initial, milestones
    running = bisect_right(milestones, 0)

    def chosen(count: Count, values: Sequence[Any]) -> Any:
        value = values[0]
        for begin, later in zip(begins, values[1:], strict=True):
            value = jnp.where(count + entries >= begin, later, value)
        return value

    def clocks(count: Count) -> list[Any]:
        """Each schedule's own count; the one that was running at count 0 began there."""
        own = [jnp.minimum(count, count + entries - begin) for begin in begins]
        return [jnp.maximum(clock, 0) for clock in (count, *own)]

    def step(rate: Rate, count: Count) -> Rate:
        rates = [s.step(rate, clock) for s, clock in zip(schedules, clocks(count), strict=True)]
        for i, begin in enumerate(begins, 1):
            restart = schedules[i].restart
            if restart is not None:
                rates[i] = jnp.where(count + entries == begin, restart(rate), rates[i])
        return chosen(count, rates)

    def first(rate: Rate) -> Rate:
        return step(rate, whole_count(0)) if entries else schedules[running].first(initial)

    def at(count: Count) -> Rate:
        return chosen(
            count, [s.at(clock) for s, clock in zip(schedules, clocks(count), strict=True)]
        )

    continues = any(s.name == "multiplicative_lr" for s in schedules[running + 1 :])
    looped = bool(entries) or continues
    return Schedule(
        name="sequential_lr",
        lr=given[0].lr,
        at=recursion(lambda: first(initial), step) if looped else at,
        step=step,
        first=first,
        restart=None,
        initial=initial,
        momentum=_sequence_momentum(schedules, begins, entries),
        reentered=lambda more: _sequence(given, milestones, entries + more),
        on_host=lambda steps: _sequence(_on_host(given, steps), milestones, entries),
        parts=tuple(given),
    )


def _sequence_momentum(
    schedules: Sequence[Schedule], begins: Sequence[int], entries: int
) -> Callable[[Count], Any] | None:
    """That of the one schedule that has it: as it begins until then, as it ended from then on."""
    for i, schedule in enumerate(schedules):
        momentum = schedule.momentum
        if momentum is not None:
            begin = max(begins[i - 1] - entries if i else 0, 0)
            end = begins[i] - entries if i < len(begins) else 2**31 - 1
            length = max(end - begin, 1)
            return lambda count: momentum(
                jnp.clip(clock("sequential_lr", count) - begin, 0, length - 1)
            )
    return None


def _entered(schedule: Schedule, entries: int) -> Schedule:
    """A schedule as it is after the construction of the sequential_lr around it."""
    return schedule.reentered(entries) if schedule.reentered and entries else schedule


def _on_host(schedules: Iterable[Schedule], steps: int) -> list[Schedule]:
    return [s.on_host(steps) if s.on_host else s for s in schedules]


def _slowed(schedule: Schedule) -> bool:
    """Whether a clock in it is not that of the updates."""
    return schedule.updates > 1 or any(map(_slowed, schedule.parts))


def _leaves(schedules: Iterable[Schedule]) -> list[Schedule]:
    return [leaf for s in schedules for leaf in (_leaves(s.parts) if s.parts else [s])]


def _one_cycles(schedules: Iterable[Schedule]) -> int:
    return sum(leaf.name == "one_cycle_lr" for leaf in _leaves(schedules))


def _together(name: str, schedules: Iterable[Schedule]) -> list[Schedule]:
    """The schedules, if one optimizer of PyTorch's can have them all."""
    given = list(schedules)
    if not given:
        raise InputError(f"{name}: schedules is [], expected at least one schedule")
    for i, schedule in enumerate(given):
        if not isinstance(schedule, Schedule):
            raise InputError(
                f"{name}: schedules[{i}] is a {type(schedule).__name__}, expected a schedule "
                "of the count alone"
            )
    initial = given[0].initial
    for i, schedule in enumerate(given[1:], 1):
        # cyclic_lr leaves the initial rate as it is, unless it comes first; one_cycle_lr never does
        kept = schedule.lr if schedule.name == "cyclic_lr" else schedule.initial
        for value in {schedule.lr, kept} if schedule.name != "one_cycle_lr" else {kept}:
            if value != initial:
                raise InputError(
                    f"{name}: schedules[{i}] starts from {value!r}, expected {initial!r}: an "
                    "optimizer has one initial rate, that of the first schedule"
                )
    moving = [leaf for leaf in _leaves(given) if leaf.momentum]
    if len(moving) > 1 or _one_cycles(given) > 1:
        raise InputError(
            f"{name}: schedules has more than one that moves the momentum or is a one_cycle_lr, "
            "expected one: PyTorch keeps their bounds in one place"
        )
    return given
