"""What the schedules have in common: rates, refused values, careful arithmetic.

PyTorch changes a rate step by step, on the host, in float64. Here a closed form gives the rate of
any update at once, and rounds as PyTorch does wherever that shows; in float32 it is computed from
integers instead, so that what is lost is float32's last bits only. Where each step's rounding adds
to the one before, a table made step by step holds the first counts.
"""

import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import Check

Rate = Any
"""A learning rate, ()."""
Count = Any
"""Calls of PyTorch's scheduler.step() so far, () int."""

TABLE = 2**14
"""Counts over which a table holds what PyTorch's recursion makes of its rounding."""

_NEVER = -(2.0**100)  # below all that is computed here, which XLA does not know


@dataclass(frozen=True, eq=False)
class Schedule:
    """A function of the updates made so far, () int: the learning rate of the next one, () float.

    It is an optax schedule, made by the functions beside it: give it to an optimizer as its `lr`.
    It counts updates; where PyTorch's `scheduler.step()` comes once an epoch, give the optimizer
    `lambda count: schedule(count // updates_per_epoch)`.

    Args:
        name: Of the function that made it.
        lr: The learning rate of the optimizer, which that was given.
        at: The rate after so many steps: () int -> () float.
        step: (rate, count) -> the rate that PyTorch's step number `count`, from 1, leaves of the
            rate before it.
        first: What PyTorch's construction leaves of a rate.
        restart: What sequential_lr leaves of a rate as it turns to this schedule. None means that
            it cannot.
        initial: The rate that PyTorch's optimizer keeps as its initial one.
        factor: `at` is lr * factor, where there is nothing else to it.
        momentum: As `at`, for the momentum or Adam's first beta, where it moves that too:
            `sgd(lr=s, momentum=s.momentum)`, `adam(lr=s, betas=(s.momentum, 0.999))`.
        reentered: What construction inside of so many sequential_lr makes of it. None means itself.
        parts: The schedules that it combines.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import sgd
        >>> from twinstep.jax.optim.lr_scheduler import step_lr
        >>> optimizer = sgd(lr=step_lr(0.1, step_size=1, gamma=0.5))
        >>> params = jnp.zeros(())
        >>> state = optimizer.init(params)
        >>> for _ in range(3):
        ...     update, state = optimizer.update(jnp.ones(()), state, params)
        ...     print(round(float(update), 4))
        -0.1
        -0.05
        -0.025

    Source: https://docs.pytorch.org/docs/stable/optim.html#how-to-adjust-learning-rate
    """

    name: str
    lr: float
    at: Callable[[Count], Rate]
    step: Callable[[Rate, Count], Rate]
    first: Callable[[Rate], Rate]
    restart: Callable[[Rate], Rate] | None
    initial: float
    factor: Callable[[Count], Rate] | None = None
    momentum: Callable[[Count], Any] | None = None
    reentered: Callable[[int], "Schedule"] | None = None
    parts: tuple["Schedule", ...] = ()

    def __call__(self, count: Count) -> jax.Array:
        """The learning rate of the update after `count` others.

        Args:
            count: Updates made so far, () int.

        Returns:
            The rate, () float, of the widest type that is enabled.

        Example:
            >>> from twinstep.jax.optim.lr_scheduler import exponential_lr
            >>> round(float(exponential_lr(0.1, gamma=0.5)(2)), 4)
            0.025
        """
        return jnp.asarray(self.at(whole_count(count)), float)

    def tabulate(self, steps: int) -> "Schedule":
        """The same from a table of the first `steps` rates; NaN after them.

        For those that have no closed form and take the longer, the further they have come. Each
        rate of the table is made of the one before.

        Args:
            steps: How many rates, an int.

        Returns:
            A schedule that looks its rates up.

        Example:
            >>> from twinstep.jax.optim.lr_scheduler import multiplicative_lr
            >>> schedule = multiplicative_lr(0.1, lambda count: 0.5).tabulate(3)
            >>> [round(float(schedule(count)), 4) for count in range(4)]
            [0.1, 0.05, 0.025, nan]
        """

        def body(rate: Rate, count: Count) -> tuple[Rate, Rate]:
            return jnp.asarray(self.step(rate, count + 1), float), rate

        start = jnp.asarray(self.first(self.lr), float)
        _, table = jax.lax.scan(body, start, jnp.arange(steps, dtype=int))
        return replace(self, at=lambda count: table.at[count].get(mode="fill", fill_value=math.nan))


def absolute(name: str, lr: float, at: Callable[[Count], Rate], **fields: Any) -> Schedule:
    """A schedule that asks nothing of the rate before."""
    return Schedule(
        name=name,
        lr=lr,
        at=at,
        step=lambda rate, count: at(count),
        first=lambda rate: at(whole_count(0)),
        restart=lambda rate: at(whole_count(0)),
        **{"initial": lr, **fields},
    )


