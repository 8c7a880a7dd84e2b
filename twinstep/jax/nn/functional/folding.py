"""torch.nn.functional's moves: blocks to columns and back, pixels to channels and back."""

import math

import jax
import jax.numpy as jnp

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn.functional.windows import (
    Sizes,
    per_axis,
    regular,
    sliding,
    windows,
    with_batch,
)

__all__ = ["channel_shuffle", "fold", "pixel_shuffle", "pixel_unshuffle", "unfold"]


def unfold(
    input: jax.Array,
    kernel_size: Sizes,
    dilation: Sizes = 1,
    padding: Sizes = 0,
    stride: Sizes = 1,
) -> jax.Array:
    """Every block of an image as a column.

    Args:
        input: (N, C, H, W) or (C, H, W).
        kernel_size, dilation, stride: A number, or one for each axis.
        padding: Of zeros on either side, the same.

    Returns:
        (N, C kH kW, L) or (C kH kW, L), L blocks, row by row.

    Raises:
        InputError: For shapes and numbers that PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import unfold
        >>> unfold(jnp.arange(6.0).reshape(1, 2, 3), 2).tolist()
        [[0.0, 1.0], [1.0, 2.0], [3.0, 4.0], [4.0, 5.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.unfold.html
    """
    x, batched = with_batch("unfold", 2, jnp.asarray(input))
    kernel, edges, spread, steps = _numbers("unfold", kernel_size, padding, dilation, stride)
    counts = _counts("unfold", x.shape[2:], kernel, steps, edges, spread)
    out = _columns(x, counts, kernel, steps, edges, spread)
    return out if batched else out[0]


