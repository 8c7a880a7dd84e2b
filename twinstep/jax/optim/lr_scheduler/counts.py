"""The count that a schedule is asked with, and the functions of it that a schedule is given.

A count of optax's is an int32, whose quotients are float32 whatever x64 says: here it becomes the
widest integer. A fraction of a step is a count only where PyTorch has a rate for it.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError

Count = Any
"""Calls of PyTorch's scheduler.step() so far, an int of any shape."""

_NOT_KNOWN = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


def whole_count(count: Any) -> jax.Array:
    """A count in the widest integer, whose quotients are of the widest float."""
    return jnp.asarray(count, int)


def clock(name: str, count: Any, fractions: bool = False) -> jax.Array:
    """A count in the widest integer; a float in the widest float where fractions are taken.

    name: whose count it is. A number is judged by its value, an array by its dtype: a compiled step
    knows no more of it.
    """
    if not jnp.issubdtype(jnp.result_type(count), jnp.floating):
        return whole_count(count)
    if fractions:
        return jnp.asarray(count, float)
    reason = "PyTorch has no rate here for a fraction of a step"
    if not isinstance(count, (float, np.floating)):
        raise InputError(
            f"{name}: count is an array of {count.dtype}, expected integers: {reason} "
            "(count // n is whole, count / n is not)"
        )
    if not float(count).is_integer():
        raise InputError(f"{name}: count is {count!r}, expected a whole number: {reason}")
    return whole_count(count)


def called(name: str, argument: str, given: Callable[[Any], Any], count: Count) -> jax.Array:
    """What a schedule's own function makes of a count.

    name, argument: of the schedule, and of the function among its arguments
    """
    try:
        return jnp.asarray(given(count), float)
    except _NOT_KNOWN as error:
        raise InputError(
            f"{name}: {argument} asks for the count's value, which a compiled step does not know, "
            f"expected jnp.where in the place of `if`, or {name}(...).tabulate(steps), which calls "
            f"{argument} beforehand"
        ) from error


def table_of(
    given: Callable[[int], Any], steps: int, needed_from: int = 0
) -> Callable[[Any], jax.Array]:
    """A function's values for counts below `steps`, as PyTorch asks for them; else NaN.

    needed_from: counts before it are hardly ever asked for, so that they may be an error
    """

    def value(count: int) -> float:
        try:
            return float(given(count))
        except (ArithmeticError, LookupError):
            if count >= needed_from:
                raise
            return math.nan

    values = [value(count) for count in range(steps)]

    def look_up(count: Any) -> jax.Array:
        # a new array each time: JAX remembers one NumPy array's conversion, whatever x64 says since
        table = jnp.asarray(np.array(values, jnp.result_type(float)))
        return table.at[count].get(mode="fill", fill_value=math.nan)

    return look_up
