"""torch.nn.functional's average and power-average pools."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn.functional.windows import (
    Sizes,
    max_over,
    per_axis,
    regular,
    sliding,
    sum_over,
    with_batch,
)

__all__ = [
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
]


def avg_pool1d(
    input: jax.Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> jax.Array:
    """1-D average pooling.

    Args:
        input: (N, C, L) or (C, L).
        kernel_size: A number, or one for each axis.
        stride: The same; None: kernel_size.
        padding: Of zeros on either side, at most half a window.
        ceil_mode: Whether a window may reach beyond the end; what is there is never counted.
        count_include_pad: Whether the zeros are counted.

    Returns:
        The means, (N, C, ...) or (C, ...).

    Raises:
        InputError: For shapes and numbers that PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import avg_pool1d
        >>> avg_pool1d(jnp.ones((1, 3)), 2, padding=1).ravel()[:2].tolist()
        [0.5, 1.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.avg_pool1d.html
    """
    return _avg_pool(
        "avg_pool1d", 1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None
    )


def avg_pool2d(
    input: jax.Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> jax.Array:
    """2-D average pooling.

    Args:
        input: (N, C, H, W) or (C, H, W).
        kernel_size: A number, or one for each axis.
        stride: The same; None: kernel_size.
        padding: Of zeros on either side, at most half a window.
        ceil_mode: Whether a window may reach beyond the end; what is there is never counted.
        count_include_pad: Whether the zeros are counted.
        divisor_override: What every sum is divided by, not 0; None: the number of entries.

    Returns:
        The means, (N, C, ...) or (C, ...).

    Raises:
        InputError: For shapes and numbers that PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import avg_pool2d
        >>> avg_pool2d(jnp.ones((1, 3, 3)), 2, padding=1).ravel()[:2].tolist()
        [0.25, 0.5]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.avg_pool2d.html
    """
    divisor = _divisor("avg_pool2d", divisor_override)
    return _avg_pool(
        "avg_pool2d", 2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor
    )


def avg_pool3d(
    input: jax.Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> jax.Array:
    """3-D average pooling.

    Args:
        input: (N, C, D, H, W) or (C, D, H, W).
        kernel_size: A number, or one for each axis.
        stride: The same; None: kernel_size.
        padding: Of zeros on either side, at most half a window.
        ceil_mode: Whether a window may reach beyond the end; what is there is never counted.
        count_include_pad: Whether the zeros are counted.
        divisor_override: What every sum is divided by, not 0; None: the number of entries.

    Returns:
        The means, (N, C, ...) or (C, ...).

    Raises:
        InputError: For shapes and numbers that PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import avg_pool3d
        >>> avg_pool3d(jnp.ones((1, 3, 3, 3)), 2, padding=1).ravel()[:2].tolist()
        [0.125, 0.25]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.avg_pool3d.html
    """
    divisor = _divisor("avg_pool3d", divisor_override)
    return _avg_pool(
        "avg_pool3d", 3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor
    )


def lp_pool1d(
    input: jax.Array,
    norm_type: float,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    ceil_mode: bool = False,
) -> jax.Array:
    """1-D power-average pooling: the root of the windows' sums of powers.

    Negative numbers are not made positive, but at an infinite power. Where ceil_mode cuts a window
    off, its sum stands for a whole one. Where a sum is 0 the gradient is 0.

    Args:
        input: (N, C, L) or (C, L).
        norm_type: The power, not 0; at infinity it is a max pool of the absolute values.
        kernel_size: A number.
        stride: The same; None: kernel_size.
        ceil_mode: Whether a window may reach beyond the end.

    Returns:
        The norms, (N, C, ...) or (C, ...).

    Raises:
        InputError: For shapes and numbers that PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import lp_pool1d
        >>> lp_pool1d(jnp.full((1, 2), 3.0), 1, 2).ravel().tolist()
        [6.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.lp_pool1d.html
    """
    return _lp_pool("lp_pool1d", 1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: jax.Array,
    norm_type: float,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    ceil_mode: bool = False,
) -> jax.Array:
    """2-D power-average pooling: the root of the windows' sums of powers.

    Negative numbers are not made positive, but at an infinite power. Where ceil_mode cuts a window
    off, its sum stands for a whole one. Where a sum is 0 the gradient is 0.

    Args:
        input: (N, C, H, W) or (C, H, W).
        norm_type: The power, not 0; at infinity it is a max pool of the absolute values.
        kernel_size: A number, or one for each axis.
        stride: The same; None: kernel_size.
        ceil_mode: Whether a window may reach beyond the end.

    Returns:
        The norms, (N, C, ...) or (C, ...).

    Raises:
        InputError: For shapes and numbers that PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import lp_pool2d
        >>> lp_pool2d(jnp.full((1, 2, 2), 3.0), 1, 2).ravel().tolist()
        [12.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.lp_pool2d.html
    """
    return _lp_pool("lp_pool2d", 2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: jax.Array,
    norm_type: float,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    ceil_mode: bool = False,
) -> jax.Array:
    """3-D power-average pooling: the root of the windows' sums of powers.

    Negative numbers are not made positive, but at an infinite power. Where ceil_mode cuts a window
    off, its sum stands for a whole one. Where a sum is 0 the gradient is 0.

    Args:
        input: (N, C, D, H, W) or (C, D, H, W).
        norm_type: The power, not 0; at infinity it is a max pool of the absolute values.
        kernel_size: A number, or one for each axis.
        stride: The same; None: kernel_size.
        ceil_mode: Whether a window may reach beyond the end.

    Returns:
        The norms, (N, C, ...) or (C, ...).

    Raises:
        InputError: For shapes and numbers that PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import lp_pool3d
        >>> lp_pool3d(jnp.full((1, 2, 2, 2), 3.0), 1, 2).ravel().tolist()
        [24.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.lp_pool3d.html
    """
    return _lp_pool("lp_pool3d", 3, input, norm_type, kernel_size, stride, ceil_mode)


def _windows(
    name: str,
    sizes: Sequence[int],
    kernel: tuple[int, ...],
    stride: Sizes | None,
    edges: tuple[int, ...],
    ceil_mode: bool,
) -> list[Any]:
    """The windows' positions on each axis."""
    steps = kernel if stride is None else per_axis(name, len(sizes), "stride", stride)
    positions = []
    for size, k, s, p in zip(sizes, kernel, steps, edges, strict=True):
        if 2 * p > k:
            raise InputError(f"{name}: padding is {edges}, expected at most half of {kernel}")
        if (count := regular(size, k, s, p, 1, ceil_mode)) < 1:
            raise InputError(
                f"{name}: kernel_size is {kernel}, expected one that fits {tuple(sizes)}"
            )
        positions.append(sliding(count, k, s, p, 1))
    return positions


def _avg_pool(
    name: str,
    rank: int,
    input: jax.Array,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> jax.Array:
    x, batched = with_batch(name, rank, jnp.asarray(input))
    kernel = per_axis(name, rank, "kernel_size", kernel_size)
    edges = per_axis(name, rank, "padding", padding, 0)
    positions = _windows(name, x.shape[2:], kernel, stride, edges, ceil_mode)
    counts: Any = 1
    for size, spots, p in zip(x.shape[2:], positions, edges, strict=True):
        low, high = (-p, size + p) if count_include_pad else (0, size)
        counts = np.multiply.outer(counts, np.sum((spots >= low) & (spots < high), axis=0))
    total, count = sum_over(x, positions), counts if divisor is None else divisor
    share = jnp.broadcast_to(jnp.asarray(count, x.dtype), total.shape)
    out = jax.lax.div(total, share)  # integers towards 0, as in PyTorch
    return out if batched else out[0]


def _divisor(name: str, divisor: int | None) -> int | None:
    check_arguments(name, divisor_override=(divisor, "a number other than 0", lambda v: v != 0))
    return divisor


def _lp_pool(
    name: str,
    rank: int,
    input: jax.Array,
    norm_type: float,
    kernel_size: Sizes,
    stride: Sizes | None,
    ceil_mode: bool,
) -> jax.Array:
    check_arguments(name, norm_type=(norm_type, "a number other than 0", lambda v: abs(v) > 0))
    x, batched = with_batch(name, rank, jnp.asarray(input))
    kernel = per_axis(name, rank, "kernel_size", kernel_size)
    if math.isinf(norm_type):
        sign = int(math.copysign(1, norm_type))
        positions = _windows(name, x.shape[2:], kernel, stride, (0,) * rank, ceil_mode)
        # the gradient of abs at 0 is 0 in PyTorch, 1 in JAX
        size = sign * jnp.where(x == 0, 0, jnp.abs(jnp.where(x == 0, 1, x)))
        out = sign * max_over(size, positions, False)[0]
        return out if batched else out[0]
    mean = _avg_pool(name, rank, x**norm_type, kernel_size, stride, 0, ceil_mode, True, None)
    total = mean * math.prod(kernel)
    some = total != 0
    root = jnp.where(some, total, 1) ** (1 / norm_type)
    none = jax.lax.stop_gradient(total) ** (1 / norm_type)
    out = jnp.where(some, root, none)
    return out if batched else out[0]
