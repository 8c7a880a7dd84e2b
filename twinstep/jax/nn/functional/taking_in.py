"""What the functions take in: whether arrays are PyTorch's kind, and Variables that are written."""

from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx

from twinstep.errors import InputError

_HALF = (jnp.bfloat16, jnp.float16)


def value_of(array: Any) -> Any:
    """An array, or what an nnx.Variable holds; None stays."""
    if array is None:
        return None
    return jnp.asarray(array[...] if isinstance(array, nnx.Variable) else array)


def floats(name: str, complex_too: bool = False, **arrays: Any) -> list[Any]:
    """Arrays of one floating dtype, as PyTorch computes with; None stays.

    Args:
        name: Whose arguments they are.
        complex_too: Whether complex numbers are fine.
        arrays: {argument: array, Variable or None}, the first of them an array.

    Returns:
        The arrays.

    Raises:
        InputError: For integers, bools, and dtypes that differ.
    """
    kind = jnp.inexact if complex_too else jnp.floating
    taken = {key: value_of(array) for key, array in arrays.items()}
    first, *_ = taken.values()
    for key, array in taken.items():
        if array is None:
            continue
        if not jnp.issubdtype(array.dtype, kind):
            raise InputError(f"{name}: {key} is {array.dtype}, expected floats, as PyTorch")
        if array.dtype != first.dtype:
            raise InputError(
                f"{name}: {key} is {array.dtype}, expected {first.dtype}, as {next(iter(taken))} is"
            )
    return list(taken.values())


def wide(x: jax.Array) -> jax.Array:
    """bfloat16 and float16 in float32, in which PyTorch computes; others as they are."""
    return x.astype(jnp.float32) if x.dtype in _HALF else x


def axis_of(name: str, dim: int, ndim: int, argument: str = "dim") -> int:
    """An axis from 0 on; a number has the axes 0 and -1, as in PyTorch."""
    axes = max(ndim, 1)
    if isinstance(dim, bool) or not isinstance(dim, int) or not -axes <= dim < axes:
        raise InputError(f"{name}: {argument} is {dim!r}, expected {-axes} to {axes - 1}")
    return dim % axes


def refuse_silent_loss(name: str, argument: str, array: Any) -> None:
    """An array cannot be written into: what PyTorch would leave in it would be lost."""
    if array is not None and not isinstance(array, nnx.Variable):
        raise InputError(
            f"{name}: {argument} is a {type(array).__name__}, expected an nnx.Variable: PyTorch "
            "writes into it, and an array cannot be written into"
        )


def wrote(variable: Any, value: jax.Array) -> None:
    """Writes into a Variable, as PyTorch does in place: in the dtype that it has."""
    cast(Any, variable)[...] = value.astype(variable[...].dtype)


@jax.custom_jvp
def with_slope(x: jax.Array, value: jax.Array, slope: jax.Array) -> jax.Array:
    """A value with a given derivative by x, which may be derived again.

    Args:
        x: What is derived by.
        value: The function's value.
        slope: Its derivative by x, of the same shape.

    Returns:
        The value.
    """
    return value


@with_slope.defjvp
def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (_x, value, slope), (x_dot, _, _) = primals, tangents
    return value, slope * x_dot