def fold(
    input: jax.Array,
    output_size: Sizes,
    kernel_size: Sizes,
    dilation: Sizes = 1,
    padding: Sizes = 0,
    stride: Sizes = 1,
) -> jax.Array:
    """The image whose blocks are the columns, summed up where they overlap.

    Args:
        input: (N, C kH kW, L) or (C kH kW, L), floats.
        output_size: (H, W), or one number for both.
        kernel_size, dilation, padding, stride: As of `unfold`, which makes L columns of an image of
            that size.

    Returns:
        (N, C, H, W) or (C, H, W).

    Raises:
        InputError: For shapes and numbers that PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import fold
        >>> fold(jnp.ones((4, 2)), (2, 3), 2).tolist()
        [[[1.0, 2.0, 1.0], [1.0, 2.0, 1.0]]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.fold.html
    """
    columns = jnp.asarray(input)
    height, width = per_axis("fold", 2, "output_size", output_size)
    kernel, edges, spread, steps = _numbers("fold", kernel_size, padding, dilation, stride)
    counts = _counts("fold", (height, width), kernel, steps, edges, spread)
    area, length = kernel[0] * kernel[1], counts[0] * counts[1]
    batched = columns.ndim == 3
    if (
        columns.ndim not in (2, 3)
        or not jnp.issubdtype(columns.dtype, jnp.inexact)
        or columns.shape[-1] != length
        or columns.shape[-2] % area
        or not columns.shape[-2]
    ):
        raise InputError(
            f"fold: input is {columns.dtype}{columns.shape}, expected floats of shape (N, C times "
            f"{area}, {length}) or without N"
        )
    given = columns if batched else columns[None]
    image = jax.ShapeDtypeStruct(
        (len(given), columns.shape[-2] // area, height, width), columns.dtype
    )
    (out,) = jax.linear_transpose(
        lambda x: _columns(x, counts, kernel, steps, edges, spread), image
    )(given)
    return jnp.asarray(out if batched else out[0])


def pixel_shuffle(input: jax.Array, upscale_factor: int) -> jax.Array:
    """Channels moved into the pixels: an image r times as high and wide.

    Args:
        input: (..., C r^2, H, W).
        upscale_factor: r, from 1 on.

    Returns:
        (..., C, H r, W r).

    Raises:
        InputError: For fewer than 3 axes, channels that r^2 does not divide.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import pixel_shuffle
        >>> pixel_shuffle(jnp.arange(4.0).reshape(4, 1, 1), 2).tolist()
        [[[0.0, 1.0], [2.0, 3.0]]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.pixel_shuffle.html
    """
    x, r = jnp.asarray(input), _factor("pixel_shuffle", "upscale_factor", upscale_factor)
    if x.ndim < 3 or x.shape[-3] % r**2:
        raise InputError(
            f"pixel_shuffle: input is of shape {x.shape}, expected (..., C times {r**2}, H, W)"
        )
    *lead, channels, height, width = x.shape
    parts = x.reshape(math.prod(lead), channels // r**2, r, r, height, width)
    moved = jnp.transpose(parts, (0, 1, 4, 2, 5, 3))
    return moved.reshape(*lead, channels // r**2, height * r, width * r)


def pixel_unshuffle(input: jax.Array, downscale_factor: int) -> jax.Array:
    """Pixels moved into the channels: what `pixel_shuffle` does, undone.

    Args:
        input: (..., C, H r, W r).
        downscale_factor: r, from 1 on.

    Returns:
        (..., C r^2, H, W).

    Raises:
        InputError: For fewer than 3 axes, a height or width that r does not divide.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import pixel_unshuffle
        >>> pixel_unshuffle(jnp.arange(4.0).reshape(1, 2, 2), 2).ravel().tolist()
        [0.0, 1.0, 2.0, 3.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.pixel_unshuffle.html
    """
    x, r = jnp.asarray(input), _factor("pixel_unshuffle", "downscale_factor", downscale_factor)
    if x.ndim < 3 or x.shape[-1] % r or x.shape[-2] % r:
        raise InputError(
            f"pixel_unshuffle: input is of shape {x.shape}, expected (..., C, H times {r}, W times "
            f"{r})"
        )
    *lead, channels, height, width = x.shape
    parts = x.reshape(math.prod(lead), channels, height // r, r, width // r, r)
    moved = jnp.transpose(parts, (0, 1, 3, 5, 2, 4))
    return moved.reshape(*lead, channels * r**2, height // r, width // r)


def channel_shuffle(input: jax.Array, groups: int) -> jax.Array:
    """The channels of every group in turn: the first of each, then the second of each.

    Args:
        input: (N, C, ...), three axes at least.
        groups: A number that divides C.

    Returns:
        The same shape.

    Raises:
        InputError: For fewer than 3 axes, channels that groups does not divide.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import channel_shuffle
        >>> channel_shuffle(jnp.arange(6.0).reshape(1, 6, 1), 2).ravel().tolist()
        [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ChannelShuffle.html
    """
    x, groups = jnp.asarray(input), _factor("channel_shuffle", "groups", groups)
    if x.ndim < 3 or x.shape[1] % groups:
        raise InputError(
            f"channel_shuffle: input is of shape {x.shape}, expected (N, C times {groups}, ...)"
        )
    batch, channels, *rest = x.shape
    parts = x.reshape(batch, groups, channels // groups, *rest)
    return parts.swapaxes(1, 2).reshape(x.shape)


def _factor(name: str, argument: str, value: int) -> int:
    check_arguments(name, **{argument: (value, "an integer from 1 on", lambda v: v >= 1)})
    return value


Pair = tuple[int, ...]


def _numbers(
    name: str, kernel_size: Sizes, padding: Sizes, dilation: Sizes, stride: Sizes
) -> tuple[Pair, Pair, Pair, Pair]:
    return (
        per_axis(name, 2, "kernel_size", kernel_size),
        per_axis(name, 2, "padding", padding, 0),
        per_axis(name, 2, "dilation", dilation),
        per_axis(name, 2, "stride", stride),
    )


def _counts(
    name: str, sizes: tuple[int, ...], kernel: Pair, steps: Pair, edges: Pair, spread: Pair
) -> Pair:
    """How many blocks there are on each axis."""
    each = zip(sizes, kernel, steps, edges, spread, strict=True)
    counts = tuple(regular(size, k, s, p, d, False) for size, k, s, p, d in each)
    if min(counts) < 1:
        raise InputError(f"{name}: kernel_size is {kernel}, expected one that fits into {sizes}")
    return counts


def _columns(
    x: jax.Array, counts: Pair, kernel: Pair, steps: Pair, edges: Pair, spread: Pair
) -> jax.Array:
    for axis, count, k, s, p, d in zip((2, 3), counts, kernel, steps, edges, spread, strict=True):
        blocks = windows(x, axis + axis - 2, sliding(count, k, s, p, d))
        x = jnp.moveaxis(blocks, 0, axis + axis - 2)  # (N, C, kH, H', kW, W')
    batch, channels = x.shape[:2]
    x = x.swapaxes(3, 4)
    return x.reshape(batch, channels * kernel[0] * kernel[1], counts[0] * counts[1])
