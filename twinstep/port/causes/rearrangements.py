"""Orders in which an array's entries may lie by mistake: transposed, flipped, in other blocks.

Each is tried on a few entries first, and holds for all of them or not at all.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Ratio = Callable[[np.ndarray, np.ndarray], float]
"""How far the second array is from the first, in what is allowed: at most 1 is the same."""

_SAMPLE = 64
_MAX_AXES = 5
_BLOCKS = (2, 3, 4)
_GATES = {"GRU": ("r", "z", "n"), "LSTM": ("i", "f", "g", "o")}
_FUSED = ("qkv", "in_proj", "c_attn", "query_key_value")


@dataclass(frozen=True)
class Rearrangement:
    """PyTorch's array looked at in a view, some axes of it the other way round or in another order.

    kind: such as "transposed"; says: what a leaf is then, in words
    blocks: the order of the entries of the view's first axis; then all else is as it is
    """

    kind: str
    says: str
    view: tuple[int, ...]
    axes: tuple[int, ...]
    flip: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()

    def of(self, array: np.ndarray) -> np.ndarray:
        """The array so, in the view's shape: a reshape away from its own."""
        seen = array.reshape(self.view)
        if self.blocks:
            seen = seen[list(self.blocks)]
        if self.flip:
            way = (slice(None, None, -1 if i in self.flip else 1) for i in range(seen.ndim))
            seen = seen[tuple(way)]
        return seen.transpose(self.axes)

    def shape(self) -> tuple[int, ...]:
        """Of what `of` gives."""
        return tuple(self.view[axis] for axis in self.axes)

    def entries(self, array: np.ndarray, index: tuple[np.ndarray, ...]) -> np.ndarray:
        """Some entries of what `of` gives, without making the others."""
        found: np.ndarray
        if not self.blocks:
            found = self.of(array)[index]
            return found
        found = array.reshape(self.view)[(np.array(self.blocks)[index[0]], *index[1:])]
        return found


@dataclass(frozen=True)
class Names:
    """What the parts of a leaf are called.

    blocks: of its rows, such as the gates' ("r", "z", "n")
    channels: how many channels of a convolution its columns are, flattened; 0: they are not
    """

    blocks: tuple[str, ...] = ()
    channels: int = 0


def names_of(leaf: str, shapes: Mapping[str, tuple[int, ...]], modules: Mapping[str, Any]) -> Names:
    """What is known of a leaf of PyTorch's by its name, its layer and the other leaves' shapes.

    shapes: {PyTorch's name: shape}, in the model's order
    modules: {path: class and settings}, as a trace has them
    """
    layer, _, last = leaf.rpartition(".")
    kind = str(modules.get(layer, "")).partition("(")[0]
    blocks: tuple[str, ...] = ()
    if "_ih" in last or "_hh" in last:
        blocks = _GATES.get(kind.removesuffix("Cell"), ())
    elif any(part in leaf for part in _FUSED):
        blocks = ("q", "k", "v")
    return Names(blocks, _channels_before(leaf, shapes))


