"""The one cycle: up to a peak and down to almost nothing, in so many steps."""

import math
from typing import Any

import jax.numpy as jnp

from twinstep.errors import Check, InputError, check_arguments
from twinstep.jax.optim.lr_scheduler.base import (
    Schedule,
    absolute,
    from_the_start,
    number,
    one_of,
    quotient,
    rate,
    rounded,
    whole,
    wide,
)
from twinstep.jax.optim.lr_scheduler.counts import Count, clock


def one_cycle_lr(
    lr: float,
    max_lr: float,
    total_steps: int | None = None,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    pct_start: float = 0.3,
    anneal_strategy: str = "cos",
    cycle_momentum: bool = True,
    base_momentum: float = 0.85,
    max_momentum: float = 0.95,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
    last_epoch: int = -1,
) -> Schedule:
    """Up to max_lr and down to far below the start; `.momentum` the other way.

    The rate is NaN after count total_steps, where PyTorch raises. The last of total_steps updates
    has the end value; `optax.cosine_onecycle_schedule` would have it one update later, and
    `optax.linear_onecycle_schedule` has a third piece. Give the momentum to the optimizer as well:
    `sgd(lr=s, momentum=s.momentum)`, `adam(lr=s, betas=(s.momentum, 0.999))`.

    Args:
        lr: The optimizer's learning rate. PyTorch overwrites it with max_lr / div_factor.
        max_lr: The rate at the peak, 0 or more.
        total_steps: Updates in all, an int, 1 or more; None: epochs * steps_per_epoch.
        epochs, steps_per_epoch: Ints, 1 or more, for where `total_steps` is None.
        pct_start: The part of the steps that goes up, a float from 0 to 1.
        anneal_strategy: "cos" or "linear", the form of each way.
        cycle_momentum: Whether there is a `.momentum`.
        base_momentum, max_momentum: The momentum at the peak and at the ends.
        div_factor: The first rate is max_lr / div_factor, not 0.
        final_div_factor: The last rate is the first one / final_div_factor, not 0.
        three_phase: Whether it comes down to the first rate as it went up, and goes on to the last
            one from there.
        last_epoch: -1 only: the optimizer's state keeps the count.

    Returns:
        A `Schedule`: the rate, () float, after so many updates, () int; so is its `momentum`.

    Raises:
        InputError: For a value that PyTorch refuses or cannot compute with, lists.

    Example:
        >>> from twinstep.jax.optim.lr_scheduler import one_cycle_lr
        >>> # PyTorch: OneCycleLR(optimizer, max_lr=1.0, total_steps=6, pct_start=0.5)
        >>> schedule = one_cycle_lr(0.1, max_lr=1.0, total_steps=6, pct_start=0.5)
        >>> [round(float(schedule(count)), 4) for count in range(6)]
        [0.04, 0.52, 1.0, 0.75, 0.25, 0.0]
        >>> [round(float(schedule.momentum(count)), 4) for count in range(6)]
        [0.95, 0.9, 0.85, 0.875, 0.925, 0.95]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.OneCycleLR.html
    """
    name = "one_cycle_lr"
    check_arguments(
        name,
        lr=rate(lr),
        max_lr=rate(max_lr),
        **_lengths(total_steps, epochs, steps_per_epoch),
        pct_start=(
            pct_start,
            "a float from 0 to 1",
            lambda v: isinstance(v, float) and 0 <= v <= 1,
        ),
        anneal_strategy=one_of(anneal_strategy, "cos", "linear"),
        base_momentum=number(base_momentum),
        max_momentum=number(max_momentum),
        div_factor=number(div_factor, "a number other than 0", bool),
        final_div_factor=number(final_div_factor, "a number other than 0", bool),
        last_epoch=from_the_start(last_epoch),
    )
    total = total_steps if total_steps is not None else (epochs or 0) * (steps_per_epoch or 0)
    start = max_lr / div_factor
    end = start / final_div_factor
    peak = float(pct_start * total) - 1
    if peak == 0:
        raise InputError(
            f"{name}: pct_start is {pct_start!r}, expected another than 1 / total_steps: "
            "PyTorch divides by 0"
        )
    # (last count of the phase, rates from and to, momenta from and to)
    phases = [
        (peak, (start, max_lr), (max_momentum, base_momentum)),
        (total - 1, (max_lr, end), (base_momentum, max_momentum)),
    ]
    if three_phase:
        phases[1:] = [
            (float(2 * pct_start * total) - 2, (max_lr, start), (base_momentum, max_momentum)),
            (total - 1, (start, end), (max_momentum, max_momentum)),
        ]

    def annealed(count: Count, which: int) -> Any:
        last, *ranges = phases[-1]
        begin = phases[-2][0]
        value = _between(count, begin, last, *ranges[which], anneal_strategy)
        begins = [0.0, *(phase[0] for phase in phases[:-2])]
        for begin, (last, *ranges) in reversed(list(zip(begins, phases[:-1], strict=True))):
            here = _between(count, begin, last, *ranges[which], anneal_strategy)
            counted = jnp.issubdtype(count.dtype, jnp.integer)
            value = jnp.where(count <= (math.floor(last) if counted else last), here, value)
        return jnp.where(count > total, math.nan, value)

    def momentum(count: Any) -> Any:
        return jnp.asarray(annealed(clock(name, count, fractions=True), 1), float)

    return absolute(
        name,
        lr,
        lambda count: annealed(count, 0),
        initial=start,
        momentum=momentum if cycle_momentum else None,
    )


def _between(
    count: Count, begin: float, last: float, start: float, end: float, strategy: str
) -> Any:
    """From start at count `begin` to end at count `last`."""
    if wide():
        done = quotient(count - begin, last - begin)
        if strategy == "cos":
            return end + rounded((start - end) / 2.0 * (jnp.cos(math.pi * done) + 1))
        return rounded((end - start) * done) + start
    done, left = quotient(count - begin, last - begin), quotient(last - count, last - begin)
    if strategy == "cos":
        done, left = jnp.sin(math.pi / 2 * done) ** 2, jnp.sin(math.pi / 2 * left) ** 2
    return start * left + end * done


def _lengths(total_steps: Any, epochs: Any, steps_per_epoch: Any) -> dict[str, Check]:
    """What has to be right of the three: total_steps, or the two others if that is None."""
    if total_steps is not None or epochs is None or steps_per_epoch is None:
        value, expected, right = whole(total_steps, 1, strict=True)
        return {"total_steps": (value, f"{expected}, or epochs and steps_per_epoch", right)}
    return {
        "epochs": whole(epochs, 1, strict=True),
        "steps_per_epoch": whole(steps_per_epoch, 1, strict=True),
    }
