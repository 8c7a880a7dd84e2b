"""torch.nn.functional's adaptive pools: as many windows as are asked for, that cover each axis."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError
from twinstep.jax.nn.functional.windows import adaptive, max_over, per_axis, sum_over, with_batch

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool1d_with_indices",
    "adaptive_max_pool2d",
    "adaptive_max_pool2d_with_indices",
    "adaptive_max_pool3d",
    "adaptive_max_pool3d_with_indices",
]

Counts = int | Sequence[int | None]
"""How many windows there are: for all axes, or for each, where None is as many as entries."""


def adaptive_avg_pool1d(input: jax.Array, output_size: int | Sequence[int]) -> jax.Array:
    """1-D adaptive average pooling.

    Args:
        input: (N, C, L) or (C, L), floats.
        output_size: How many windows there are.

    Returns:
        The means, (N, C, ...) or (C, ...).

    Raises:
        InputError: For shapes and sizes that PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import adaptive_avg_pool1d
        >>> adaptive_avg_pool1d(jnp.ones((2, 3, 5)), 2).shape
        (2, 3, 2)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.adaptive_avg_pool1d.html
    """
    return _adaptive_avg_pool("adaptive_avg_pool1d", 1, input, output_size)


def adaptive_avg_pool2d(input: jax.Array, output_size: Counts) -> jax.Array:
    """2-D adaptive average pooling.

    Args:
        input: (N, C, H, W) or (C, H, W), floats.
        output_size: How many windows there are: one number, or one for each axis, of which
            None is as many as entries.

    Returns:
        The means, (N, C, ...) or (C, ...).

    Raises:
        InputError: For shapes and sizes that PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import adaptive_avg_pool2d
        >>> adaptive_avg_pool2d(jnp.ones((2, 3, 5, 5)), 2).shape
        (2, 3, 2, 2)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.adaptive_avg_pool2d.html
    """
    return _adaptive_avg_pool("adaptive_avg_pool2d", 2, input, output_size)


def adaptive_avg_pool3d(input: jax.Array, output_size: Counts) -> jax.Array:
    """3-D adaptive average pooling.

    Args:
        input: (N, C, D, H, W) or (C, D, H, W), floats.
        output_size: How many windows there are: one number, or one for each axis, of which
            None is as many as entries.

    Returns:
        The means, (N, C, ...) or (C, ...).

    Raises:
        InputError: For shapes and sizes that PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import adaptive_avg_pool3d
        >>> adaptive_avg_pool3d(jnp.ones((2, 3, 5, 5, 5)), 2).shape
        (2, 3, 2, 2, 2)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.adaptive_avg_pool3d.html
    """
    return _adaptive_avg_pool("adaptive_avg_pool3d", 3, input, output_size)


def adaptive_max_pool1d(
    input: jax.Array, output_size: int | Sequence[int], return_indices: bool = False
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """1-D adaptive max pooling.

    Args:
        input: (N, C, L) or (C, L), floats.
        output_size: How many windows there are.
        return_indices: Whether the places of the largest are returned too.

    Returns:
        The largest entries, (N, C, ...); or these, and the places in that axis.

    Raises:
        InputError: For shapes and sizes that PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import adaptive_max_pool1d
        >>> adaptive_max_pool1d(jnp.ones((2, 3, 5)), 2).shape
        (2, 3, 2)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.adaptive_max_pool1d.html
    """
    return _adaptive_max_pool("adaptive_max_pool1d", 1, input, output_size, return_indices)


def adaptive_max_pool1d_with_indices(
    input: jax.Array, output_size: int | Sequence[int], return_indices: bool = False
) -> tuple[jax.Array, jax.Array]:
    """1-D adaptive max pooling that tells where the largest are.

    Args:
        input, output_size: As of `adaptive_max_pool1d`.
        return_indices: Ignored, as in PyTorch.

    Returns:
        The largest entries, (N, C, ...), and their places.

    Raises:
        InputError: For shapes and sizes that PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import adaptive_max_pool1d_with_indices
        >>> x = jnp.arange(2.0).reshape(1, 2)
        >>> adaptive_max_pool1d_with_indices(x, 1)[1].tolist()
        [[1]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.adaptive_max_pool1d.html
    """
    values, places = _adaptive_max_pool(
        "adaptive_max_pool1d_with_indices", 1, input, output_size, True
    )
    return values, places


def adaptive_max_pool2d(
    input: jax.Array, output_size: Counts, return_indices: bool = False
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """2-D adaptive max pooling.

    Args:
        input: (N, C, H, W) or (C, H, W), floats.
        output_size: How many windows there are: one number, or one for each axis, of which
            None is as many as entries.
        return_indices: Whether the places of the largest are returned too.

    Returns:
        The largest entries, (N, C, ...); or these, and the places in a channel's flat array.

    Raises:
        InputError: For shapes and sizes that PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import adaptive_max_pool2d
        >>> adaptive_max_pool2d(jnp.ones((2, 3, 5, 5)), 2).shape
        (2, 3, 2, 2)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.adaptive_max_pool2d.html
    """
    return _adaptive_max_pool("adaptive_max_pool2d", 2, input, output_size, return_indices)


def adaptive_max_pool2d_with_indices(
    input: jax.Array, output_size: Counts, return_indices: bool = False
) -> tuple[jax.Array, jax.Array]:
    """2-D adaptive max pooling that tells where the largest are.

    Args:
        input, output_size: As of `adaptive_max_pool2d`.
        return_indices: Ignored, as in PyTorch.

    Returns:
        The largest entries, (N, C, ...), and their places.

    Raises:
        InputError: For shapes and sizes that PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import adaptive_max_pool2d_with_indices
        >>> x = jnp.arange(4.0).reshape(1, 2, 2)
        >>> adaptive_max_pool2d_with_indices(x, 1)[1].tolist()
        [[[3]]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.adaptive_max_pool2d.html
    """
    values, places = _adaptive_max_pool(
        "adaptive_max_pool2d_with_indices", 2, input, output_size, True
    )
    return values, places


def adaptive_max_pool3d(
    input: jax.Array, output_size: Counts, return_indices: bool = False
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """3-D adaptive max pooling.

    Args:
        input: (N, C, D, H, W) or (C, D, H, W), floats.
        output_size: How many windows there are: one number, or one for each axis, of which
            None is as many as entries.
        return_indices: Whether the places of the largest are returned too.

    Returns:
        The largest entries, (N, C, ...); or these, and the places in a channel's flat array.

    Raises:
        InputError: For shapes and sizes that PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import adaptive_max_pool3d
        >>> adaptive_max_pool3d(jnp.ones((2, 3, 5, 5, 5)), 2).shape
        (2, 3, 2, 2, 2)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.adaptive_max_pool3d.html
    """
    return _adaptive_max_pool("adaptive_max_pool3d", 3, input, output_size, return_indices)


def adaptive_max_pool3d_with_indices(
    input: jax.Array, output_size: Counts, return_indices: bool = False
) -> tuple[jax.Array, jax.Array]:
    """3-D adaptive max pooling that tells where the largest are.

    Args:
        input, output_size: As of `adaptive_max_pool3d`.
        return_indices: Ignored, as in PyTorch.

    Returns:
        The largest entries, (N, C, ...), and their places.

    Raises:
        InputError: For shapes and sizes that PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import adaptive_max_pool3d_with_indices
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> adaptive_max_pool3d_with_indices(x, 1)[1].tolist()
        [[[[7]]]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.adaptive_max_pool3d.html
    """
    values, places = _adaptive_max_pool(
        "adaptive_max_pool3d_with_indices", 3, input, output_size, True
    )
    return values, places


def _positions(
    name: str, rank: int, input: jax.Array, output_size: Counts
) -> tuple[jax.Array, bool, list[Any]]:
    """(N, C, ...), whether the batch axis was there, and each axis's windows."""
    x, batched = with_batch(name, rank, input)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(f"{name}: input is {x.dtype}, expected floats")
    sizes = x.shape[2:]
    if rank > 1 and isinstance(output_size, list | tuple):
        if len(output_size) != rank:
            raise InputError(
                f"{name}: output_size is {output_size}, expected a number, or one for each of "
                f"{rank} axes"
            )
        output_size = [n if v is None else v for v, n in zip(output_size, sizes, strict=True)]
    counts = per_axis(name, rank, "output_size", output_size, 0)
    return x, batched, [adaptive(size, v) for size, v in zip(sizes, counts, strict=True)]


def _adaptive_avg_pool(name: str, rank: int, input: jax.Array, output_size: Counts) -> jax.Array:
    x, batched, positions = _positions(name, rank, jnp.asarray(input), output_size)
    counts: Any = 1
    for spots in positions:
        counts = np.multiply.outer(counts, np.sum(spots >= 0, axis=0))
    out = sum_over(x, positions) / jnp.asarray(counts, x.dtype)
    return out if batched else out[0]


def _adaptive_max_pool(
    name: str, rank: int, input: jax.Array, output_size: Counts, return_indices: bool
) -> jax.Array | tuple[jax.Array, jax.Array]:
    x, batched, positions = _positions(name, rank, jnp.asarray(input), output_size)
    values, places = max_over(x, positions, return_indices)
    values = values if batched else values[0]
    if places is None:
        return values
    return values, places if batched else places[0]