def _channels_before(leaf: str, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """How many channels the convolution gives that a matrix comes next after; 0: it does not."""
    channels = 0
    for name, shape in shapes.items():
        if name == leaf:
            return channels if len(shape) == 2 else 0
        if len(shape) > 1:
            channels = shape[0] if len(shape) > 2 else 0
    return 0


def fitting(
    one: np.ndarray, other: np.ndarray, ratio: Ratio, names: Names
) -> list[tuple[Rearrangement, float]]:
    """The rearrangements of one array that are another one, and how far that is from each.

    Of several that move all entries alike the first, which is the plainest.
    """
    if one.size < 2 or one.shape != other.shape:
        return []
    one, other = np.ascontiguousarray(one), np.ascontiguousarray(other)
    found: list[tuple[Rearrangement, float]] = []
    moved: list[np.ndarray] = []
    places = np.unique(np.linspace(0, one.size - 1, min(_SAMPLE, one.size)).astype(int))
    for each in _candidates(one.shape, names):
        theirs = other.reshape(each.shape())
        index = np.unravel_index(places, theirs.shape)
        if not ratio(each.entries(one, index), theirs[index]) <= 1:
            continue
        apart = ratio(each.of(one), theirs)
        if apart <= 1:
            order = each.of(np.arange(one.size).reshape(one.shape)).reshape(-1)
            if not any(np.array_equal(order, known) for known in moved):
                moved.append(order)
                found.append((each, apart))
    return found


def _candidates(shape: tuple[int, ...], names: Names) -> Iterator[Rearrangement]:
    if len(shape) <= _MAX_AXES:
        yield from _orders_of_axes(shape)
        yield from _flips(shape)
    yield from _orders_of_blocks(shape, names)
    yield from _blocks_transposed(shape)
    for axis in range(min(len(shape), 2)):
        yield from _regrouped(shape, axis, names)


def _orders_of_axes(shape: tuple[int, ...]) -> Iterator[Rearrangement]:
    own = tuple(range(len(shape)))
    for axes in itertools.permutations(own):
        if axes != own and tuple(shape[i] for i in axes) == shape:
            if len(shape) == 2:
                yield Rearrangement("transposed", "PyTorch's transposed", shape, axes)
            else:
                says = f"PyTorch's with its axes in the order {axes}"
                yield Rearrangement("axes in another order", says, shape, axes)


def _flips(shape: tuple[int, ...]) -> Iterator[Rearrangement]:
    own = tuple(range(len(shape)))
    long = [axis for axis in own if shape[axis] > 1]
    for count in range(1, len(long) + 1):
        for flip in itertools.combinations(long, count):
            which = f"axis {flip[0]}" if count == 1 else f"axes {_listed(flip)}"
            yield Rearrangement("flipped", f"PyTorch's flipped along {which}", shape, own, flip)


def _orders_of_blocks(shape: tuple[int, ...], names: Names) -> Iterator[Rearrangement]:
    """Gates, or q, k and v, in another order."""
    for count in sorted(_BLOCKS, key=lambda count: count != len(names.blocks)):
        if not shape or shape[0] % count or shape[0] == count:
            continue
        view = (count, shape[0] // count, *shape[1:])
        known = len(names.blocks) == count
        of = names.blocks if known else tuple(str(i) for i in range(count))
        for order in itertools.permutations(range(count)):
            if order != tuple(range(count)):
                what = "" if known else f" of {count} parts of its rows"
                says = (
                    f"PyTorch's in the order {', '.join(of[i] for i in order)}{what}, "
                    f"for {', '.join(of)}"
                )
                yield Rearrangement(
                    "parts in another order", says, view, tuple(range(len(view))), (), order
                )


def _blocks_transposed(shape: tuple[int, ...]) -> Iterator[Rearrangement]:
    """A weight that consists of square ones, each transposed."""
    if len(shape) == 2 and shape[1] > 1 and shape[0] > shape[1] and not shape[0] % shape[1]:
        count = shape[0] // shape[1]
        says = f"PyTorch's with each of its {count} square parts transposed"
        yield Rearrangement("transposed", says, (count, shape[1], shape[1]), (0, 2, 1))


def _regrouped(shape: tuple[int, ...], axis: int, names: Names) -> Iterator[Rearrangement]:
    """Rows or columns that are taken as (x, y, z, w), and are (x, z, y, w)."""
    size, what = shape[axis], ("rows", "columns")[axis]
    for x, y, z, w in _products(size):
        view = (*shape[:axis], x, y, z, w, *shape[axis + 1 :])
        axes = list(range(len(view)))
        axes[axis + 1], axes[axis + 2] = axis + 2, axis + 1
        theirs = tuple(n for i, n in enumerate((x, y, z, w)) if n > 1 or i in (1, 2))
        ours = tuple(n for i, n in enumerate((x, z, y, w)) if n > 1 or i in (1, 2))
        if axis and x == w == 1 and y == names.channels:
            kind = "flatten order"
            says = f"PyTorch's with its {what} flattened channels ({y}) last, for channels first"
        elif axis and x == w == 1 and z == names.channels:
            kind = "flatten order"
            says = f"PyTorch's with its {what} flattened channels ({z}) first, for channels last"
        else:
            kind = "split otherwise"
            says = f"PyTorch's with its {what} taken as {theirs} and turned to {ours}"
        yield Rearrangement(kind, says, view, tuple(axes))


def _products(size: int) -> Iterator[tuple[int, int, int, int]]:
    """(x, y, z, w) whose product it is, y and z more than 1; those with x = w = 1 first."""
    found = []
    for x in _divisors(size):
        for y in _divisors(size // x):
            for z in _divisors(size // x // y):
                if y > 1 and z > 1:
                    found.append((x, y, z, size // x // y // z))
    yield from sorted(found, key=lambda p: (p[0] > 1) + (p[3] > 1))


def _divisors(number: int) -> list[int]:
    low = [i for i in range(1, math.isqrt(number) + 1) if number % i == 0]
    return sorted({*low, *(number // i for i in low)})


def _listed(items: tuple[int, ...]) -> str:
    return " and ".join(filter(None, [", ".join(map(str, items[:-1])), str(items[-1])]))
