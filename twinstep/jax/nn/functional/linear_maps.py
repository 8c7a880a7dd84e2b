"""torch.nn.functional's linear and bilinear maps."""

import jax
import jax.numpy as jnp

from twinstep.errors import InputError
from twinstep.jax.nn.functional.taking_in import value_of

__all__ = ["bilinear", "linear"]


def linear(input: jax.Array, weight: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """x W^T + b; flax.nnx.Linear's kernel is W^T.

    Args:
        input: (..., I).
        weight: (O, I); or (I,), which gives (...).
        bias: (O,), or what the result's shape is repeated from; None with a weight of (I,).

    Returns:
        The products, (..., O).

    Raises:
        InputError: For shapes that do not fit, two dtypes.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import linear
        >>> linear(jnp.array([1.0, 2.0]), jnp.array([[1.0, 1.0], [0.0, 1.0]]), jnp.ones(2)).tolist()
        [4.0, 3.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.linear.html
    """
    x, w, b = value_of(input), value_of(weight), value_of(bias)
    _check_dtypes("linear", input=x, weight=w, bias=b)
    if not x.ndim or w.ndim not in (1, 2) or w.shape[-1] != x.shape[-1]:
        raise InputError(
            f"linear: input is of shape {x.shape} and weight of {w.shape}, expected (..., I) and "
            "(O, I) or (I,)"
        )
    y = jnp.matmul(x, w.T)
    if b is None:
        return jnp.asarray(y)
    rest = y.shape[y.ndim - b.ndim :]
    fits = b.ndim <= y.ndim and all(n in (1, m) for n, m in zip(b.shape, rest, strict=True))
    if w.ndim == 1 or not fits:
        raise InputError(
            f"linear: bias is of shape {b.shape} and weight of {w.shape}, expected (O,) and (O, I)"
        )
    return jnp.asarray(y + b)


def bilinear(
    input1: jax.Array, input2: jax.Array, weight: jax.Array, bias: jax.Array | None = None
) -> jax.Array:
    """x W_o y + b_o for each output o.

    Args:
        input1: x, (..., I).
        input2: y, (..., J), the same axes before the last.
        weight: (O, I, J).
        bias: (O,).

    Returns:
        The products, (..., O).

    Raises:
        InputError: For shapes that do not fit, two dtypes.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import bilinear
        >>> bilinear(jnp.array([1.0, 2.0]), jnp.array([3.0]), jnp.ones((1, 2, 1))).tolist()
        [9.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.bilinear.html
    """
    x, y, w, b = (value_of(array) for array in (input1, input2, weight, bias))
    _check_dtypes("bilinear", input1=x, input2=y, weight=w, bias=b)
    if (
        not (x.ndim and y.ndim)
        or x.shape[:-1] != y.shape[:-1]
        or w.shape[1:] != (x.shape[-1], y.shape[-1])
        or (b is not None and b.shape != w.shape[:1])
    ):
        shapes = [None if array is None else array.shape for array in (x, y, w, b)]
        raise InputError(
            f"bilinear: input1, input2, weight, bias are of shapes {shapes}, expected (..., I), "
            "(..., J), (O, I, J), (O,)"
        )
    product = jnp.einsum("...i,oij,...j->...o", x, w, y)
    return product if b is None else product + b


def _check_dtypes(name: str, **arrays: jax.Array | None) -> None:
    (first, array), *others = arrays.items()
    for argument, other in others:
        if array is not None and other is not None and other.dtype != array.dtype:
            raise InputError(
                f"{name}: {argument} is {other.dtype}, expected {array.dtype}, as {first} is"
            )
