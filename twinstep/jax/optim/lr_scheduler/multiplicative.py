"""The schedulers that multiply: by a function's value, at milestones, along a line or a power."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp

from twinstep.errors import check_arguments
from twinstep.jax.optim.lr_scheduler.base import (
    TABLE,
    Count,
    Rate,
    Schedule,
    absolute,
    from_table,
    from_the_start,
    function,
    number,
    power,
    quotient,
    rate,
    recursion,
    remaining,
    rounded,
    scaled,
    whole,
    whole_count,
    wide,
)


def lambda_lr(lr: float, lr_lambda: Callable[[Any], Any], last_epoch: int = -1) -> Schedule:
    """The initial rate times a function's value.

    lr_lambda: called with the count as a traced integer: `jnp.where` instead of `if`
    Raises InputError for a list of functions: each group has a schedule of its own.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.LambdaLR.html
    """
    name = "lambda_lr"
    check_arguments(
        name, lr=rate(lr), lr_lambda=function(lr_lambda), last_epoch=from_the_start(last_epoch)
    )
    return absolute(name, lr, lambda count: lr * jnp.asarray(lr_lambda(count), float))


def multiplicative_lr(lr: float, lr_lambda: Callable[[Any], Any], last_epoch: int = -1) -> Schedule:
    """The rate before times a function's value, from count 1 on.

    A product has no closed form: each call makes it anew; `tabulate` makes it once.
    lr_lambda: called with the count as a traced integer: `jnp.where` instead of `if`
    Raises InputError for a list of functions: each group has a schedule of its own.
    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.MultiplicativeLR.html
    """
    name = "multiplicative_lr"
    check_arguments(
        name, lr=rate(lr), lr_lambda=function(lr_lambda), last_epoch=from_the_start(last_epoch)
    )

    def step(before: Rate, count: Count) -> Rate:
        return before * jnp.asarray(lr_lambda(count), float)

    return Schedule(
        name=name,
        lr=lr,
        at=recursion(lambda: lr, step),
        step=step,
        first=lambda before: before,
        # without a closed form of its own PyTorch takes a step, from where the one before ended
        restart=lambda before: step(before, whole_count(0)),
        initial=lr,
    )


def step_lr(lr: float, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> Schedule:
    """gamma times the rate, every step_size counts.

    Raises InputError for a value that PyTorch cannot compute with.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.StepLR.html
    """
    name = "step_lr"
    check_arguments(
        name,
        lr=rate(lr),
        step_size=whole(step_size, 1),
        gamma=number(gamma),
        last_epoch=from_the_start(last_epoch),
    )
    size = int(step_size)
    return scaled(
        name,
        lr,
        factor=lambda count: power(gamma, count // size),
        ratio=lambda count: jnp.where((count > 0) & (count % size == 0), gamma, 1.0),
    )


def multi_step_lr(
    lr: float, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1
) -> Schedule:
    """gamma times the rate at each milestone; a milestone may be there more than once.

    Raises InputError for a milestone that is no count.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.MultiStepLR.html
    """
    name = "multi_step_lr"
    given = list(milestones)
    check_arguments(
        name,
        lr=rate(lr),
        gamma=number(gamma),
        last_epoch=from_the_start(last_epoch),
        **{f"milestones[{i}]": whole(milestone, 0) for i, milestone in enumerate(given)},
    )
    marks = [int(milestone) for milestone in given]

    def passed(count: Count) -> Any:
        return sum((count >= mark for mark in marks), start=jnp.zeros((), int))

    def here(count: Count) -> Any:
        return sum((count == mark for mark in marks), start=jnp.zeros((), int))

    return scaled(
        name,
        lr,
        factor=lambda count: power(gamma, passed(count)),
        ratio=lambda count: power(gamma, here(count)),
        first=gamma ** marks.count(0),
    )


def constant_lr(
    lr: float, factor: float = 1.0 / 3, total_iters: int = 5, last_epoch: int = -1
) -> Schedule:
    """factor times the rate until total_iters, then the rate itself.

    Raises InputError for a factor that is not above 0 and up to 1: PyTorch divides by it; and for
    total_iters 0, after which PyTorch's rate would stay at the factor for good.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.ConstantLR.html
    """
    name = "constant_lr"
    check_arguments(
        name,
        lr=rate(lr),
        factor=number(factor, "above 0 and up to 1", lambda v: 0 < v <= 1),
        total_iters=whole(total_iters, 1),
        last_epoch=from_the_start(last_epoch),
    )

    def ratio(count: Count) -> Any:
        after = jnp.where(count == total_iters, 1 / factor, 1.0)
        return jnp.where(count == 0, factor, after)

    return scaled(
        name,
        lr,
        factor=lambda count: jnp.where(count >= total_iters, 1.0, factor),
        ratio=ratio,
        first=factor,
    )


def linear_lr(
    lr: float,
    start_factor: float = 1.0 / 3,
    end_factor: float = 1.0,
    total_iters: int = 5,
    last_epoch: int = -1,
) -> Schedule:
    """The rate times what goes from start_factor to end_factor in a line, by total_iters.

    Raises InputError for a factor that PyTorch refuses; and for total_iters 0, after which
    PyTorch's rate would stay at the start for good.
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


def exponential_lr(lr: float, gamma: float, last_epoch: int = -1) -> Schedule:
    """gamma times the rate, every count.

    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.ExponentialLR.html
    """
    name = "exponential_lr"
    check_arguments(name, lr=rate(lr), gamma=number(gamma), last_epoch=from_the_start(last_epoch))
    return scaled(
        name,
        lr,
        factor=lambda count: power(gamma, count),
        ratio=lambda count: jnp.asarray(gamma, float),
    )


def polynomial_lr(
    lr: float, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1
) -> Schedule:
    """The rate times (1 - count / total_iters)**power, 0 after that.

    Raises InputError for a power below 0 or total_iters 0: PyTorch divides by 0 then.
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
