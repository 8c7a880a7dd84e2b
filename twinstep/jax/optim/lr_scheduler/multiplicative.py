"""The schedulers that multiply by a factor: a function's value, or one of so many counts."""

from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp

from twinstep.errors import check_arguments
from twinstep.jax.optim.lr_scheduler.base import (
    Rate,
    Schedule,
    absolute,
    from_the_start,
    function,
    number,
    power,
    rate,
    recursion,
    scaled,
    whole,
)
from twinstep.jax.optim.lr_scheduler.counts import Count, called, table_of, whole_count


def lambda_lr(lr: float, lr_lambda: Callable[[Any], Any], last_epoch: int = -1) -> Schedule:
    """The initial rate times a function's value.

    Any function of the count is an optax schedule, but the count is an int32 there, whose quotients
    are float32 whatever x64 says; here the function is given the widest integer.

    Args:
        lr: The optimizer's learning rate, 0 or more.
        lr_lambda: Count -> factor. The count is a traced integer: `jnp.where` in the place of `if`,
            or `tabulate`, which calls it with Python's ints beforehand.
        last_epoch: -1 only: the optimizer's state keeps the count.

    Returns:
        A `Schedule`: the rate, () float, after so many updates, () int.

    Raises:
        InputError: For a list of functions: each group has a schedule of its own. For a rate below
            0, and a `last_epoch` that resumes.

    Example:
        >>> from twinstep.jax.optim.lr_scheduler import lambda_lr
        >>> # PyTorch: LambdaLR(optimizer, lambda count: 1 / (1 + count))
        >>> schedule = lambda_lr(0.1, lambda count: 1 / (1 + count))
        >>> [round(float(schedule(count)), 4) for count in range(4)]
        [0.1, 0.05, 0.0333, 0.025]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.LambdaLR.html
    """
    name = "lambda_lr"
    check_arguments(
        name, lr=rate(lr), lr_lambda=function(lr_lambda), last_epoch=from_the_start(last_epoch)
    )
    return absolute(
        name,
        lr,
        lambda count: lr * called(name, "lr_lambda", lr_lambda, count),
        on_host=lambda steps: lambda_lr(lr, table_of(lr_lambda, steps)),
    )


def multiplicative_lr(lr: float, lr_lambda: Callable[[Any], Any], last_epoch: int = -1) -> Schedule:
    """The rate before times a function's value, from count 1 on.

    A product has no closed form: each call makes it anew; `tabulate` makes it once. optax has
    constant factors only.

    Args:
        lr: The optimizer's learning rate, 0 or more.
        lr_lambda: Count -> factor. The count is a traced integer: `jnp.where` in the place of `if`,
            or `tabulate`, which calls it with Python's ints beforehand.
        last_epoch: -1 only: the optimizer's state keeps the count.

    Returns:
        A `Schedule`: the rate, () float, after so many updates, () int.

    Raises:
        InputError: For a list of functions: each group has a schedule of its own. For a rate below
            0, and a `last_epoch` that resumes.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim.lr_scheduler import multiplicative_lr
        >>> # PyTorch: MultiplicativeLR(optimizer, lambda count: 0.5 if count < 3 else 1.0)
        >>> schedule = multiplicative_lr(0.1, lambda count: jnp.where(count < 3, 0.5, 1.0))
        >>> [round(float(schedule(count)), 4) for count in range(5)]
        [0.1, 0.05, 0.025, 0.025, 0.025]

    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.MultiplicativeLR.html
    """
    name = "multiplicative_lr"
    check_arguments(
        name, lr=rate(lr), lr_lambda=function(lr_lambda), last_epoch=from_the_start(last_epoch)
    )

    def step(before: Rate, count: Count) -> Rate:
        return before * called(name, "lr_lambda", lr_lambda, count)

    return Schedule(
        name=name,
        lr=lr,
        at=recursion(lambda: lr, step),
        step=step,
        first=lambda before: before,
        # without a closed form of its own PyTorch takes a step, from where the one before ended
        restart=lambda before: step(before, whole_count(0)),
        initial=lr,
        on_host=lambda steps: multiplicative_lr(lr, table_of(lr_lambda, steps, needed_from=1)),
    )


