"""The schedulers that go up and down, again and again: cosines and triangles."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from twinstep.errors import check_arguments
from twinstep.jax.optim.lr_scheduler.base import (
    TABLE,
    Rate,
    Schedule,
    absolute,
    from_table,
    from_the_start,
    number,
    power,
    quotient,
    rate,
    rounded,
    whole,
    wide,
)
from twinstep.jax.optim.lr_scheduler.counts import Count, called, clock, table_of


def _half_cosine(count: Count, size: Any) -> Any:
    """(1 + cos(pi count / size)) / 2: 1 at 0, 0 at size.

    In float32 from the distance to the next 0, a whole number, so that it is exact near there.
    """
    if wide():
        return (1 + jnp.cos(quotient(math.pi * count, size))) / 2
    away = jnp.abs(size - count % (2 * size))
    return jnp.sin(math.pi / 2 * quotient(away, size)) ** 2


@functools.lru_cache(64)
def _half_cosines(size: int) -> tuple[float, ...]:
    """The same for counts 0, 1, 2, ... by the host's cosine, which is PyTorch's."""
    return tuple((1 + math.cos(math.pi * count / size)) / 2 for count in range(TABLE))


@functools.lru_cache(64)
def _annealed(lr: float, eta_min: float, size: int) -> tuple[float, ...]:
    """cosine_annealing_lr's rates for counts 0, 1, 2, ..., each from the one before, as PyTorch's.

    A rise begins with the difference of two near numbers; what that loses, up to size**2 ulps, the
    rest of the wave keeps, and a closed form has not got.
    """
    cosines, rates = _half_cosines(size), [lr]
    for count in range(1, TABLE):
        rate = rates[-1]
        if (count - 1 - size) % (2 * size) == 0:
            rates.append(rate + (lr - eta_min) * (1 - math.cos(math.pi / size)) / 2)
        else:
            rates.append(cosines[count] / cosines[count - 1] * (rate - eta_min) + eta_min)
    return tuple(rates)


def cosine_annealing_lr(
    lr: float,
    T_max: int,  # noqa: N803 - PyTorch's name
    eta_min: float = 0.0,
    last_epoch: int = -1,
) -> Schedule:
    """Down to eta_min in half a cosine, by T_max; up again in the next half, and so on.

    `optax.cosine_decay_schedule` stays at its end instead.

    Args:
        lr: The optimizer's learning rate, 0 or more.
        T_max: The counts of half a wave, a whole number, 1 or more.
        eta_min: The rate at count `T_max`.
        last_epoch: -1 only: the optimizer's state keeps the count.

    Returns:
        A `Schedule`: the rate, () float, after so many updates, () int.

    Raises:
        InputError: For a T_max that is no whole number above 0.

    Example:
        >>> from twinstep.jax.optim.lr_scheduler import cosine_annealing_lr
        >>> # PyTorch: CosineAnnealingLR(optimizer, T_max=2, eta_min=0.02)
        >>> schedule = cosine_annealing_lr(0.1, T_max=2, eta_min=0.02)
        >>> [round(float(schedule(count)), 4) for count in range(6)]
        [0.1, 0.06, 0.02, 0.06, 0.1, 0.06]

    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.CosineAnnealingLR.html
    """
    name = "cosine_annealing_lr"
    check_arguments(
        name,
        lr=rate(lr),
        T_max=whole(T_max, 1),
        eta_min=number(eta_min),
        last_epoch=from_the_start(last_epoch),
    )
    size, height = int(T_max), lr - eta_min
    rise = (1 - math.cos(math.pi / size)) / 2

    def half_wave(count: Count) -> Any:
        return from_table(_half_cosines(size), count, _half_cosine(count, size))

    def closed(count: Any) -> Any:
        return eta_min + height * _half_cosine(count, size)

    def at(count: Count) -> Any:
        return from_table(_annealed(float(lr), float(eta_min), size), count, closed(count))

    def step(before: Rate, count: Count) -> Any:
        ratio = half_wave(count) / half_wave(jnp.abs(count - 1))
        rises = (count - 1 - size) % (2 * size) == 0
        return jnp.where(
            rises, before + height * rise, rounded(ratio * (before - eta_min)) + eta_min
        )

    return Schedule(
        name=name,
        lr=lr,
        at=at,
        step=step,
        first=lambda before: before,
        restart=lambda before: jnp.asarray(lr, float),
        initial=lr,
        fraction=closed,
    )


def cosine_annealing_warm_restarts(
    lr: float,
    T_0: int,  # noqa: N803 - PyTorch's name
    T_mult: int = 1,  # noqa: N803 - PyTorch's name
    eta_min: float = 0.0,
    last_epoch: int = -1,
) -> Schedule:
    """Down to eta_min in half a cosine and back at once, each time T_mult times as long.

    A count may be a fraction: PyTorch's `scheduler.step(epoch + i / iters)` is
    `lambda count: schedule(count / iters)`. In optax, `join_schedules` of a `cosine_decay_schedule`
    for each cycle.

    Args:
        lr: The optimizer's learning rate, 0 or more.
        T_0: The counts of the first cycle, an int, 1 or more.
        T_mult: How many times as long as the one before each cycle is, an int, 1 or more.
        eta_min: The rate that a cycle comes down to.
        last_epoch: -1 only: the optimizer's state keeps the count.

    Returns:
        A `Schedule`: the rate, () float, after so many updates, () int or float.

    Raises:
        InputError: For T_0 or T_mult that is no int above 0.

    Example:
        >>> from twinstep.jax.optim.lr_scheduler import cosine_annealing_warm_restarts
        >>> # PyTorch: CosineAnnealingWarmRestarts(optimizer, T_0=2, T_mult=2)
        >>> schedule = cosine_annealing_warm_restarts(0.1, T_0=2, T_mult=2)
        >>> [round(float(schedule(count)), 4) for count in range(7)]
        [0.1, 0.05, 0.1, 0.0854, 0.05, 0.0146, 0.1]

    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.CosineAnnealingWarmRestarts.html
    """
    name = "cosine_annealing_warm_restarts"
    check_arguments(
        name,
        lr=rate(lr),
        T_0=whole(T_0, 1, strict=True),
        T_mult=whole(T_mult, 1, strict=True),
        eta_min=number(eta_min),
        last_epoch=from_the_start(last_epoch),
    )
    sizes = [T_0]
    while T_mult > 1 and sum(sizes) < 2**31:
        sizes.append(sizes[-1] * T_mult)
    # a cycle that no count can reach the end of may be cut to what an integer holds
    ends = [min(end, 2**31 - 1) for end in itertools.accumulate(sizes)]
    sizes = [min(size, 2**31 - 1) for size in sizes]

    def at(count: Count) -> Any:
        if T_mult == 1:
            position, size = count % T_0, jnp.asarray(T_0, int)
        else:
            cycle = sum((count >= end for end in ends[:-1]), start=jnp.zeros((), int))
            position = count - jnp.array([0, *ends[:-1]], int)[cycle]
            size = jnp.array(sizes, int)[cycle]
        return eta_min + (lr - eta_min) * _half_cosine(position, size)

    turns = [_turn(T_0, T_mult, cycle) for cycle in range(1, len(sizes))]

    def fraction(count: Any) -> Any:
        if T_mult == 1:
            return eta_min + (lr - eta_min) * _half_cosine(count % T_0, T_0)
        cycle = sum((count >= _up(turn) for turn in turns), start=jnp.zeros((), int))
        position = count - jnp.array([0, *ends[:-1]], float)[cycle]
        return eta_min + (lr - eta_min) * _half_cosine(position, jnp.array(sizes, float)[cycle])

    return absolute(name, lr, at, fraction=fraction)


def _turn(first: int, times: int, cycle: int) -> float:
    """The least epoch that PyTorch's step(epoch) has in a cycle: about its beginning.

    Which cycle it is in, PyTorch reads off a logarithm, whose last bit may be a cycle's difference.
    """

    def is_there(epoch: float) -> bool:
        reached = int(math.log(epoch / first * (times - 1) + 1, times))
        return epoch >= first and reached >= cycle

    begin = first * (times**cycle - 1) / (times - 1)
    below, above = begin * (1 - 1e-9), begin * (1 + 1e-9)
    middle = begin
    while middle not in (below, above):
        below, above = (below, middle) if is_there(middle) else (middle, above)
        middle = (below + above) / 2
    return float(above)


def _up(bound: float) -> Any:
    """The least number not below a bound in the float that counts are in."""
    kind = jnp.result_type(float).type
    near = kind(bound)
    return near if near >= bound else np.nextafter(near, kind(np.inf))


def cyclic_lr(
    lr: float,
    base_lr: float,
    max_lr: float,
    step_size_up: float = 2000,
    step_size_down: float | None = None,
    mode: str = "triangular",
    gamma: float = 1.0,
    scale_fn: Callable[[Any], Any] | None = None,
    scale_mode: str = "cycle",
    cycle_momentum: bool = True,
    base_momentum: float = 0.8,
    max_momentum: float = 0.9,
    last_epoch: int = -1,
) -> Schedule:
    """From base_lr up to max_lr and down again; `.momentum` the other way.

    optax has no such schedule. Give the momentum to the optimizer as well:
    `sgd(lr=s, momentum=s.momentum)`, `adam(lr=s, betas=(s.momentum, 0.999))`.

    Args:
        lr: The optimizer's learning rate. PyTorch overwrites it with base_lr.
        base_lr, max_lr: The rates at the foot and at the top, 0 or more.
        step_size_up: Counts from the foot to the top, above 0.
        step_size_down: Counts from the top to the foot, 0 or more; None: as many as up.
        mode: "triangular" keeps the height, "triangular2" halves it each cycle, "exp_range"
            multiplies it by `gamma` each count.
        gamma: The factor of "exp_range".
        scale_fn: The factor of the height, in place of `mode`: called with a traced integer, the
            number of the cycle from 1 or the count; `tabulate` calls it with Python's ints.
        scale_mode: "cycle" gives `scale_fn` the number of the cycle, anything else the count.
        cycle_momentum: Whether there is a `.momentum`.
        base_momentum, max_momentum: The momentum at the top and at the foot.
        last_epoch: -1 only: the optimizer's state keeps the count.

    Returns:
        A `Schedule`: the rate, () float, after so many updates, () int; so is its `momentum`.

    Raises:
        InputError: For a mode that PyTorch refuses, an empty way up, lists.

    Example:
        >>> from twinstep.jax.optim.lr_scheduler import cyclic_lr
        >>> # PyTorch: CyclicLR(optimizer, base_lr=0.1, max_lr=0.5, step_size_up=2)
        >>> schedule = cyclic_lr(0.1, base_lr=0.1, max_lr=0.5, step_size_up=2)
        >>> [round(float(schedule(count)), 4) for count in range(6)]
        [0.1, 0.3, 0.5, 0.3, 0.1, 0.3]
        >>> [round(float(schedule.momentum(count)), 4) for count in range(6)]
        [0.9, 0.85, 0.8, 0.85, 0.9, 0.85]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.CyclicLR.html
    """
    name, modes = "cyclic_lr", ("triangular", "triangular2", "exp_range")
    down = step_size_up if step_size_down is None else step_size_down
    check_arguments(
        name,
        lr=rate(lr),
        base_lr=rate(base_lr),
        max_lr=rate(max_lr),
        step_size_up=number(step_size_up, "a number above 0", lambda v: v > 0),
        step_size_down=number(down, "a number, 0 or more", lambda v: v >= 0),
        mode=(mode, f"one of {', '.join(modes)}", lambda v: v in modes or scale_fn is not None),
        gamma=number(gamma),
        base_momentum=number(base_momentum),
        max_momentum=number(max_momentum),
        last_epoch=from_the_start(last_epoch),
    )
    total = float(step_size_up) + float(down)
    up, by_cycle = float(step_size_up) / total, scale_mode == "cycle"

    def triangle(count: Count, span: float) -> Any:
        """Where the count is between 0 and span."""
        if wide() or not total.is_integer():
            turns = 1 + quotient(count, total)
            cycle = jnp.floor(turns).astype(int)
            position = turns - cycle
            rises, rising = position <= up, quotient(position, up)
            falling = quotient(position - 1, up - 1 or -1.0)
        else:
            cycle, position = (1 + count // int(total)).astype(int), count % int(total)
            rises, rising = position <= step_size_up, quotient(position, step_size_up)
            falling = quotient(int(total) - position, down or 1.0)
        height = span * jnp.where(rises, rising, falling)
        if scale_fn is not None:
            scale = called(name, "scale_fn", scale_fn, cycle if by_cycle else count)
        elif mode == "exp_range":
            scale = power(gamma, count)
        else:
            scale = power(0.5 if mode == "triangular2" else 1.0, cycle - 1)
        return rounded(height * scale)

    def momentum(count: Any) -> Any:
        moved = triangle(clock(name, count, fractions=True), max_momentum - base_momentum)
        return jnp.asarray(max_momentum - moved, float)

    def on_host(steps: int) -> Schedule:
        assert scale_fn is not None
        last = math.floor(1 + (steps - 1) / total) if by_cycle else steps - 1
        return cyclic_lr(
            lr,
            base_lr,
            max_lr,
            step_size_up,
            down,
            scale_fn=table_of(scale_fn, last + 1, needed_from=int(by_cycle)),
            scale_mode=scale_mode,
            cycle_momentum=cycle_momentum,
            base_momentum=base_momentum,
            max_momentum=max_momentum,
        )

    return absolute(
        name,
        lr,
        lambda count: base_lr + triangle(count, max_lr - base_lr),
        initial=base_lr,
        momentum=momentum if cycle_momentum else None,
        on_host=on_host if scale_fn else None,
    )
