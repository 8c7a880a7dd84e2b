"""torch.nn.functional's max unpools: entries put back where a max pool found them."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError
from twinstep.jax.nn.functional.windows import Sizes, per_axis, with_batch

__all__ = ["max_unpool1d", "max_unpool2d", "max_unpool3d"]


def max_unpool1d(
    input: jax.Array,
    indices: jax.Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> jax.Array:
    """What a max pool took, back at its places, and 0 elsewhere.

    Args:
        input: (N, C, L) or (C, L).
        indices: The places that `max_pool1d` gave, int, input's shape; of equal ones the last
            counts, and the gradient goes to all of them.
        kernel_size, stride, padding: Of that pool.
        output_size: The size, with or without N and C; None: the least that was pooled.

    Returns:
        (N, C, ...) or (C, ...); NaN where a compiled function is given a place that is none.

    Raises:
        InputError: For shapes and numbers that PyTorch refuses, and a place that is none.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import max_pool1d_with_indices, max_unpool1d
        >>> x = jnp.arange(2.0).reshape(1, 2)
        >>> max_unpool1d(*max_pool1d_with_indices(x, 2), 2).ravel().tolist()
        [0.0, 1.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.max_unpool1d.html
    """
    return _unpooled("max_unpool1d", 1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: jax.Array,
    indices: jax.Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> jax.Array:
    """What a max pool took, back at its places, and 0 elsewhere.

    Args:
        input: (N, C, H, W) or (C, H, W).
        indices: The places that `max_pool2d` gave, int, input's shape; of equal ones the last
            counts, and the gradient goes to all of them.
        kernel_size, stride, padding: Of that pool.
        output_size: The size, with or without N and C; None: the least that was pooled.

    Returns:
        (N, C, ...) or (C, ...); NaN where a compiled function is given a place that is none.

    Raises:
        InputError: For shapes and numbers that PyTorch refuses, and a place that is none.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import max_pool2d_with_indices, max_unpool2d
        >>> x = jnp.arange(4.0).reshape(1, 2, 2)
        >>> max_unpool2d(*max_pool2d_with_indices(x, 2), 2).ravel().tolist()
        [0.0, 0.0, 0.0, 3.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.max_unpool2d.html
    """
    return _unpooled("max_unpool2d", 2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: jax.Array,
    indices: jax.Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> jax.Array:
    """What a max pool took, back at its places, and 0 elsewhere.

    Args:
        input: (N, C, D, H, W) or (C, D, H, W).
        indices: The places that `max_pool3d` gave, int, input's shape; of equal ones the last
            counts, and the gradient goes to all of them.
        kernel_size, stride, padding: Of that pool.
        output_size: The size, with or without N and C; None: the least that was pooled.

    Returns:
        (N, C, ...) or (C, ...); NaN where a compiled function is given a place that is none.

    Raises:
        InputError: For shapes and numbers that PyTorch refuses, and a place that is none.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import max_pool3d_with_indices, max_unpool3d
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> max_unpool3d(*max_pool3d_with_indices(x, 2), 2).ravel().tolist()
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 7.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.max_unpool3d.html
    """
    return _unpooled("max_unpool3d", 3, input, indices, kernel_size, stride, padding, output_size)


def _unpooled(
    name: str,
    rank: int,
    input: jax.Array,
    indices: jax.Array,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    output_size: Sequence[int] | None,
) -> jax.Array:
    x, batched = with_batch(name, rank, jnp.asarray(input))
    places = jnp.asarray(indices)
    if places.shape != jnp.shape(input) or not jnp.issubdtype(places.dtype, jnp.integer):
        raise InputError(
            f"{name}: indices is {places.dtype}{places.shape}, expected integers of input's shape "
            f"{jnp.shape(input)}"
        )
    kernel = per_axis(name, rank, "kernel_size", kernel_size)
    steps = kernel if stride is None else per_axis(name, rank, "stride", stride)
    edges = per_axis(name, rank, "padding", padding, 0)
    each = zip(x.shape[2:], kernel, steps, edges, strict=True)
    least = [(size - 1) * s + k - 2 * p for size, k, s, p in each]
    spatial = _spatial(name, least, steps, output_size)
    size = int(np.prod(spatial))
    if not isinstance(places, jax.core.Tracer):
        given = np.asarray(places)
        if (odd := given[(given < 0) | (given >= size)]).size:
            raise InputError(f"{name}: indices has {odd[0]}, expected 0 to {size - 1}")
    rows = (*x.shape[:2], int(np.prod(x.shape[2:])))
    flat = places.reshape(rows)
    out = _put(x.reshape(rows), flat, size)
    out = jnp.where(jnp.all((flat >= 0) & (flat < size)), out, jnp.nan).astype(x.dtype)
    return out.reshape(*x.shape[not batched : 2], *spatial)


def _spatial(
    name: str, least: list[int], steps: tuple[int, ...], output_size: Sequence[int] | None
) -> tuple[int, ...]:
    """The axes' lengths after the unpool."""
    rank = len(least)
    given = least if output_size is None else list(output_size)
    given = given[2:] if len(given) == rank + 2 else given
    near = [v - s < size < v + s for size, v, s in zip(given, least, steps, strict=False)]
    if len(given) != rank or not all(near) or min(given) < 1:
        raise InputError(
            f"{name}: output_size is {output_size}, expected {rank} sizes less than {steps} from "
            f"{least}, above 0"
        )
    return tuple(given)


def _put(values: jax.Array, places: jax.Array, size: int) -> jax.Array:
    """(N, C, size), with values, (N, C, L), at their places."""

    @jax.custom_vjp
    def put(values: jax.Array, places: jax.Array) -> jax.Array:
        empty = jnp.zeros((*values.shape[:2], size), values.dtype)
        return jnp.put_along_axis(empty, places, values, axis=2, inplace=False, mode="drop")

    def forward(values: jax.Array, places: jax.Array) -> tuple[jax.Array, jax.Array]:
        return put(values, places), places

    def backward(places: jax.Array, given: jax.Array) -> tuple[jax.Array, Any]:
        return jnp.take_along_axis(given, places, axis=2, mode="fill"), None

    put.defvjp(forward, backward)
    return put(values, places)
