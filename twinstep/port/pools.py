"""Entries of PyTorch's tensors, numbered through, to be found by what they are.

By its value alone first. In float32 many values are drawn twice, in bfloat16 nearly all: there an
entry is looked up together with those that follow it along an axis.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

UNKNOWN = -1
_SAMPLE = 64  # entries of a leaf that are looked up before all else
_FOLLOWING = 4  # entries that are looked up together: of bfloat16 64 bits


class Index:
    """Keys of entries, to be looked up: which is the only one."""

    def __init__(self, keys: np.ndarray, numbers: np.ndarray | None = None) -> None:
        order = np.argsort(keys)
        self.sorted, self.numbers = keys[order], order if numbers is None else numbers[order]

    def bounds(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """From where to where each key stands."""
        low = np.searchsorted(self.sorted, keys, "left")
        return low, np.searchsorted(self.sorted, keys, "right")

    def find(self, keys: np.ndarray) -> np.ndarray:
        """The number of the entry that has each of some keys; UNKNOWN: none has, or several."""
        if not len(self.sorted):
            return np.full(keys.shape, UNKNOWN)
        low, high = self.bounds(keys)
        found = self.numbers[np.minimum(low, len(self.numbers) - 1)]
        return np.where(high - low == 1, found, UNKNOWN)


@dataclass
class Pool:
    """Entries of several of PyTorch's tensors.

    shapes: of the tensors; arrays: {name: its entries, flat}
    """

    shapes: Mapping[str, tuple[int, ...]]
    arrays: Mapping[str, np.ndarray]
    _followed: dict[tuple[int, int], Index] = field(default_factory=dict)
    _index: Index | None = None

    def __post_init__(self) -> None:
        self.names = list(self.arrays)
        sizes = [self.arrays[name].size for name in self.names]
        self.edges = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self.starts = dict(zip(self.names, self.edges.tolist(), strict=False))
        flat = [self.arrays[name].reshape(-1) for name in self.names]
        self.values = np.concatenate(flat) if flat else np.empty(0)

    def of(self, number: int) -> str:
        """Whose entry it is."""
        return self.names[int(np.searchsorted(self.edges, number, "right")) - 1]

    def owners(self, numbers: np.ndarray) -> np.ndarray:
        """The same of many, as numbers."""
        return np.searchsorted(self.edges, numbers, "right")

    @property
    def index(self) -> Index:
        """Of the values."""
        self._index = self._index or Index(self.values)
        return self._index

    def find(self, values: np.ndarray) -> np.ndarray:
        """The number of the entry that is each of some values; UNKNOWN: none is, or several."""
        return self.index.find(values)

    def may_hold(self, leaf: np.ndarray) -> bool:
        """Whether some of a leaf's entries are all there."""
        low, high = self.index.bounds(_sample(leaf))
        return bool((high > low).all())

    def holding(self, leaf: np.ndarray) -> list[str]:
        """The tensors that have some of a leaf's entries, all of them."""
        low, high = self.index.bounds(_sample(leaf))
        having = set(range(1, len(self.names) + 1))
        for start, stop in zip(low, high, strict=True):
            having &= {*self.owners(self.index.numbers[start:stop]).tolist()}
        return [self.names[number - 1] for number in sorted(having)]

    def same(self, numbers: np.ndarray, values: np.ndarray, beside: np.ndarray) -> np.ndarray:
        """Whether entries are these values, and of the tensors that some others are of."""
        inside = np.clip(numbers, 0, len(self.values) - 1)
        of_one = self.owners(numbers) == self.owners(beside)
        return of_one & self.alike(inside, values)

    def alike(self, numbers: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Whether entries are these values."""
        return self.values[numbers] == values

    def agree(self, name: str, seen: np.ndarray, part: np.ndarray) -> np.ndarray:
        """Which entries of a tensor's are those of a leaf."""
        return seen == part

    def readings(self, part: np.ndarray) -> Iterator["Reading"]:
        """The ways to look the entries of a box up, the quickest first."""
        yield Reading(self, part)
        axes = range(max((len(self.shapes[name]) for name in self.names), default=0))
        for along, size in enumerate(part.shape):
            for count in (_FOLLOWING, 2):
                if size >= count:
                    yield from (Reading(self, part, (along, axis, count)) for axis in axes)

    def followed(self, axis: int, count: int) -> Index:
        """Entries by what they and those after them along one of their tensor's axes are."""
        if (axis, count) not in self._followed:
            keys, numbers = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
            for name in self.names:
                shape = self.shapes[name]
                if len(shape) <= axis or shape[axis] < count:
                    continue
                keys.append(_keys(self.arrays[name].reshape(shape), axis, count).reshape(-1))
                every = np.arange(self.arrays[name].size).reshape(shape) + self.starts[name]
                numbers.append(every[_first(axis, shape[axis] - count + 1)].reshape(-1))
            self._followed[axis, count] = Index(np.concatenate(keys), np.concatenate(numbers))
        return self._followed[axis, count]


@dataclass
class Reading:
    """A way to look the entries of a box up.

    followed: along which axis of the box, which of the tensor's and how many entries are taken
    together; None: one
    """

    pool: Pool
    part: np.ndarray
    followed: tuple[int, int, int] | None = None

    def find(self, base: tuple[int, ...], axis: int | None) -> np.ndarray:
        """The numbers of the entries along an axis through a place; axis None: of the only one."""
        index = tuple(slice(None) if a == axis else i for a, i in enumerate(base))
        if self.followed is None:
            return self.pool.find(self.part[index])
        along, of_tensor, count = self.followed
        known = self.pool.followed(of_tensor, count)
        if along == axis:
            line = _keys(self.part[index], 0, count)
            return np.concatenate([known.find(line), np.full(count - 1, UNKNOWN)])
        # of a base near the end those before it are taken, and the number goes forward again
        back = max(0, base[along] + count - self.part.shape[along])
        window = list(index)
        window[along] = slice(base[along] - back, base[along] - back + count)
        lines = self.part[tuple(window)]
        if axis is None or along < axis:
            lines = np.moveaxis(lines, 0, -1)
        return self._forward(known.find(_keys(lines, lines.ndim - 1, count)[..., 0]), back)

    def _forward(self, found: np.ndarray, back: int) -> np.ndarray:
        if not back:
            return found
        assert self.followed is not None
        axis = self.followed[1]
        strides = [int(np.prod(self.pool.shapes[name][axis + 1 :])) for name in self.pool.names]
        owners = np.clip(self.pool.owners(found) - 1, 0, None)
        return np.where(found == UNKNOWN, UNKNOWN, found + back * np.array(strides)[owners])


@dataclass
class NearPool(Pool):
    """The same of numbers that are off by rounding on the other side, such as gradients.

    near: two entries of this distance, of the largest in their tensor, may be one
    """

    near: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = [float(np.nanmax(np.abs(self.arrays[n]), initial=0)) for n in self.names]
        self._sizes = dict(zip(self.names, sizes, strict=True))
        self._of_entry = np.repeat(sizes, np.diff(self.edges))

    def find(self, values: np.ndarray) -> np.ndarray:
        """The number of the entry that is nearest, if it is near, and no other nearly so."""
        if not len(self.values):
            return np.full(values.shape, UNKNOWN)
        place = np.searchsorted(self.index.sorted, values)
        around = np.clip(place[..., None] + np.arange(-2, 2), 0, len(self.values) - 1)
        gaps = np.abs(self.index.sorted[around] - values[..., None])
        gaps[..., 1:][around[..., 1:] == around[..., :-1]] = np.inf  # at the ends
        gaps[np.isnan(gaps)] = np.inf
        nearest = np.argmin(gaps, axis=-1)[..., None]
        entry = self.index.numbers[np.take_along_axis(around, nearest, -1)[..., 0]]
        gap, second = np.sort(gaps, axis=-1)[..., :2].transpose(-1, *range(values.ndim))
        limit = self.near * self._of_entry[entry]
        clear = (gap <= limit) & (second > limit) & (second > 10 * gap)
        return np.where(clear, entry, UNKNOWN)

    def may_hold(self, leaf: np.ndarray) -> bool:
        """It may: nearness is not looked up."""
        return True

    def alike(self, numbers: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Whether entries are near these values."""
        gaps = np.abs(self.values[numbers] - values)
        return gaps <= self.near * self._of_entry[numbers]

    def agree(self, name: str, seen: np.ndarray, part: np.ndarray) -> np.ndarray:
        """Which entries are near."""
        return np.abs(seen - part) <= self.near * self._sizes[name]

    def readings(self, part: np.ndarray) -> Iterator[Reading]:
        """By each number alone."""
        yield Reading(self, part)


def _sample(leaf: np.ndarray) -> np.ndarray:
    leaf = np.atleast_1d(leaf)
    places = np.linspace(0, leaf.size - 1, min(_SAMPLE, leaf.size)).astype(int)
    return leaf[np.unravel_index(places, leaf.shape)].reshape(-1)


def _first(axis: int, size: int) -> tuple[slice, ...]:
    return (*[slice(None)] * axis, slice(0, size))


def _keys(array: np.ndarray, axis: int, count: int) -> np.ndarray:
    """A number for each entry with those that follow it along an axis; 0 and -0 are one."""
    mixed = mix(array)
    size = array.shape[axis] - count + 1
    total = np.zeros_like(mixed[_first(axis, size)])
    for place in range(count):
        index = (*[slice(None)] * axis, slice(place, place + size))
        total = total * np.uint64(0x9E3779B97F4A7C15) + mixed[index]
    return total


def mix(array: np.ndarray) -> np.ndarray:
    """A number of 64 bits for each number; 0 and -0 have one."""
    if array.dtype.kind == "c":
        return mix(array.real) * np.uint64(0x94D049BB133111EB) + mix(array.imag)
    bits = (array.astype(np.float64) + 0.0).view(np.uint64)
    return (bits ^ (bits >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