def scaled(
    name: str,
    lr: float,
    factor: Callable[[Count], Rate],
    ratio: Callable[[Count], Rate],
    first: float = 1.0,
    at: Callable[[Count], Rate] | None = None,
) -> Schedule:
    """A schedule that multiplies, by `first` at the start and then by ratio(1), ratio(2), ...

    factor: their product; at: the rate, where lr * factor is not near enough
    """
    return Schedule(
        name=name,
        lr=lr,
        at=at or (lambda count: lr * factor(count)),
        step=lambda rate, count: rate * ratio(count),
        first=lambda rate: rate * first,
        restart=lambda rate: lr * factor(whole_count(0)),
        initial=lr,
        factor=factor,
    )


def recursion(
    start: Callable[[], Rate], step: Callable[[Rate, Count], Rate]
) -> Callable[[Count], Rate]:
    """The rate by as many steps as were made: a loop of that length in each call."""

    def at(count: Count) -> Rate:
        def body(t: Count, rate: Rate) -> Rate:
            return jnp.asarray(step(rate, t), float)

        return jax.lax.fori_loop(whole_count(1), count + 1, body, jnp.asarray(start(), float))

    return at


# ------------------------------------------------------------------------------------- arithmetic


def whole_count(count: Any) -> jax.Array:
    """A count in the widest integer, whose quotients are of the widest float."""
    return jnp.asarray(count, int)


def wide() -> bool:
    """Whether rates are computed in float64, as PyTorch computes them."""
    return bool(jnp.result_type(float) == jnp.float64)


def quotient(numerator: Any, size: Any) -> jax.Array:
    """numerator / size, rounded once, as PyTorch rounds it.

    XLA multiplies by 1 / size where it knows the size: so it is not to know.
    """
    above: jax.Array = jnp.asarray(numerator, float)
    return above / jnp.where(above < _NEVER, 1.0, jnp.asarray(size, float))


def from_table(table: Sequence[float], count: Count, after: Any) -> Any:
    """The table's entry for a count, and `after` where the table has ended."""
    # a new array each time: JAX remembers one NumPy array's conversion, whatever x64 says since
    entries = jnp.asarray(np.array(table, jnp.result_type(float)))
    return jnp.where(count < len(table), entries[jnp.minimum(count, len(table) - 1)], after)


def rounded(product: jax.Array) -> jax.Array:
    """A product that is rounded before it is added to something: XLA would do both at once."""
    return jnp.where(product < _NEVER, 0.0, product)


def remaining(count: Count, size: int) -> jax.Array:
    """1 - count / size; in float32 without the difference of two near numbers."""
    return 1 - quotient(count, size) if wide() else quotient(size - count, size)


def power(base: float, exponent: Count) -> jax.Array:
    """base**exponent for a whole exponent, with the base's own digits in float32 too."""
    rounded = jnp.asarray(base, float)
    result: jax.Array = rounded ** exponent.astype(float)
    narrow = float(np.float32(base))
    if wide() or narrow in (0.0, base):
        return result
    return result * jnp.exp(math.log(base / narrow) * exponent)


# ------------------------------------------------------------------------------------ refusals


def number(
    value: Any, wanted: str = "a number", right: Callable[[Any], bool] = lambda v: True
) -> Check:
    """A finite number of which something more may hold."""
    if isinstance(value, (list, tuple)):
        return value, f"{wanted}: a list is for parameter groups, which have a schedule each", _no
    return value, wanted, lambda v: isinstance(v, numbers.Real) and math.isfinite(v) and right(v)


def rate(value: Any) -> Check:
    """A learning rate that PyTorch's optimizers take."""
    return number(value, "a number, 0 or more", lambda v: v >= 0)


def whole(value: Any, least: int, strict: bool = False) -> Check:
    """A whole number, `least` or more; strict: an int, as PyTorch itself insists."""
    expected = f"{'an int' if strict else 'a whole number'}, {least} or more"
    kinds = (int, np.integer) if strict else (int, float, np.integer, np.floating)
    return value, expected, lambda v: bool(isinstance(v, kinds) and int(v) == v and v >= least)


def function(value: Any) -> Check:
    """A function of the count."""
    if isinstance(value, (list, tuple)):
        return value, "a function: a list is for parameter groups, which have a schedule each", _no
    return value, "a function of the count", callable


def one_of(value: Any, *choices: str) -> Check:
    """One of several words."""
    return value, " or ".join(map(repr, choices)), lambda v: v in choices


def from_the_start(last_epoch: Any) -> Check:
    """PyTorch's last_epoch, which resumes a run: here the optimizer's state has its count."""
    return last_epoch, "-1: the optimizer's state keeps the count", lambda v: v == -1


def _no(value: Any) -> bool:
    return False
