"""torch.nn.functional's softmax, its logarithm and softmin."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp

from twinstep.errors import InputError
from twinstep.jax.nn.functional.taking_in import axis_of, floats, value_of, wide

__all__ = ["log_softmax", "softmax", "softmin"]


def softmax(
    input: jax.Array, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> jax.Array:
    """exp(x) divided by its sum along an axis; NaN where all are -inf, or one is inf.

    jax.nn.softmax takes the last axis where none is given. PyTorch takes, and warns, the first of
    0, 1 or 3 axes, else the second.

    Args:
        input: Floats, of any shape; any numbers with a dtype.
        dim: Along which axis.
        _stacklevel: Of the warning that no axis was given.
        dtype: Into which the input is cast first, a floating one of jax.numpy's.

    Returns:
        An array of the input's shape.

    Raises:
        InputError: For an axis that there is not, no floats.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import softmax
        >>> softmax(jnp.array([[0.0, 0.0], [0.0, -jnp.inf]]), dim=1).tolist()
        [[0.5, 0.5], [1.0, 0.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.softmax.html
    """
    return _along("softmax", jax.nn.softmax, input, dim, _stacklevel, dtype)


def log_softmax(
    input: jax.Array, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> jax.Array:
    """The logarithm of the softmax along an axis, see `softmax`.

    Args:
        input: Floats, of any shape; any numbers with a dtype.
        dim: Along which axis.
        _stacklevel: Of the warning that no axis was given.
        dtype: Into which the input is cast first, a floating one of jax.numpy's.

    Returns:
        An array of the input's shape.

    Raises:
        InputError: For an axis that there is not, no floats.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import log_softmax
        >>> log_softmax(jnp.array([0.0, -jnp.inf]), dim=0).tolist()
        [0.0, -inf]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.log_softmax.html
    """
    return _along("log_softmax", jax.nn.log_softmax, input, dim, _stacklevel, dtype)


def softmin(
    input: jax.Array, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> jax.Array:
    """The softmax of -x along an axis, see `softmax`.

    Args:
        input: Floats, of any shape; any numbers but bools with a dtype.
        dim: Along which axis.
        _stacklevel: Of the warning that no axis was given.
        dtype: Into which -x is cast first, a floating one of jax.numpy's.

    Returns:
        An array of the input's shape.

    Raises:
        InputError: For an axis that there is not, bools, no floats.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import softmin
        >>> softmin(jnp.array([0.0, jnp.inf]), dim=0).tolist()
        [1.0, 0.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.softmin.html
    """
    x = value_of(input)
    if x.dtype == bool:
        raise InputError("softmin: input is bool, expected numbers, as PyTorch")
    return _along("softmin", jax.nn.softmax, -x, dim, _stacklevel, dtype)


def _along(
    name: str, function: Any, input: Any, dim: int | None, stacklevel: int, dtype: Any
) -> jax.Array:
    x = value_of(input)
    if dtype is not None:
        x = x.astype(dtype)
    (x,) = floats(name, input=x)
    if dim is None:
        warnings.warn(
            f"Implicit dimension choice for {name} has been deprecated. Change the call to include "
            "dim=X as an argument.",
            stacklevel=stacklevel,
        )
        dim = 0 if x.ndim in (0, 1, 3) else 1
    axis = axis_of(name, dim, x.ndim)
    if not x.size:
        return jnp.asarray(x)
    found = function(wide(x).reshape(x.shape or (1,)), axis=axis)
    return jnp.asarray(found.reshape(x.shape).astype(x.dtype))
