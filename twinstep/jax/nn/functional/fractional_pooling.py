"""torch.nn.functional's fractional max pools: where their windows are is drawn in every call."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError
from twinstep.jax.nn.drawing import drawing_for
from twinstep.jax.nn.functional.windows import (
    Sizes,
    first_largest,
    per_axis,
    places_of,
    with_batch,
)

__all__ = [
    "fractional_max_pool2d",
    "fractional_max_pool2d_with_indices",
    "fractional_max_pool3d",
    "fractional_max_pool3d_with_indices",
]

Ratios = float | Sequence[float]
"""One number for all axes, or one for each."""


def fractional_max_pool2d(
    input: jax.Array,
    kernel_size: Sizes,
    output_size: Sizes | None = None,
    output_ratio: Ratios | None = None,
    return_indices: bool = False,
    _random_samples: jax.Array | None = None,
    *,
    generator: Any = None,
    key: Any = None,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """2-D max pooling of windows whose places are drawn.

    Args:
        input: (N, C, H, W) or (C, H, W), floats.
        kernel_size: A number, or one for each axis.
        output_size: How many windows there are, the same.
        output_ratio: Or what part of the input's size that is, between 0 and 1.
        return_indices: Whether the places of the largest are returned too.
        _random_samples: (N, C, 2), from 0 to 1, of input's dtype, the last axis's first; None:
            they are drawn.
        generator: What draws them: a TorchGenerator or a Generator; None: the default one.
        key: A key of JAX's in its place.

    Returns:
        The largest entries, (N, C, ...); or these, and the places in a channel's flat array.

    Raises:
        InputError: For shapes and numbers that PyTorch refuses; for a generator that is known in
            NumPy while the input is traced.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import fractional_max_pool2d
        >>> x = jnp.arange(25.0).reshape(1, 1, 5, 5)
        >>> drawn = jnp.full((1, 1, 2), 0.5)
        >>> fractional_max_pool2d(x, 2, 2, _random_samples=drawn).ravel()[:2].tolist()
        [6.0, 9.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.fractional_max_pool2d.html
    """
    values, places = _fractional(
        "fractional_max_pool2d",
        2,
        input,
        kernel_size,
        output_size,
        output_ratio,
        _random_samples,
        generator,
        key,
    )
    return (values, places) if return_indices else values


def fractional_max_pool2d_with_indices(
    input: jax.Array,
    kernel_size: Sizes,
    output_size: Sizes | None = None,
    output_ratio: Ratios | None = None,
    return_indices: bool = False,
    _random_samples: jax.Array | None = None,
    *,
    generator: Any = None,
    key: Any = None,
) -> tuple[jax.Array, jax.Array]:
    """2-D max pooling of windows whose places are drawn, that tells where the largest are.

    Args:
        input, kernel_size, output_size, output_ratio: As of `fractional_max_pool2d`.
        _random_samples, generator, key: The same.
        return_indices: Ignored, as in PyTorch.

    Returns:
        The largest entries, (N, C, ...), and their places in a channel's flat array.

    Raises:
        InputError: For shapes and numbers that PyTorch refuses; for a generator that is known in
            NumPy while the input is traced.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import fractional_max_pool2d_with_indices
        >>> x = jnp.arange(25.0).reshape(1, 1, 5, 5)
        >>> drawn = jnp.full((1, 1, 2), 0.5)
        >>> _, places = fractional_max_pool2d_with_indices(x, 2, 2, _random_samples=drawn)
        >>> places.ravel()[:2].tolist()
        [6, 9]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.fractional_max_pool2d.html
    """
    return _fractional(
        "fractional_max_pool2d_with_indices",
        2,
        input,
        kernel_size,
        output_size,
        output_ratio,
        _random_samples,
        generator,
        key,
    )


def fractional_max_pool3d(
    input: jax.Array,
    kernel_size: Sizes,
    output_size: Sizes | None = None,
    output_ratio: Ratios | None = None,
    return_indices: bool = False,
    _random_samples: jax.Array | None = None,
    *,
    generator: Any = None,
    key: Any = None,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """3-D max pooling of windows whose places are drawn.

    Args:
        input: (N, C, D, H, W) or (C, D, H, W), floats.
        kernel_size: A number, or one for each axis.
        output_size: How many windows there are, the same.
        output_ratio: Or what part of the input's size that is, between 0 and 1.
        return_indices: Whether the places of the largest are returned too.
        _random_samples: (N, C, 3), from 0 to 1, of input's dtype, the first axis's first; None:
            they are drawn.
        generator: What draws them: a TorchGenerator or a Generator; None: the default one.
        key: A key of JAX's in its place.

    Returns:
        The largest entries, (N, C, ...); or these, and the places in a channel's flat array.

    Raises:
        InputError: For shapes and numbers that PyTorch refuses; for a generator that is known in
            NumPy while the input is traced.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import fractional_max_pool3d
        >>> x = jnp.arange(125.0).reshape(1, 1, 5, 5, 5)
        >>> drawn = jnp.full((1, 1, 3), 0.5)
        >>> fractional_max_pool3d(x, 2, 2, _random_samples=drawn).ravel()[:2].tolist()
        [31.0, 34.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.fractional_max_pool3d.html
    """
    values, places = _fractional(
        "fractional_max_pool3d",
        3,
        input,
        kernel_size,
        output_size,
        output_ratio,
        _random_samples,
        generator,
        key,
    )
    return (values, places) if return_indices else values


def fractional_max_pool3d_with_indices(
    input: jax.Array,
    kernel_size: Sizes,
    output_size: Sizes | None = None,
    output_ratio: Ratios | None = None,
    return_indices: bool = False,
    _random_samples: jax.Array | None = None,
    *,
    generator: Any = None,
    key: Any = None,
) -> tuple[jax.Array, jax.Array]:
    """3-D max pooling of windows whose places are drawn, that tells where the largest are.

    Args:
        input, kernel_size, output_size, output_ratio: As of `fractional_max_pool3d`.
        _random_samples, generator, key: The same.
        return_indices: Ignored, as in PyTorch.

    Returns:
        The largest entries, (N, C, ...), and their places in a channel's flat array.

    Raises:
        InputError: For shapes and numbers that PyTorch refuses; for a generator that is known in
            NumPy while the input is traced.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import fractional_max_pool3d_with_indices
        >>> x = jnp.arange(125.0).reshape(1, 1, 5, 5, 5)
        >>> drawn = jnp.full((1, 1, 3), 0.5)
        >>> _, places = fractional_max_pool3d_with_indices(x, 2, 2, _random_samples=drawn)
        >>> places.ravel()[:2].tolist()
        [31, 34]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.fractional_max_pool3d.html
    """
    return _fractional(
        "fractional_max_pool3d_with_indices",
        3,
        input,
        kernel_size,
        output_size,
        output_ratio,
        _random_samples,
        generator,
        key,
    )


def _fractional(
    name: str,
    rank: int,
    input: jax.Array,
    kernel_size: Sizes,
    output_size: Sizes | None,
    output_ratio: Ratios | None,
    samples: jax.Array | None,
    generator: Any,
    key: Any,
) -> tuple[jax.Array, jax.Array]:
    x, batched = with_batch(name, rank, jnp.asarray(input))
    kernel = per_axis(name, rank, "kernel_size", kernel_size)
    counts = _counts(name, x.shape[2:], kernel, output_size, output_ratio)
    drawn = _drawn(name, x, rank, generator, key) if samples is None else jnp.asarray(samples)
    expected = (*x.shape[:2], rank)
    if drawn.shape != expected or drawn.dtype != x.dtype:
        raise InputError(
            f"{name}: _random_samples is {drawn.dtype}{drawn.shape}, expected {x.dtype}{expected}"
        )
    places = jnp.broadcast_to(places_of(x.shape[2:], 2), x.shape)
    for axis in reversed(range(2, rank + 2)):
        i = axis - 2
        # of two axes PyTorch draws the last one's sample first, of three the first one's
        sample = drawn[..., i if rank == 3 else 1 - i]
        start = _starts(sample, x.shape[axis], counts[i], kernel[i])
        spots = start.reshape(*start.shape[:2], *[1] * i, counts[i], *[1] * (rank - 1 - i))
        taken, found = (
            jnp.stack([jnp.take_along_axis(a, spots + k, axis=axis) for k in range(kernel[i])])
            for a in (x, places)
        )
        known = np.ones((kernel[i], *[1] * x.ndim), bool)
        x, places = _both(first_largest(taken, found, known))
    return (x, places) if batched else (x[0], places[0])


def _drawn(name: str, x: jax.Array, rank: int, generator: Any, key: Any) -> jax.Array:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(f"{name}: input is {x.dtype}, expected floats")
    draws = drawing_for(name, x, generator, key)
    return draws.rand(*x.shape[:2], rank, dtype=x.dtype)


def _both(found: tuple[jax.Array, jax.Array | None]) -> tuple[jax.Array, jax.Array]:
    values, places = found
    assert places is not None
    return values, places


def _starts(drawn: jax.Array, size: int, count: int, kernel: int) -> jax.Array:
    """(N, C, count): where the windows of an axis start; the last one is at its end."""
    last = size - kernel
    if count == 1:
        return jnp.full((*drawn.shape, 1), last)
    alpha = jnp.asarray(last, drawn.dtype) / (count - 1)
    shift = drawn[..., None]
    steps = (jnp.arange(count, dtype=drawn.dtype) + shift) * alpha
    start = steps.astype(int) - (shift * alpha).astype(int)
    return jnp.where(jnp.arange(count) == count - 1, last, start)


def _counts(
    name: str,
    sizes: tuple[int, ...],
    kernel: tuple[int, ...],
    output_size: Sizes | None,
    output_ratio: Ratios | None,
) -> tuple[int, ...]:
    """How many windows there are on each axis."""
    rank = len(sizes)
    if output_size is None:
        given = output_ratio
        ratios: list[Any] = list(given) if isinstance(given, list | tuple) else [given]
        ratios = ratios * rank if len(ratios) == 1 else ratios
        if len(ratios) != rank or not all(isinstance(v, int | float) for v in ratios):
            raise InputError(
                f"{name}: output_ratio is {output_ratio}, expected {rank} numbers, or output_size"
            )
        output_size = [int(size * v) for size, v in zip(sizes, ratios, strict=True) if v]
    counts = per_axis(name, rank, "output_size", output_size)
    free = rank == 3  # PyTorch wants an entry to spare there
    if any(n + k - 1 + free > size for n, k, size in zip(counts, kernel, sizes, strict=True)):
        raise InputError(
            f"{name}: output_size is {counts}, expected windows of {kernel} that fit into {sizes}"
        )
    return counts
