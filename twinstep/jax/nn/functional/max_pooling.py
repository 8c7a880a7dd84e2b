"""torch.nn.functional's max pools: of equal entries the first is the largest, of NaNs the last.

That one alone gets the gradient; a dilated pool has one too, which XLA's own lacks.
"""

import jax
import jax.numpy as jnp

from twinstep.errors import InputError
from twinstep.jax.nn.functional.windows import (
    Sizes,
    max_over,
    per_axis,
    regular,
    sliding,
    with_batch,
)

__all__ = [
    "max_pool1d",
    "max_pool1d_with_indices",
    "max_pool2d",
    "max_pool2d_with_indices",
    "max_pool3d",
    "max_pool3d_with_indices",
]


def max_pool1d(
    input: jax.Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """1-D max pooling.

    Args:
        input: (N, C, L) or (C, L).
        kernel_size, dilation: A number, or one for each axis.
        stride: The same; None: kernel_size.
        padding: Of what is below every number, on either side, at most half a window.
        ceil_mode: Whether a window may reach beyond the end.
        return_indices: Whether the places of the largest are returned too.

    Returns:
        The largest entries, (N, C, ...); or these, and the places in that axis.

    Raises:
        InputError: For shapes and numbers that PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import max_pool1d
        >>> x = jnp.arange(16.0).reshape(1, 1, 16)
        >>> max_pool1d(x, 2).ravel().tolist()
        [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.max_pool1d.html
    """
    return _max_pool(
        "max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices
    )


def max_pool1d_with_indices(
    input: jax.Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """1-D max pooling that tells where the largest are.

    Args:
        input, kernel_size, stride, padding, dilation, ceil_mode: As of `max_pool1d`.
        return_indices: Ignored, as in PyTorch.

    Returns:
        The largest entries, (N, C, ...), and their places.

    Raises:
        InputError: For shapes and numbers that PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import max_pool1d_with_indices
        >>> values, places = max_pool1d_with_indices(jnp.arange(4.0).reshape(1, 1, 4), 4)
        >>> places.tolist()
        [[[3]]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.max_pool1d.html
    """
    values, places = _max_pool(
        "max_pool1d_with_indices", 1, input, kernel_size, stride, padding, dilation, ceil_mode, True
    )
    return values, places


def max_pool2d(
    input: jax.Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """2-D max pooling.

    Args:
        input: (N, C, H, W) or (C, H, W).
        kernel_size, dilation: A number, or one for each axis.
        stride: The same; None: kernel_size.
        padding: Of what is below every number, on either side, at most half a window.
        ceil_mode: Whether a window may reach beyond the end.
        return_indices: Whether the places of the largest are returned too.

    Returns:
        The largest entries, (N, C, ...); or these, and the places in a channel's flat array.

    Raises:
        InputError: For shapes and numbers that PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import max_pool2d
        >>> x = jnp.arange(16.0).reshape(1, 1, 4, 4)
        >>> max_pool2d(x, 2).ravel().tolist()
        [5.0, 7.0, 13.0, 15.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.max_pool2d.html
    """
    return _max_pool(
        "max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices
    )


def max_pool2d_with_indices(
    input: jax.Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """2-D max pooling that tells where the largest are.

    Args:
        input, kernel_size, stride, padding, dilation, ceil_mode: As of `max_pool2d`.
        return_indices: Ignored, as in PyTorch.

    Returns:
        The largest entries, (N, C, ...), and their places.

    Raises:
        InputError: For shapes and numbers that PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import max_pool2d_with_indices
        >>> values, places = max_pool2d_with_indices(jnp.arange(4.0).reshape(1, 1, 2, 2), 2)
        >>> places.tolist()
        [[[[3]]]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.max_pool2d.html
    """
    values, places = _max_pool(
        "max_pool2d_with_indices", 2, input, kernel_size, stride, padding, dilation, ceil_mode, True
    )
    return values, places


def max_pool3d(
    input: jax.Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """3-D max pooling.

    Args:
        input: (N, C, D, H, W) or (C, D, H, W).
        kernel_size, dilation: A number, or one for each axis.
        stride: The same; None: kernel_size.
        padding: Of what is below every number, on either side, at most half a window.
        ceil_mode: Whether a window may reach beyond the end.
        return_indices: Whether the places of the largest are returned too.

    Returns:
        The largest entries, (N, C, ...); or these, and the places in a channel's flat array.

    Raises:
        InputError: For shapes and numbers that PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import max_pool3d
        >>> x = jnp.arange(16.0).reshape(1, 1, 2, 4, 2)
        >>> max_pool3d(x, 2).ravel().tolist()
        [11.0, 15.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.max_pool3d.html
    """
    return _max_pool(
        "max_pool3d", 3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices
    )


def max_pool3d_with_indices(
    input: jax.Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """3-D max pooling that tells where the largest are.

    Args:
        input, kernel_size, stride, padding, dilation, ceil_mode: As of `max_pool3d`.
        return_indices: Ignored, as in PyTorch.

    Returns:
        The largest entries, (N, C, ...), and their places.

    Raises:
        InputError: For shapes and numbers that PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import max_pool3d_with_indices
        >>> values, places = max_pool3d_with_indices(jnp.arange(8.0).reshape(1, 1, 2, 2, 2), 2)
        >>> places.tolist()
        [[[[[7]]]]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.max_pool3d.html
    """
    values, places = _max_pool(
        "max_pool3d_with_indices", 3, input, kernel_size, stride, padding, dilation, ceil_mode, True
    )
    return values, places


def _max_pool(
    name: str,
    rank: int,
    input: jax.Array,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
    return_indices: bool,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    x, batched = with_batch(name, rank, jnp.asarray(input))
    if jnp.iscomplexobj(x) or x.dtype == bool:
        raise InputError(f"{name}: input is {x.dtype}, expected real numbers")
    kernel = per_axis(name, rank, "kernel_size", kernel_size)
    steps = kernel if stride is None else per_axis(name, rank, "stride", stride)
    edges = per_axis(name, rank, "padding", padding, 0)
    spread = per_axis(name, rank, "dilation", dilation)
    positions = []
    for size, k, s, p, d in zip(x.shape[2:], kernel, steps, edges, spread, strict=True):
        if 2 * p > d * (k - 1) + 1:
            raise InputError(
                f"{name}: padding is {padding}, expected at most half of the window of "
                f"{d * (k - 1) + 1}"
            )
        if (count := regular(size, k, s, p, d, ceil_mode)) < 1:
            raise InputError(
                f"{name}: input is of shape {input.shape}, expected room for a window of "
                f"{d * (k - 1) + 1}"
            )
        positions.append(sliding(count, k, s, p, d))
    values, places = max_over(x, positions, return_indices)
    values = values if batched else values[0]
    if places is None:
        return values
    return values, places if batched else places[0]
