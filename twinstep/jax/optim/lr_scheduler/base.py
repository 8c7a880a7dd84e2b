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

from twinstep.errors import Check, check_arguments
from twinstep.jax.optim.lr_scheduler.counts import Count, clock, whole_count

Rate = Any
"""A learning rate, ()."""

TABLE = 2**14
"""Counts over which a table holds what PyTorch's recursion makes of its rounding."""

_NEVER = -(2.0**100)  # below all that is computed here, which XLA does not know


@dataclass(frozen=True, eq=False)
class Schedule:
    """A function of the updates made so far, int: the learning rate of the next one, float.

    It is an optax schedule, made by the functions beside it: give it to an optimizer as its `lr`.
    It counts the updates that were made, so that it waits where `optax.apply_if_finite` skips one;
    `own_clock` goes on. Where PyTorch's `scheduler.step()` comes once an epoch, see `every`.

    Args:
        name: Of the function that made it.
        lr: The learning rate of the optimizer, which that was given.
        at: The rate after so many steps: int -> float, of any shape.
        step: (rate, count) -> the rate that PyTorch's step number `count`, from 1, leaves of the
            rate before it.
        first: What PyTorch's construction leaves of a rate.
        restart: What sequential_lr leaves of a rate as it turns to this schedule. None means that
            it cannot.
        initial: The rate that PyTorch's optimizer keeps as its initial one.
        factor: `at` is lr * factor, where there is nothing else to it.
        fraction: What PyTorch's `step(epoch)` gives for a fraction of an epoch: float -> float.
            None where that hangs on the steps before, or is an error.
        momentum: As `at`, for the momentum or Adam's first beta, where it moves that too:
            `sgd(lr=s, momentum=s.momentum)`, `adam(lr=s, betas=(s.momentum, 0.999))`.
        reentered: What construction inside of so many sequential_lr makes of it. None means itself.
        on_host: The same with tables of so many values in the place of functions that it was given.
            None where it was given none.
        updates: Updates to one step of its own, see `every`.
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
    fraction: Callable[[Any], Rate] | None = None
    momentum: Callable[[Count], Any] | None = None
    reentered: Callable[[int], "Schedule"] | None = None
    on_host: Callable[[int], "Schedule"] | None = None
    updates: int = 1
    parts: tuple["Schedule", ...] = ()

    def __call__(self, count: Count) -> jax.Array:
        """The learning rate of the update after `count` others.

        Args:
            count: Updates made so far, an int of any shape; where PyTorch's `step(epoch)` takes a
                fraction, as `cosine_annealing_warm_restarts` does, a float too.

        Returns:
            The rate, of the count's shape, of the widest float that is enabled.

        Raises:
            InputError: For a fraction, or an array of floats, where PyTorch has no rate for it.

        Example:
            >>> from twinstep.jax.optim.lr_scheduler import exponential_lr
            >>> round(float(exponential_lr(0.1, gamma=0.5)(2)), 4)
            0.025
        """
        now = clock(self.name, count, fractions=self.fraction is not None)
        at = self.at if jnp.issubdtype(now.dtype, jnp.integer) else self.fraction
        assert at is not None
        rate = jnp.asarray(at(now), float)
        return jnp.broadcast_to(rate, jnp.broadcast_shapes(rate.shape, now.shape))

    def every(self, updates: int) -> "Schedule":
        """The same on a slower clock: one step of PyTorch's scheduler every so many updates.

        So two clocks are one schedule. PyTorch's loop that calls `warmup.step()` after each batch
        and `decay.step()` after each epoch has the rates of
        `chained_scheduler([warmup, decay.every(batches)])`, the two in the order of their calls.

        Args:
            updates: Updates to a step, such as those of an epoch, an int, 1 or more.

        Returns:
            A `Schedule` of the updates made.

        Raises:
            InputError: For what is no int above 0.

        Example:
            >>> from twinstep.jax.optim.lr_scheduler import step_lr
            >>> schedule = step_lr(0.1, step_size=1, gamma=0.5).every(3)
            >>> [round(float(schedule(count)), 4) for count in range(7)]
            [0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025]
        """
        check_arguments(f"{self.name}.every", updates=whole(updates, 1, strict=True))
        factor, momentum, on_host = self.factor, self.momentum, self.on_host
        return replace(
            self,
            at=lambda count: self.at(count // updates),
            step=lambda rate, count: jnp.where(
                count % updates == 0, self.step(rate, count // updates), rate
            ),
            restart=None,
            factor=factor and (lambda count: factor(count // updates)),
            fraction=None,
            momentum=momentum and (lambda count: momentum(clock(self.name, count) // updates)),
            reentered=None,
            on_host=on_host and (lambda steps: on_host(-(-steps // updates)).every(updates)),
            updates=self.updates * int(updates),
        )

    def tabulate(self, steps: int) -> "Schedule":
        """The same from a table of the first `steps` rates; NaN after them.

        For those that have no closed form and take the longer, the further they have come. Each
        rate of the table is made of the one before. And for functions that no compiled step can
        call, such as those with an `if` on the count: `lr_lambda` and `scale_fn` are called here
        with Python's ints, as PyTorch calls them.

        Args:
            steps: How many rates, an int, 1 or more.

        Returns:
            A schedule that looks its rates up.

        Raises:
            InputError: For what is no int above 0.

        Example:
            >>> from twinstep.jax.optim.lr_scheduler import multiplicative_lr
            >>> halved_twice = lambda count: 0.5 if count < 3 else 1.0
            >>> schedule = multiplicative_lr(0.1, halved_twice).tabulate(4)
            >>> [round(float(schedule(count)), 4) for count in range(5)]
            [0.1, 0.05, 0.025, 0.025, nan]
        """
        check_arguments(f"{self.name}.tabulate", steps=whole(steps, 1, strict=True))
        known = self.on_host(int(steps)) if self.on_host else self

        def body(rate: Rate, count: Count) -> tuple[Rate, Rate]:
            return jnp.asarray(known.step(rate, count + 1), float), rate

        start = jnp.asarray(known.first(self.lr), float)
        _, table = jax.lax.scan(body, start, jnp.arange(steps, dtype=int))
        return replace(
            known,
            at=lambda count: table.at[count].get(mode="fill", fill_value=math.nan),
            fraction=None,
        )


def absolute(name: str, lr: float, at: Callable[[Count], Rate], **fields: Any) -> Schedule:
    """A schedule that asks nothing of the rate before."""
    return Schedule(
        name=name,
        lr=lr,
        at=at,
        step=lambda rate, count: at(count),
        first=lambda rate: at(whole_count(0)),
        restart=lambda rate: at(whole_count(0)),
        **{"initial": lr, "fraction": at, **fields},
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
        fraction=lambda count: lr * factor(count),
    )


def recursion(
    start: Callable[[], Rate], step: Callable[[Rate, Count], Rate]
) -> Callable[[Count], Rate]:
    """The rate by as many steps as were made: a loop of the longest length in each call."""

    def at(count: Count) -> Rate:
        def body(t: Count, rate: Rate) -> Rate:
            return jnp.where(t <= count, jnp.asarray(step(rate, t), float), rate)

        rates = jnp.broadcast_to(jnp.asarray(start(), float), count.shape)
        return jax.lax.fori_loop(whole_count(1), jnp.max(count, initial=0) + 1, body, rates)

    return at


# ------------------------------------------------------------------------------------- arithmetic


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
