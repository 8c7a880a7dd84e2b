"""Sliding windows, an axis at a time: where their entries are, what stands there, the largest."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from twinstep.errors import InputError

Sizes = int | Sequence[int]
"""One number for all axes, or one for each."""

Positions = NDArray[np.intp]
"""(K, O): where the K entries of each of O windows are; off the axis: nowhere."""


def per_axis(name: str, rank: int, argument: str, value: Any, least: int = 1) -> tuple[int, ...]:
    """An integer for each axis."""
    given = tuple(value) if isinstance(value, list | tuple | np.ndarray) else (value,)
    spread = given * rank if len(given) == 1 else given
    whole = all(isinstance(v, int | np.integer) and v >= least for v in spread)
    if len(spread) != rank or not whole:
        raise InputError(
            f"{name}: {argument} is {value!r}, expected an integer from {least} on, or {rank} of "
            "them"
        )
    return tuple(int(v) for v in spread)


def with_batch(name: str, rank: int, input: jax.Array) -> tuple[jax.Array, bool]:
    """(N, C, ...), and whether the batch axis was there; only the batch may be empty."""
    batched = input.ndim == rank + 2
    if input.ndim not in (rank + 1, rank + 2) or 0 in input.shape[batched:]:
        raise InputError(
            f"{name}: input is of shape {input.shape}, expected (N, C, ...) or (C, ...) with "
            f"{rank} axes more, none but N empty"
        )
    return (input if batched else input[None]), batched


def regular(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool) -> int:
    """How many windows there are on an axis."""
    free = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (free + (stride - 1 if ceil else 0)) // stride + 1
    # the last one has to start inside the input or the padding before it
    return count - 1 if ceil and (count - 1) * stride >= size + padding else count


def sliding(count: int, kernel: int, stride: int, padding: int, dilation: int) -> Positions:
    """The positions of windows that move by a stride."""
    return np.arange(count) * stride - padding + dilation * np.arange(kernel)[:, None]


def adaptive(size: int, count: int) -> Positions:
    """The positions of `count` windows that cover an axis, of lengths that may differ by one."""
    windows = np.arange(count)
    start, end = windows * size // max(count, 1), -(-(windows + 1) * size // max(count, 1))
    positions = start + np.arange(max(end - start, default=0))[:, None]
    return np.where(positions < end, positions, -1)


def inside(positions: Positions, size: int) -> NDArray[np.bool_]:
    """Which positions are on the axis."""
    return (positions >= 0) & (positions < size)


def along(array: Any, axis: int, ndim: int) -> Any:
    """(K, O) as (K, 1, ..., O, ..., 1), for what is of `ndim` axes besides the first."""
    shape = [1] * ndim
    shape[axis] = array.shape[-1]
    return array.reshape(-1, *shape)


def windows(x: jax.Array, axis: int, positions: Positions, fill: Any = 0) -> jax.Array:
    """x with its windows' entries as the first axis: (K, ..., O, ...), `fill` where there are none.

    Slices where the windows are regular: the gradient of a gather is slow.
    """
    (kernel, count), size = positions.shape, x.shape[axis]
    flat = positions.T.ravel()
    if inside(positions, size).all() and (np.diff(flat) == 1).all() and flat.size:
        part = jax.lax.slice_in_dim(x, flat[0], flat[-1] + 1, axis=axis)
        split = part.reshape(*x.shape[:axis], count, kernel, *x.shape[axis + 1 :])
        return jnp.moveaxis(split, axis + 1, 0)
    steps = np.diff(positions, axis=1)
    stride = int(steps[0, 0]) if steps.size else 1
    if flat.size and stride > 0 and (steps == stride).all():
        low, high = max(0, -positions.min()), max(0, positions.max() + 1 - size)
        edges = [(0, 0, 0)] * x.ndim
        edges[axis] = (low, high, 0)
        padded = jax.lax.pad(x, jnp.asarray(fill, x.dtype), edges)
        slices = [
            jax.lax.slice_in_dim(padded, start, start + stride * (count - 1) + 1, stride, axis)
            for start in (positions[:, 0] + low).tolist()
        ]
        return jnp.stack(slices)
    there = inside(positions, size)
    taken = jnp.take(x, np.where(there, positions, 0).ravel(), axis=axis)
    split = taken.reshape(*x.shape[:axis], kernel, count, *x.shape[axis + 1 :])
    return jnp.where(along(there, axis, x.ndim), jnp.moveaxis(split, axis, 0), fill)


def first_largest(
    values: jax.Array, places: jax.Array | None, known: NDArray[np.bool_]
) -> tuple[jax.Array, jax.Array | None]:
    """The largest along the first axis, and what `places` has there.

    As in PyTorch, whose gradient goes to that one alone: of equal ones the first, of NaNs the last.

    Args:
        values: (K, ...).
        places: The same shape, or one that broadcasts to it.
        known: (K, ...), broadcast too: which of them count, if any does.
    """
    while len(values) > 1:
        pairs = len(values) // 2 * 2
        first, second = values[:pairs:2], values[1:pairs:2]
        before, after = known[:pairs:2], known[1:pairs:2]
        later = after & (~before | (second > first) | (second != second))
        values = jnp.concatenate([jnp.where(later, second, first), values[pairs:]])
        known = np.concatenate([before | after, known[pairs:]])
        if places is not None:
            chosen = jnp.where(later, places[1:pairs:2], places[:pairs:2])
            rest = jnp.broadcast_to(places[pairs:], (len(places) - pairs, *chosen.shape[1:]))
            places = jnp.concatenate([chosen, rest])
    return values[0], None if places is None else places[0]


def lowest(dtype: Any) -> Any:
    """What no number of a dtype is below."""
    return -np.inf if jnp.issubdtype(dtype, jnp.inexact) else np.iinfo(dtype).min


def places_of(spatial: tuple[int, ...], leading: int) -> jax.Array:
    """PyTorch's number of each entry, (1, ..., *spatial): the channels and samples apart."""
    return jnp.arange(int(np.prod(spatial))).reshape((1,) * leading + spatial)


def max_over(
    x: jax.Array, positions: Sequence[Positions], indices: bool
) -> tuple[jax.Array, jax.Array | None]:
    """The first largest of each window on the last axes, and where it is; None if not asked for."""
    leading = x.ndim - len(positions)
    places = places_of(x.shape[leading:], leading) if indices else None
    for i in reversed(range(len(positions))):  # the last axis first: in the order of the places
        axis, spots = leading + i, positions[i]
        known = along(inside(spots, x.shape[axis]), axis, x.ndim)
        taken = windows(x, axis, spots, lowest(x.dtype))
        found = None if places is None else windows(places, axis, spots)
        x, places = first_largest(taken, found, known)
    shape = x.shape
    return x, None if places is None else jnp.broadcast_to(places, shape)


def sum_over(x: jax.Array, positions: Sequence[Positions]) -> jax.Array:
    """The sum of each window on the last axes."""
    for i, spots in enumerate(positions):
        x = jnp.sum(windows(x, x.ndim - len(positions) + i, spots), axis=0, dtype=x.dtype)
    return x
