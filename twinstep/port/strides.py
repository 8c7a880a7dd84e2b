"""Where a leaf's entries come from, as boxes of PyTorch's tensors in some view and order of axes.

Entries are looked up one line along each axis at a time; what the lines say is checked on all
entries. Where a line breaks, as between gates or fused tensors, the leaf is cut.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from twinstep.port.lines import Line
from twinstep.port.pieces import Box, Piece, slices
from twinstep.port.pools import UNKNOWN, Pool, Reading

MAX_PIECES = 512
_BASES = 8  # places from which a line is tried: some entries are not unique


class Dim(NamedTuple):
    """An axis of a strided view."""

    size: int
    stride: int


def pieces_of(leaf: np.ndarray, pool: Pool) -> list[Piece] | None:
    """What a leaf is made of; None where that cannot be told from its values."""
    if not leaf.size or not pool.may_hold(leaf):
        return None
    done: list[Piece] = []
    todo = [tuple((0, size) for size in leaf.shape)]
    while todo:
        box = todo.pop()
        found = _strided(leaf, box, pool)
        if found is None or len(done) + len(todo) > MAX_PIECES:
            return None
        if isinstance(found, Piece):
            done.append(found)
            continue
        axis, place = found
        low, high = box[axis]
        first, second = list(box), list(box)
        first[axis], second[axis] = (low, low + place), (low + place, high)
        todo += [tuple(second), tuple(first)]
    return done


def _strided(leaf: np.ndarray, box: Box, pool: Pool) -> Piece | tuple[int, int] | None:
    """A box as one view of one tensor; or along which axis it is to be cut, and where."""
    part = leaf[slices(box)]
    for reading in pool.readings(part):
        if (found := _read(part, box, pool, reading)) is not None:
            return found
    return None


def _read(
    part: np.ndarray, box: Box, pool: Pool, reading: Reading
) -> Piece | tuple[int, int] | None:
    """The same by one way to look entries up."""
    dims: list[list[Dim]] = []
    anchor: tuple[tuple[int, ...], int] | None = None
    for axis, size in enumerate(part.shape):
        line = _line(part, axis, pool, reading)
        if line is None:
            return None
        base, numbers = line
        anchor = anchor or (base, int(numbers[base[axis]]))
        owners = pool.owners(numbers)
        other = np.flatnonzero(owners != owners[0])
        run = int(other[0]) if len(other) else size
        of_axis, run = radix(numbers[:run])
        if run < size:
            return axis, run
        dims.append(of_axis)
    if anchor is None:  # no axis
        number = int(reading.find((), None))
        if number == UNKNOWN:
            return None
        anchor = ((), number)
    at, number = anchor
    origin = number - sum(_offset(d, i) for d, i in zip(dims, at, strict=True))
    name = pool.of(number)
    piece = piece_of(name, pool, origin - pool.starts[name], dims, box)
    if piece is None:  # blocks that are no view: one by one
        several = [axis for axis, of_axis in enumerate(dims) if len(of_axis) > 1]
        return (several[0], part.shape[several[0]] // dims[several[0]][0].size) if several else None
    seen = piece.cut(pool.arrays[name].reshape(pool.shapes[name]), 0)
    agree = pool.agree(name, seen, part)
    if agree.all():
        return piece
    # the lines agree, the whole does not: cut where it first differs, if that is not at the edge
    wrong = np.unravel_index(int(np.argmin(agree)), agree.shape)
    for axis, place in enumerate(map(int, wrong)):
        if place:
            return axis, place
    return None


def _line(
    part: np.ndarray, axis: int, pool: Pool, reading: Reading
) -> tuple[tuple[int, ...], np.ndarray] | None:
    """Where the entries along an axis are, all of them known; and from where on it was looked."""
    draws = np.random.RandomState(0)
    base = [0] * part.ndim
    for _ in range(_BASES):
        index = tuple(slice(None) if a == axis else i for a, i in enumerate(base))
        line = Line(part[index], reading.find(tuple(base), axis), pool)
        if (numbers := line.numbers()) is not None:
            return tuple(base), numbers
        base = [int(draws.randint(size)) for size in part.shape]
    return None


def radix(numbers: np.ndarray) -> tuple[list[Dim], int]:
    """A line as nested strides, outermost first, and how many of its entries they explain."""
    dims: list[Dim] = []
    left = numbers
    while len(left) > 1:
        steps = np.diff(left)
        breaks = np.flatnonzero(steps != steps[0])
        run = int(breaks[0]) + 1 if len(breaks) else len(left)
        if len(left) % run:
            return _explained(numbers, [Dim(run, int(steps[0])), *dims])
        dims.insert(0, Dim(run, int(steps[0])))
        left = left[::run]
    return _explained(numbers, dims)


def _explained(numbers: np.ndarray, dims: list[Dim]) -> tuple[list[Dim], int]:
    said = numbers[0] + sum(
        (np.expand_dims(np.arange(d.size) * d.stride, [*range(1, len(dims) - i)]))
        for i, d in enumerate(dims)
    )
    said = np.asarray(said).reshape(-1)
    wrong = np.flatnonzero(said != numbers[: len(said)])
    return dims, int(wrong[0]) if len(wrong) else len(said)


def _offset(dims: Sequence[Dim], place: int) -> int:
    """How far an entry of an axis is from its first."""
    total = 0
    for dim in reversed(dims):
        place, digit = divmod(place, dim.size)
        total += digit * dim.stride
    return total


def piece_of(
    name: str, pool: Pool, start: int, dims: Sequence[Sequence[Dim]], at: Box
) -> Piece | None:
    """Strides in a tensor as a view, a box of it and an order of axes; None where they are none."""
    size = math.prod(pool.shapes[name])
    signed = [dim for of_axis in dims for dim in of_axis if dim.size > 1]
    if any(dim.stride == 0 for dim in signed):
        return None
    start += sum(min(0, (dim.size - 1) * dim.stride) for dim in signed)
    flat = [Dim(dim.size, abs(dim.stride)) for dim in signed]
    order = sorted(range(len(flat)), key=lambda i: -flat[i].stride)
    view, take, left, extent = [], [], start, size
    for i in order:
        count, stride = flat[i]
        if extent % stride:
            return None
        view.append(extent // stride)
        first, left = divmod(left, stride)
        take.append((first, first + count))
        extent = stride
    if extent > 1:
        view.append(extent)
        take.append((left, left + 1))
    if any(stop > n for (_, stop), n in zip(take, view, strict=True)):
        return None
    places = [order.index(i) for i in range(len(flat))]
    flip = tuple(sorted(places[i] for i, dim in enumerate(signed) if dim.stride < 0))
    places += [len(flat)] * (extent > 1)
    piece = Piece(name, tuple(view), tuple(take), tuple(places), at, flip)
    return plainest(piece, pool.shapes[name])


def plainest(piece: Piece, shape: tuple[int, ...]) -> Piece:
    """The same piece in the tensor's own axes, where these will do.

    A view has an axis for each stride: of the tensor's own axes it may have cut some, joined some
    that stand beside each other, and left out those of one entry.
    """
    if piece.view == shape or piece.flip:
        return piece
    edges = [math.prod(shape[i:]) for i in range(len(shape) + 1)]
    cuts = {math.prod(piece.view[i:]) for i in range(len(piece.view) + 1)}
    if not cuts <= set(edges):
        return piece  # it looks inside an axis
    take, of_axis = [], []
    for axis, (start, stop) in enumerate(piece.take):
        low, high = (math.prod(piece.view[axis + i :]) for i in (0, 1))
        own = [i for i in range(len(shape)) if shape[i] > 1 and high < edges[i] <= low]
        if len(own) > 1 and (start, stop) != (0, piece.view[axis]):
            inner = edges[own[0] + 1] // high
            if start % inner or stop % inner:
                return piece
            take += [(start // inner, stop // inner), *((0, shape[i]) for i in own[1:])]
        else:
            take += [(start, stop)] if len(own) == 1 else [(0, shape[i]) for i in own]
        of_axis.append(own)
    kept = [i for i in range(len(shape)) if shape[i] > 1]
    runs = dict(zip(kept, take, strict=True))
    ones = [i for i in range(len(shape)) if shape[i] == 1]
    axes = (*(i for axis in piece.axes for i in of_axis[axis]), *ones)
    return Piece(
        piece.of, shape, tuple(runs.get(i, (0, 1)) for i in range(len(shape))), axes, piece.at
    )