def step_lr(lr: float, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> Schedule:
    """gamma times the rate, every step_size counts.

    The nearest, `optax.exponential_decay(staircase=True)`, has a float32 power whatever x64 says.

    Args:
        lr: The optimizer's learning rate, 0 or more.
        step_size: Counts between two drops, a whole number, 1 or more.
        gamma: The factor of a drop.
        last_epoch: -1 only: the optimizer's state keeps the count.

    Returns:
        A `Schedule`: the rate, () float, after so many updates, () int.

    Raises:
        InputError: For a value that PyTorch cannot compute with.

    Example:
        >>> from twinstep.jax.optim.lr_scheduler import step_lr
        >>> # PyTorch: StepLR(optimizer, step_size=2, gamma=0.5)
        >>> schedule = step_lr(0.1, step_size=2, gamma=0.5)
        >>> [round(float(schedule(count)), 4) for count in range(5)]
        [0.1, 0.1, 0.05, 0.05, 0.025]

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

    `optax.piecewise_constant_schedule` has the same rates, and each milestone once.

    Args:
        lr: The optimizer's learning rate, 0 or more.
        milestones: Counts at which the rate drops, whole numbers, 0 or more, in any order.
        gamma: The factor of a drop.
        last_epoch: -1 only: the optimizer's state keeps the count.

    Returns:
        A `Schedule`: the rate, () float, after so many updates, () int.

    Raises:
        InputError: For a milestone that is no count, and other values that are no numbers.

    Example:
        >>> from twinstep.jax.optim.lr_scheduler import multi_step_lr
        >>> # PyTorch: MultiStepLR(optimizer, milestones=[1, 3], gamma=0.5)
        >>> schedule = multi_step_lr(0.1, milestones=[1, 3], gamma=0.5)
        >>> [round(float(schedule(count)), 4) for count in range(5)]
        [0.1, 0.05, 0.05, 0.025, 0.025]

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

    In optax, `piecewise_constant_schedule(lr * factor, {total_iters: 1 / factor})`.

    Args:
        lr: The optimizer's learning rate, 0 or more.
        factor: What multiplies the rate at first, above 0 and up to 1.
        total_iters: The count at which that ends, a whole number, 1 or more.
        last_epoch: -1 only: the optimizer's state keeps the count.

    Returns:
        A `Schedule`: the rate, () float, after so many updates, () int.

    Raises:
        InputError: For a factor that is not above 0 and up to 1: PyTorch divides by it; and for
            total_iters 0, after which PyTorch's rate would stay at the factor for good.

    Example:
        >>> from twinstep.jax.optim.lr_scheduler import constant_lr
        >>> # PyTorch: ConstantLR(optimizer, factor=0.5, total_iters=2)
        >>> schedule = constant_lr(0.1, factor=0.5, total_iters=2)
        >>> [round(float(schedule(count)), 4) for count in range(4)]
        [0.05, 0.05, 0.1, 0.1]

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


def exponential_lr(lr: float, gamma: float, last_epoch: int = -1) -> Schedule:
    """gamma times the rate, every count.

    The power of `optax.exponential_decay` is float32 whatever x64 says.

    Args:
        lr: The optimizer's learning rate, 0 or more.
        gamma: The factor of each count.
        last_epoch: -1 only: the optimizer's state keeps the count.

    Returns:
        A `Schedule`: the rate, () float, after so many updates, () int.

    Raises:
        InputError: For a value that is no number, and a rate below 0.

    Example:
        >>> from twinstep.jax.optim.lr_scheduler import exponential_lr
        >>> # PyTorch: ExponentialLR(optimizer, gamma=0.5)
        >>> schedule = exponential_lr(0.1, gamma=0.5)
        >>> [round(float(schedule(count)), 4) for count in range(4)]
        [0.1, 0.05, 0.025, 0.0125]

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
