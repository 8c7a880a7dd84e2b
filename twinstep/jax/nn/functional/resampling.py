"""Which entries of an axis each entry of the resampled one is made of, and their weights."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from twinstep.jax.nn.functional.windows import Positions, along, inside, windows

Floats = NDArray[Any]


class Taps(NamedTuple):
    """(K, O): of each entry, the positions of K others, below 0 for none, and their weights."""

    positions: Positions
    weights: Floats


def applied(x: jax.Array, axis: int, taps: Taps) -> jax.Array:
    """x with an axis resampled; what has no weight is not even looked at, were it infinite."""
    taken = windows(x, axis, taps.positions)
    known = along(inside(taps.positions, x.shape[axis]), axis, x.ndim)
    weights = jnp.asarray(along(taps.weights, axis, x.ndim), taken.dtype)
    return jnp.sum(jnp.where(known, taken * weights, 0), axis=0)


def scale_of(size: int, count: int, align: bool, factor: float | None, dtype: Any) -> Any:
    """How far on the input one step on the output goes, in a dtype: PyTorch rounds there."""
    if align:
        return dtype(size - 1) / dtype(count - 1) if count > 1 else dtype(0)
    return dtype(1 / factor) if factor else dtype(size) / dtype(count)


def nearest(size: int, count: int, factor: float | None, exact: bool, dtype: Any) -> Positions:
    """(1, O): the entry that stands for each."""
    scale, steps = scale_of(size, count, False, factor, dtype), np.arange(count).astype(dtype)
    half = dtype(0.5)
    source = (scale * (steps + half) - half) + half if exact else scale * steps
    whole = np.floor(source.astype(np.float32)).astype(np.intp)
    return np.asarray(np.minimum(whole, size - 1)[None])


def linear(size: int, count: int, factor: float | None, align: bool, dtype: Any) -> Taps:
    """Two neighbours."""
    if size == count:
        return _same(size, dtype)
    source = _source(size, count, factor, align, dtype)
    source = np.maximum(source, dtype(0))
    low = np.minimum(source.astype(np.intp), size - 1)
    share = np.clip(source - low.astype(dtype), dtype(0), dtype(1))
    high = low + (low < size - 1)
    return Taps(np.stack([low, high]), np.stack([1 - share, share]))


def cubic(size: int, count: int, factor: float | None, align: bool, dtype: Any) -> Taps:
    """Four neighbours; those beyond the edge are its own."""
    source = _source(size, count, factor, align, dtype)
    low = np.floor(source)
    weights = np.stack(cubic_weights(np.clip(source - low, dtype(0), dtype(1)), dtype(-0.75)))
    positions = low.astype(np.intp) + np.arange(-1, 3)[:, None]
    return Taps(np.clip(positions, 0, size - 1), weights.astype(dtype))


def cubic_weights(share: Any, a: Any) -> list[Any]:
    """Keys' weights of the four neighbours, `share` of the way from the second to the third."""

    def near(x: Any) -> Any:
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x: Any) -> Any:
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    return [far(share + 1), near(share), near(1 - share), far(2 - share)]


def antialiased(
    size: int, count: int, factor: float | None, align: bool, dtype: Any, mode: str
) -> Taps:
    """As many neighbours as a filter of the output's step reaches."""
    reach, kernel = FILTERS[mode]
    scale = scale_of(size, count, align, factor, dtype)
    wide = max(scale, dtype(1))
    support = dtype(reach) * wide
    center = scale * (np.arange(count).astype(dtype) + dtype(0.5))
    start = np.maximum((center - support + dtype(0.5)).astype(np.intp), 0)
    end = np.minimum((center + support + dtype(0.5)).astype(np.intp), size)
    positions = start + np.arange((end - start).max())[:, None]
    known = positions < end
    offset = (positions.astype(dtype) - center + dtype(0.5)) * (dtype(1) / wide)
    weights = np.where(known, kernel(offset), dtype(0)).astype(dtype)
    total = weights.sum(axis=0)
    weights = weights / np.where(total == 0, dtype(1), total)
    return Taps(np.where(known, positions, -1), weights)


def _source(size: int, count: int, factor: float | None, align: bool, dtype: Any) -> Floats:
    """Where on the input each entry of the output is."""
    scale, steps = scale_of(size, count, align, factor, dtype), np.arange(count).astype(dtype)
    half = dtype(0.5)
    return np.asarray(scale * steps if align else scale * (steps + half) - half)


def _same(size: int, dtype: Any) -> Taps:
    positions = np.arange(size)
    return Taps(np.stack([positions] * 2), np.stack([np.ones(size), np.zeros(size)]).astype(dtype))


def _triangle(x: Floats) -> Floats:
    return np.asarray(np.maximum(1 - np.abs(x), 0))


def _keys(x: Floats) -> Floats:
    size = np.abs(x)
    near = (1.5 * size - 2.5) * size * size + 1
    far = ((-0.5 * size + 2.5) * size - 4) * size + 2
    return np.where(size < 1, near, np.where(size < 2, far, 0))


def _lanczos(x: Floats) -> Floats:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


FILTERS: dict[str, tuple[int, Callable[[Floats], Floats]]] = {
    "bilinear": (1, _triangle),
    "bicubic": (2, _keys),
    "lanczos": (3, _lanczos),
}
"""{mode: (how far a filter reaches, the filter)}"""
