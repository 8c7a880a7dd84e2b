"""The schedulers that go along a line, or a power of one."""

import functools
from typing import Any

import jax.numpy as jnp

from twinstep.errors import check_arguments
from twinstep.jax.optim.lr_scheduler.base import (
    TABLE,
    Schedule,
    from_table,
    from_the_start,
    number,
    quotient,
    rate,
    remaining,
    rounded,
    scaled,
    whole,
    wide,
)
from twinstep.jax.optim.lr_scheduler.counts import Count


def linear_lr(
    lr: float,
    start_factor: float = 1.0 / 3,
    end_factor: float = 1.0,
    total_iters: int = 5,
    last_epoch: int = -1,
) -> Schedule:
    """The rate times what goes from start_factor to end_factor in a line, by total_iters.

    `optax.linear_schedule` takes the two rates themselves, and its fraction is float32 whatever x64
    says.

    Args:
        lr: The optimizer's learning rate, 0 or more.
        start_factor: What multiplies the rate at count 0, above 0 and up to 1.
        end_factor: What multiplies it from count `total_iters` on, from 0 to 1.
        total_iters: The counts of the line, a whole number, 1 or more.
        last_epoch: -1 only: the optimizer's state keeps the count.

    Returns:
        A `Schedule`: the rate, () float, after so many updates, () int.

    Raises:
        InputError: For a factor that PyTorch refuses; and for total_iters 0, after which PyTorch's
            rate would stay at the start for good.

    Example:
        >>> from twinstep.jax.optim.lr_scheduler import linear_lr
        >>> # PyTorch: LinearLR(optimizer, start_factor=0.5, total_iters=2)
        >>> schedule = linear_lr(0.1, start_factor=0.5, total_iters=2)
        >>> [round(float(schedule(count)), 4) for count in range(4)]
        [0.05, 0.075, 0.1, 0.1]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.LinearLR.html
    """
    name = "linear_lr"
    check_arguments(
        name,
        lr=rate(lr),
        start_factor=number(start_factor, "above 0 and up to 1", lambda v: 0 < v <= 1),
        end_factor=number(end_factor, "from 0 to 1", lambda v: 0 <= v <= 1),
        total_iters=whole(total_iters, 1),
        last_epoch=from_the_start(last_epoch),
    )
    total = int(total_iters)

    slope = end_factor - start_factor

    def weighed(count: Count) -> Any:
        # a sum of two that are not negative: nothing cancels
        return start_factor * (total - count) + end_factor * count

    def ratio(count: Count) -> Any:
        if wide():
            during = 1 + slope / (total * start_factor + rounded((count - 1) * slope))
        else:
            during = weighed(count) / weighed(count - 1)
        return jnp.where(count == 0, start_factor, jnp.where(count > total, 1.0, during))

    def factor(count: Count) -> Any:
        return quotient(weighed(jnp.minimum(count, total)), total)

    def at(count: Count) -> Any:
        table = _line(float(lr), float(start_factor), slope, total)
        return from_table(table, jnp.minimum(count, total), lr * factor(count))

    return scaled(name, lr, factor, ratio, start_factor, at)


@functools.lru_cache(64)
def _line(lr: float, start_factor: float, slope: float, total: int) -> tuple[float, ...]:
    """linear_lr's rates for counts 0, 1, 2, ..., each from the one before, as PyTorch's.

    Each step of a line is rounded alike, which adds up.
    """
    rates = [lr * start_factor]
    for count in range(1, min(total + 1, TABLE)):
        rates.append(rates[-1] * (1.0 + slope / (total * start_factor + (count - 1) * slope)))
    return tuple(rates)


def polynomial_lr(
    lr: float, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1
) -> Schedule:
    """The rate times (1 - count / total_iters)**power, 0 after that.

    `optax.polynomial_schedule` has a float32 fraction whatever x64 says: with power
    1/2 it may end above 0, or be NaN from there on.

    Args:
        lr: The optimizer's learning rate, 0 or more.
        total_iters: The count at which the rate is 0, a whole number, 1 or more.
        power: The exponent, 0 or more.
        last_epoch: -1 only: the optimizer's state keeps the count.

    Returns:
        A `Schedule`: the rate, () float, after so many updates, () int.

    Raises:
        InputError: For a power below 0 or total_iters 0: PyTorch divides by 0 then.

    Example:
        >>> from twinstep.jax.optim.lr_scheduler import polynomial_lr
        >>> # PyTorch: PolynomialLR(optimizer, total_iters=5, power=2.0)
        >>> schedule = polynomial_lr(0.1, total_iters=5, power=2.0)
        >>> [round(float(schedule(count)), 4) for count in range(7)]
        [0.1, 0.064, 0.036, 0.016, 0.004, 0.0, 0.0]

    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.PolynomialLR.html
    """
    name = "polynomial_lr"
    check_arguments(
        name,
        lr=rate(lr),
        total_iters=whole(total_iters, 1),
        power=number(power, "a number, 0 or more", lambda v: v >= 0),
        last_epoch=from_the_start(last_epoch),
    )
    total = int(total_iters)

    def ratio(count: Count) -> Any:
        base = remaining(count, total) / remaining(count - 1, total)
        return jnp.where(count > total, 1.0, base**power)

    def factor(count: Count) -> Any:
        return remaining(jnp.minimum(count, total), total) ** power

    def at(count: Count) -> Any:
        table = _curve(float(lr), float(power), total)
        return from_table(table, jnp.minimum(count, total), lr * factor(count))

    return scaled(name, lr, factor, ratio, at=at)


@functools.lru_cache(64)
def _curve(lr: float, power: float, total: int) -> tuple[float, ...]:
    """polynomial_lr's rates for counts 0, 1, 2, ..., each from the one before, as PyTorch's."""
    rates = [lr]
    for count in range(1, min(total + 1, TABLE)):
        base = (1.0 - count / total) / (1.0 - (count - 1) / total)
        rates.append(rates[-1] * base**power)
    return tuple(rates)
