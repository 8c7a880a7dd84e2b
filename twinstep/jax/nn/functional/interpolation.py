"""torch.nn.functional.interpolate, and the older names of it."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn.functional import resampling
from twinstep.jax.nn.functional.windows import adaptive, along, inside, sum_over, windows

__all__ = ["interpolate", "upsample", "upsample_bilinear", "upsample_nearest"]

Size = int | Sequence[int] | None
Factor = float | Sequence[float] | None

_RANKS = {
    "nearest": (1, 2, 3),
    "nearest-exact": (1, 2, 3),
    "area": (1, 2, 3),
    "linear": (1,),
    "bilinear": (2,),
    "bicubic": (2,),
    "lanczos": (2,),
    "trilinear": (3,),
}
"""{mode: how many axes it resamples}"""


def interpolate(
    input: jax.Array,
    size: Size = None,
    scale_factor: Factor = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> jax.Array:
    """The input resampled to a size, or by a factor.

    Without antialias every output looks at its nearest inputs alone, however small the output.

    Args:
        input: (N, C, L), (N, C, H, W) or (N, C, D, H, W), floats; uint8 too for the nearest.
        size: The output's, a number or one for each axis; or
        scale_factor: what the input's is multiplied with and rounded down, the same.
        mode: "nearest", "nearest-exact", "area"; "linear" for 1 axis, "bilinear", "bicubic" and
            "lanczos" for 2, "trilinear" for 3.
        align_corners: Whether the first and last entries' centres stay where they are, and not the
            edges; for the modes of the second kind alone.
        recompute_scale_factor: Whether the sizes' ratio is gone by, and not scale_factor.
        antialias: Whether a smaller output is a mean over all of the input; "bilinear", "bicubic";
            "lanczos" needs it.

    Returns:
        (N, C, ...).

    Raises:
        InputError: For shapes, sizes and modes that PyTorch refuses; integers, but uint8 nearest.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import interpolate
        >>> interpolate(jnp.array([[[1.0, 2.0]]]), size=4, mode="linear").tolist()
        [[[1.0, 1.25, 1.75, 2.0]]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.interpolate.html
    """
    return _interpolated(
        "interpolate",
        jnp.asarray(input),
        size,
        scale_factor,
        mode,
        align_corners,
        recompute_scale_factor,
        antialias,
    )


def upsample(
    input: jax.Array,
    size: Size = None,
    scale_factor: Factor = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> jax.Array:
    """`interpolate`, by its old name.

    Args:
        input, size, scale_factor, mode, align_corners: As of `interpolate`.

    Returns:
        (N, C, ...).

    Raises:
        InputError: As `interpolate`.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import upsample
        >>> upsample(jnp.array([[[1.0, 2.0]]]), scale_factor=2).tolist()
        [[[1.0, 1.0, 2.0, 2.0]]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.upsample.html
    """
    return _interpolated(
        "upsample", jnp.asarray(input), size, scale_factor, mode, align_corners, None, False
    )


def upsample_nearest(input: jax.Array, size: Size = None, scale_factor: Factor = None) -> jax.Array:
    """`interpolate` with mode "nearest".

    Args:
        input, size, scale_factor: As of `interpolate`.

    Returns:
        (N, C, ...).

    Raises:
        InputError: As `interpolate`.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import upsample_nearest
        >>> upsample_nearest(jnp.array([[[1.0, 2.0]]]), scale_factor=2).tolist()
        [[[1.0, 1.0, 2.0, 2.0]]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.upsample_nearest.html
    """
    return _interpolated(
        "upsample_nearest", jnp.asarray(input), size, scale_factor, "nearest", None, None, False
    )


def upsample_bilinear(
    input: jax.Array, size: Size = None, scale_factor: Factor = None
) -> jax.Array:
    """`interpolate` with mode "bilinear" and align_corners.

    Args:
        input: (N, C, H, W), floats.
        size, scale_factor: As of `interpolate`.

    Returns:
        (N, C, H, W).

    Raises:
        InputError: As `interpolate`.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import upsample_bilinear
        >>> upsample_bilinear(jnp.array([[[[1.0, 3.0]]]]), size=(1, 3)).tolist()
        [[[[1.0, 2.0, 3.0]]]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.upsample_bilinear.html
    """
    return _interpolated(
        "upsample_bilinear", jnp.asarray(input), size, scale_factor, "bilinear", True, None, False
    )


def _interpolated(
    name: str,
    x: jax.Array,
    size: Size,
    scale_factor: Factor,
    mode: str,
    align_corners: bool | None,
    recompute: bool | None,
    antialias: bool,
) -> jax.Array:
    _check(name, x, mode, align_corners, antialias)
    sizes = x.shape[2:]
    counts, factors = _counts(name, sizes, size, scale_factor)
    if recompute or mode == "area":
        if size is not None and recompute:
            raise InputError(f"{name}: recompute_scale_factor is {recompute}, expected no size")
        factors = (None,) * len(sizes)
    if mode == "area":
        return _area(x, counts)
    wide = np.float64 if x.dtype == jnp.float64 else np.float32  # halves are weighed in float32
    dtype, given = np.dtype(wide).type, x.dtype
    x = x if mode.startswith("nearest") else x.astype(dtype)
    for axis, length, count, factor in zip(range(2, x.ndim), sizes, counts, factors, strict=True):
        if mode.startswith("nearest"):
            x = windows(
                x, axis, resampling.nearest(length, count, factor, mode != "nearest", dtype)
            )[0]
            continue
        align = bool(align_corners)
        if antialias and length == count:
            continue
        if antialias:
            taps = resampling.antialiased(length, count, factor, align, dtype, mode)
        else:
            kind = resampling.cubic if mode == "bicubic" else resampling.linear
            taps = kind(length, count, factor, align, dtype)
        x = resampling.applied(x, axis, taps)
    return x.astype(given)


def _area(x: jax.Array, counts: tuple[int, ...]) -> jax.Array:
    """The means of windows that cover each axis."""
    positions = [adaptive(size, n) for size, n in zip(x.shape[2:], counts, strict=True)]
    x = sum_over(x, positions)
    for axis, spots in enumerate(positions, start=2):
        number = np.sum(inside(spots, spots.max() + 1), axis=0)
        x = x / jnp.asarray(along(number, axis, x.ndim)[0], x.dtype)
    return x


def _check(name: str, x: jax.Array, mode: str, align_corners: bool | None, antialias: bool) -> None:
    check_arguments(
        name,
        mode=(mode, f"one of {tuple(_RANKS)}", lambda v: v in _RANKS),
        antialias=(
            antialias,
            f"{mode == 'lanczos'} with mode {mode!r}",
            lambda v: mode in ("bilinear", "bicubic") or bool(v) == (mode == "lanczos"),
        ),
        align_corners=(
            align_corners,
            f"none with mode {mode!r}",
            lambda v: (
                not (v is not None and mode in ("nearest", "nearest-exact", "area"))
                and not (v and mode == "lanczos")
            ),
        ),
    )
    ranks = _RANKS[mode]
    if x.ndim - 2 not in ranks or 0 in x.shape[1:]:
        raise InputError(
            f"{name}: input is of shape {x.shape}, expected (N, C, ...) with one of {ranks} axes "
            f"more for mode {mode!r}, none but N empty"
        )
    plain = x.dtype == jnp.uint8 and mode in ("nearest", "nearest-exact")
    if not plain and not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(f"{name}: input is {x.dtype}, expected floats")


def _counts(
    name: str, sizes: tuple[int, ...], size: Size, scale_factor: Factor
) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    """The output's lengths, and the factors where they are given."""
    if (size is None) == (scale_factor is None):
        raise InputError(
            f"{name}: size is {size} and scale_factor {scale_factor}, expected one of them"
        )
    given = scale_factor if size is None else size
    each: list[Any] = list(given) if isinstance(given, list | tuple) else [given] * len(sizes)
    if len(each) != len(sizes):
        raise InputError(f"{name}: size or scale_factor is {given}, expected {len(sizes)} numbers")
    if size is None:
        counts = [int(length * factor) for length, factor in zip(sizes, each, strict=True)]
    else:
        counts = each
    if not all(isinstance(v, int | np.integer) and v > 0 for v in counts):
        raise InputError(
            f"{name}: size or scale_factor is {given}, expected an output of some size"
        )
    factors = each if size is None else [None] * len(sizes)
    return tuple(int(v) for v in counts), tuple(factors)
