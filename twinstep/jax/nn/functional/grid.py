"""torch.nn.functional's affine grids, and the sampling of images there."""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn.functional.resampling import cubic_weights

__all__ = ["affine_grid", "grid_sample"]

_MODES = ("bilinear", "nearest", "bicubic")
_PADDINGS = ("zeros", "border", "reflection")


def grid_sample(
    input: jax.Array,
    grid: jax.Array,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> jax.Array:
    """What an image has at the places of a grid.

    Args:
        input: (N, C, H, W) or (N, C, D, H, W), floats.
        grid: (N, H', W', 2) or (N, D', H', W', 3), of input's dtype: x, y and z, where -1 is the
            first pixel and 1 the last.
        mode: "bilinear", "nearest", or "bicubic" for images of 2 axes.
        padding_mode: What is outside: "zeros"; "border": the pixel at the edge; "reflection": the
            image mirrored.
        align_corners: Whether -1 and 1 are the centres of these pixels, and not their edges; None:
            not.

    Returns:
        (N, C, H', W') or (N, C, D', H', W').

    Raises:
        InputError: For shapes, dtypes and modes that PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import grid_sample
        >>> image = jnp.array([[[[1.0, 3.0]]]])
        >>> grid_sample(image, jnp.array([[[[0.0, 0.0]]]]), align_corners=False).tolist()
        [[[[2.0]]]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.grid_sample.html
    """
    x, grid = jnp.asarray(input), jnp.asarray(grid)
    _check(x, grid, mode, padding_mode)
    sizes, align = x.shape[2:], bool(align_corners)
    places = [  # x is the last axis
        _unnormalized(grid[..., len(sizes) - 1 - i], size, align) for i, size in enumerate(sizes)
    ]
    if mode == "bicubic":
        each = [_cubic(place) for place in places]
    else:
        padded = [
            _padded(place, size, padding_mode, align)
            for place, size in zip(places, sizes, strict=True)
        ]
        each = [_linear(p) if mode == "bilinear" else [(jnp.round(p), None)] for p in padded]
    out: jax.Array | None = None
    for corner in itertools.product(*each):
        spots = [spot for spot, _ in corner]
        if mode == "bicubic":
            spots = [
                _padded(spot, size, padding_mode, align)
                for spot, size in zip(spots, sizes, strict=True)
            ]
        part = _taken(x, spots)
        for _, weight in corner:
            part = part if weight is None else part * weight[:, None]
        out = part if out is None else out + part
    assert out is not None
    return out


def affine_grid(
    theta: jax.Array, size: Sequence[int], align_corners: bool | None = None
) -> jax.Array:
    """The grid that maps an output's pixels into an input by affine maps.

    Args:
        theta: (N, 2, 3) or (N, 3, 4), floats.
        size: The output's, (N, C, H, W) or (N, C, D, H, W).
        align_corners: Whether -1 and 1 are the centres of the pixels at the edges; None: not.

    Returns:
        (N, H, W, 2) or (N, D, H, W, 3), for `grid_sample`.

    Raises:
        InputError: For shapes, dtypes and sizes that PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import affine_grid
        >>> same = jnp.array([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
        >>> affine_grid(same, (1, 1, 1, 2), align_corners=False).tolist()
        [[[[-0.5, 0.0], [0.5, 0.0]]]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.affine_grid.html
    """
    theta, rank = jnp.asarray(theta), len(size) - 2
    check_arguments(
        "affine_grid",
        size=(size, "4 or 5 numbers above 0", lambda v: len(v) in (4, 5) and min(v) > 0),
    )
    if theta.shape != (size[0], rank, rank + 1) or not jnp.issubdtype(theta.dtype, jnp.floating):
        raise InputError(
            f"affine_grid: theta is {theta.dtype}{theta.shape}, expected floats of shape "
            f"{(size[0], rank, rank + 1)}"
        )
    steps = []
    for n in size[2:]:
        line = jnp.linspace(-1, 1, n, dtype=theta.dtype) if n > 1 else jnp.zeros(1, theta.dtype)
        steps.append(line if align_corners else line * ((n - 1) / n))
    axes = jnp.meshgrid(*steps, indexing="ij")
    places = jnp.stack([*reversed(axes), jnp.ones_like(axes[0])], axis=-1)
    flat = places.reshape(-1, rank + 1)
    return (flat @ theta.swapaxes(1, 2)).reshape(size[0], *size[2:], rank)


def _unnormalized(place: jax.Array, size: int, align: bool) -> jax.Array:
    """From -1 to 1, to pixels."""
    return (place + 1) / 2 * (size - 1) if align else ((place + 1) * size - 1) / 2


def _padded(place: jax.Array, size: int, padding_mode: str, align: bool) -> jax.Array:
    """A place, moved into the image if it is to be."""
    if padding_mode == "zeros":
        return place
    if padding_mode == "reflection":
        place = _reflected(place, *((0.0, size - 1.0) if align else (-0.5, size - 0.5)))
    # at the edge itself the gradient is 0 already, as in PyTorch
    return jnp.where(place <= 0, 0, jnp.where(place >= size - 1, size - 1, place))


def _reflected(place: jax.Array, low: float, high: float) -> jax.Array:
    """A place, mirrored between two."""
    span = high - low
    if span == 0:
        return jnp.zeros_like(place)
    away = jnp.where(place < low, low - place, place - low)
    flips = jax.lax.stop_gradient(jnp.floor(away / span))
    rest = away - flips * span
    return jnp.where(flips % 2 == 0, rest + low, span - rest + low)


Tap = tuple[jax.Array, jax.Array | None]
"""A pixel's place on an axis, and its weight; None: 1."""


def _linear(place: jax.Array) -> list[Tap]:
    low = jax.lax.stop_gradient(jnp.floor(place))
    return [(low, low + 1 - place), (low + 1, place - low)]


def _cubic(place: jax.Array) -> list[Tap]:
    low = jax.lax.stop_gradient(jnp.floor(place))
    return [(low + i - 1, w) for i, w in enumerate(cubic_weights(place - low, -0.75))]


def _taken(x: jax.Array, spots: Sequence[jax.Array]) -> jax.Array:
    """(N, C, ...): the pixels at whole places, 0 where there are none."""
    sizes = x.shape[2:]
    place, known = jnp.zeros(spots[0].shape, int), jnp.ones(spots[0].shape, bool)
    for spot, size in zip(spots, sizes, strict=True):
        there = (spot >= 0) & (spot <= size - 1)
        place = place * size + jnp.where(there, spot, 0).astype(int)
        known = known & there
    flat = x.reshape(*x.shape[:2], math.prod(sizes))
    listed = place.reshape(len(x), 1, math.prod(place.shape[1:]))
    taken = jnp.take_along_axis(flat, listed, axis=2)
    return jnp.where(known[:, None], taken.reshape(*x.shape[:2], *place.shape[1:]), 0)


def _check(x: jax.Array, grid: jax.Array, mode: str, padding_mode: str) -> None:
    check_arguments(
        "grid_sample",
        mode=(mode, f"one of {_MODES}", lambda v: v in _MODES),
        padding_mode=(padding_mode, f"one of {_PADDINGS}", lambda v: v in _PADDINGS),
    )
    rank = x.ndim - 2
    fits = grid.ndim == x.ndim and len(grid) == len(x) and grid.shape[-1] == rank
    if rank not in ((2,) if mode == "bicubic" else (2, 3)) or not fits or 0 in x.shape[1:]:
        raise InputError(
            f"grid_sample: input is of shape {x.shape} and grid of {grid.shape}, expected (N, C, "
            "H, W) and (N, H', W', 2), or one axis more of both, but for bicubic; none empty but N"
        )
    if x.dtype != grid.dtype or not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(
            f"grid_sample: input is {x.dtype} and grid {grid.dtype}, expected the same floats"
        )
