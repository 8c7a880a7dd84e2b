"""Which of PyTorch's entries each leaf of a port is, found by what they are.

By the initial values; where these are alike, by the raw gradients of the first update; and what
neither tells by what is left, where that is one thing. What could be several is never chosen.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from collections.abc import Mapping as Named
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from twinstep.errors import InputError
from twinstep.port import buffers, neighbours
from twinstep.port.mapping import Mapping, Piece, whole
from twinstep.port.strides import NearPool, Pool, pieces_of
from twinstep.trace import dtypes
from twinstep.trace.ledger import Trace

Leaves = dict[str, np.ndarray]
VALUES, GRADIENTS, LEFT = "values", "gradients", "what is left"

_SAME_DIRECTION = 0.02
"""The sine of the angle between two gradients that may be one's."""
_CLEARLY = 10.0
"""So many times further off has to be the second best."""
_MAX_AXES = 5


@dataclass(frozen=True)
class Match:
    """What was found.

    Attributes:
        mapping: Of all that is certain.
        by: {the port's name: what tells it: "values", "gradients" or "what is left"}.
        open: {the port's name: the candidates, in words}; none where nothing is like it.
        unused: {PyTorch's name: how many of its entries are in no leaf}.
        twice, summed: As of the mapping.

    Example:
        >>> import twinstep
        >>> trace = twinstep.run(twinstep.examples()["zero_grad"](steps=2), framework="torch")
        >>> found = twinstep.match(trace, trace)
        >>> found.complete, found.by["0.weight"]
        (True, 'values')
    """

    mapping: Mapping
    by: Named[str, str]
    open: Named[str, list[str]]
    unused: Named[str, int]

    @property
    def complete(self) -> bool:
        """Whether every leaf has its entries, and every entry a leaf."""
        return not self.open and not self.unused

    def lines(self) -> list[str]:
        """It for people, a line each."""
        counts = [(how, sum(by == how for by in self.by.values())) for how in (VALUES, GRADIENTS)]
        told = ", ".join(f"{count} by {how}" for how, count in counts if count)
        lines = [f"{len(self.by)} of {len(self.by) + len(self.open)} leaves matched: {told}"]
        lines += [f"{leaf}: by {how}" for leaf, how in self.by.items() if how == LEFT]
        for of, leaves in self.mapping.twice.items():
            lines.append(f"{of}: held {len(leaves)} times, as {' and '.join(leaves)}")
        for leaf, names in self.mapping.summed.items():
            lines.append(f"{leaf}: the sum of {' and '.join(names)}")
        for leaf, candidates in self.open.items():
            may = f"may be {' or '.join(candidates)}" if candidates else "is like nothing there"
            lines.append(f"open: {leaf} {may}")
        for name, entries in self.unused.items():
            if not any(name in " ".join(found) for found in self.open.values()):
                lines.append(f"open: {name} of PyTorch's: {entries} entries are in no leaf")
        return lines


@dataclass
class _Side:
    """The leaves of a recording: as they begin, and their first gradients."""

    start: Leaves
    grads: Leaves = field(default_factory=dict)
    kinds: set[str] = field(default_factory=set)

    def alike(self, name: str) -> bool:
        """Whether all entries are the same, and so tell nothing."""
        flat = self.start[name].reshape(-1)
        return flat.size == 0 or bool((flat == flat[0]).all())


class _Fit(NamedTuple):
    """How far a leaf's gradient is from one of PyTorch's in some order of axes."""

    sine: float
    piece: Piece


def match(torch: Trace | Named[str, np.ndarray], jax: Trace | Named[str, np.ndarray]) -> Match:
    """Finds for every leaf of a port which of PyTorch's entries it is made of.

    Args:
        torch: What was recorded of the PyTorch program; or a state_dict of arrays, such as `probe`
            makes.
        jax: What was recorded of the port, from the same initial parameters; or what its converter
            makes of the state_dict, {the port's name: array}.

    Returns:
        The mapping of what is certain, and what is open, with its candidates.

    Raises:
        InputError: For a trace without parameters.

    Example:
        >>> import twinstep
        >>> trace = twinstep.run(twinstep.examples()["zero_grad"](steps=2), framework="torch")
        >>> print(twinstep.match(trace, trace).lines()[0])
        4 of 4 leaves matched: 4 by values
    """
    sides: list[_Side] = []
    for which, given in (("PyTorch's", torch), ("the port's", jax)):
        raw = given.raw_grads if isinstance(given, Trace) else {}
        params = {
            n: array[0] if isinstance(given, Trace) else np.asarray(array)
            for n, array in (given.params if isinstance(given, Trace) else given).items()
        }
        if not params:
            raise InputError(f"{which} trace has no parameters: there is nothing to match")
        start = {name: dtypes.numbers(array[None])[0] for name, array in params.items()}
        grads = {name: dtypes.numbers(a[:1])[0] for name, a in raw.items() if len(a)}
        sides.append(_Side(start, grads, {dtypes.name(array.dtype) for array in params.values()}))
    found = _Matching(*sides).result()
    if not isinstance(torch, Trace) or not isinstance(jax, Trace):
        return found
    more = buffers.matched(torch, jax, found.mapping.leaves)
    return dataclasses.replace(found, mapping=found.mapping.with_buffers(torch, jax, more))


class _Matching:
    """Fills `found` from the surest on."""

    def __init__(self, theirs: _Side, ours: _Side) -> None:
        self.theirs, self.ours = theirs, ours
        self.shapes = {name: array.shape for name, array in theirs.start.items()}
        self.found: dict[str, tuple[Piece, ...]] = {}
        self.by: dict[str, str] = {}
        self.candidates: dict[str, list[str]] = {}
        self._as_kept()

    def _as_kept(self) -> None:
        """PyTorch's initial values as a port of less precision would have them."""
        kinds = [*self.ours.kinds]
        if len(kinds) == 1 and (name := kinds[0]) in ("float32", "float16", "bfloat16"):
            kind = dtypes.bfloat16() if name == "bfloat16" else np.dtype(name)
            self.theirs.start = {
                n: array.astype(kind).astype(array.dtype) for n, array in self.theirs.start.items()
            }

    def result(self) -> Match:
        """All that can be found."""
        self._whole_by_values()
        self._parts_by_values()
        self._whole_by_gradients()
        self._parts_by_gradients()
        self._by_neighbours()
        mapping = Mapping(
            {name: self.found[name] for name in self.ours.start if name in self.found},
            {name: array.shape for name, array in self.ours.start.items()},
            self.shapes,
        )
        candidates = {name: self.candidates.get(name, []) for name in self._left()}
        return Match(mapping, self.by, candidates, self._unused())

    def _left(self) -> list[str]:
        return [name for name in self.ours.start if name not in self.found]

    def _unused(self) -> dict[str, int]:
        left = {name: ~used for name, used in self._used().items()}
        return {name: int(free.sum()) for name, free in left.items() if free.any()}

    def _used(self) -> dict[str, np.ndarray]:
        """{PyTorch's name: which of its entries are in a leaf}"""
        used = {name: np.zeros(shape, bool) for name, shape in self.shapes.items()}
        for pieces in self.found.values():
            for piece in pieces:
                take = tuple(slice(*run) for run in piece.take)
                used[piece.of].reshape(piece.view)[take] = True
        return used

    def _untouched(self) -> list[str]:
        """Those of PyTorch's tensors that no leaf has anything of."""
        touched = {piece.of for pieces in self.found.values() for piece in pieces}
        return [name for name in self.shapes if name not in touched]

    def _take(self, leaf: str, pieces: list[Piece] | tuple[Piece, ...], how: str) -> None:
        self.found[leaf], self.by[leaf] = tuple(pieces), how

    # By values

    def _whole_by_values(self) -> None:
        """Leaves that are a tensor in another order of axes."""
        theirs: dict[tuple[int, int], list[str]] = {}
        for name, array in self.theirs.start.items():
            if not self.theirs.alike(name):
                theirs.setdefault(_content(array), []).append(name)
        for leaf, array in self.ours.start.items():
            if self.ours.alike(leaf):
                continue
            names = theirs.get(_content(array), [])
            fits = [p for n in names for p in _orders(array, self.theirs.start[n], n)]
            if len(fits) > 1:
                fits = self._by_gradient(leaf, fits)
            if len(fits) == 1:
                self._take(leaf, [fits[0]], VALUES)
            elif fits:
                self.candidates[leaf] = [_said(piece) for piece in fits]

    def _parts_by_values(self) -> None:
        """Leaves that are parts of tensors, or several, or sums of two."""
        left = [n for n in self._left() if not self.ours.alike(n) and n not in self.candidates]
        if not left:
            return
        names = [n for n in self._untouched() if not self.theirs.alike(n)]
        arrays = {name: self.theirs.start[name] for name in names}
        pool = Pool(self.shapes, {n: a.reshape(-1) for n, a in arrays.items()})
        for leaf in left:
            if pieces := pieces_of(self.ours.start[leaf], pool):
                self._take(leaf, pieces, VALUES)
        sums = dict(_sums(arrays))
        pool = Pool({n: a.shape for n, a in sums.items()}, {n: a.ravel() for n, a in sums.items()})
        for leaf in self._left() if sums else ():
            if leaf in left and (pieces := pieces_of(self.ours.start[leaf], pool)):
                self._take(leaf, [p for piece in pieces for p in _terms(piece)], VALUES)

    # By gradients

    def _whole_by_gradients(self) -> None:
        """Leaves whose entries are alike, as a new layer's biases: by their first gradients."""
        left = [n for n in self._left() if n in self.ours.grads and n not in self.candidates]
        theirs = [n for n in self._untouched() if n in self.theirs.grads]
        fits = {leaf: self._fits(leaf, theirs) for leaf in left}
        best: dict[str, list[tuple[float, str]]] = {}
        for leaf, found in fits.items():
            for fit in found:
                best.setdefault(fit.piece.of, []).append((fit.sine, leaf))
        for leaf, found in fits.items():
            good = [fit for fit in found if fit.sine <= _SAME_DIRECTION]
            if not good:
                continue
            first = good[0]
            rivals = sorted(best[first.piece.of])
            mutual = rivals[0][1] == leaf and (
                len(rivals) < 2 or _clear(rivals[0][0], rivals[1][0]) or rivals[1][1] == leaf
            )
            if mutual and (len(found) < 2 or _clear(first.sine, found[1].sine)):
                self._take(leaf, [first.piece], GRADIENTS)
            else:
                self.candidates[leaf] = [_said(f.piece) for f in good]

    def _fits(self, leaf: str, names: list[str]) -> list[_Fit]:
        """How near the gradients of tensors of its size and initial value are, nearest first."""
        ours = self.ours.start[leaf]
        found = []
        for name in names:
            theirs = self.theirs.start[name]
            if theirs.size != ours.size or not theirs.size:
                continue
            if self.theirs.alike(name) != self.ours.alike(leaf) or (
                self.ours.alike(leaf) and theirs.flat[0] != ours.flat[0]
            ):
                continue
            orders = _axes(theirs.shape)
            found += self._sines(leaf, [_piece(name, theirs.shape, ours.shape, a) for a in orders])
        return sorted(found, key=lambda fit: fit.sine)

    def _sines(self, leaf: str, pieces: list[Piece]) -> list[_Fit]:
        ours = self.ours.grads[leaf]
        seen: list[np.ndarray] = []
        found = []
        for piece in pieces:
            array = piece.cut(self.theirs.grads[piece.of], 0)
            if any(np.array_equal(array, one) for one in seen):
                continue
            seen.append(array)
            found.append(_Fit(_sine(ours, array), piece))
        return found

    def _by_gradient(self, leaf: str, pieces: list[Piece]) -> list[Piece]:
        """Of pieces whose values are the same those whose gradient tells them, if it does."""
        if leaf not in self.ours.grads or any(p.of not in self.theirs.grads for p in pieces):
            return pieces
        fits = sorted(self._sines(leaf, pieces), key=lambda fit: fit.sine)
        clear = len(fits) == 1 or _clear(fits[0].sine, fits[1].sine)
        return [fits[0].piece] if clear and fits[0].sine <= _SAME_DIRECTION else pieces

    def _parts_by_gradients(self) -> None:
        """Leaves whose entries are alike, and are parts of tensors, or several."""
        left = [n for n in self._left() if n in self.ours.grads and n not in self.candidates]
        names = [n for n in self._untouched() if n in self.theirs.grads]
        for value in {float(self.ours.start[n].flat[0]) for n in left if self.ours.start[n].size}:
            arrays = {
                n: self.theirs.grads[n].ravel()
                for n in names
                if self.theirs.alike(n) and arrays_begin(self.theirs.start[n], value)
            }
            pool = NearPool(self.shapes, arrays)
            for leaf in left:
                start = self.ours.start[leaf]
                alike = self.ours.alike(leaf) and arrays_begin(start, value)
                if alike and (pieces := pieces_of(self.ours.grads[leaf], pool)):
                    self._take(leaf, pieces, GRADIENTS)

    # By what is left

    def _by_neighbours(self) -> None:
        """Leaves that neither tells, where their layer leaves but one thing that they can be."""
        while True:
            before = len(self.found)
            for leaf in self._left():
                free = {name: ~used for name, used in self._used().items()}
                shape = self.ours.start[leaf].shape
                pieces = neighbours.along(leaf, shape, self.found, self.shapes, free)
                if pieces and self._may_be(leaf, pieces):
                    self._take(leaf, pieces, LEFT)
            if len(self.found) == before:
                return

    def _may_be(self, leaf: str, pieces: list[Piece]) -> bool:
        """Whether the initial values are not against it: both alike, or both not."""
        alike = [self.theirs.alike(piece.of) for piece in pieces]
        if self.ours.alike(leaf):
            start = self.ours.start[leaf]
            return all(alike) and all(
                arrays_begin(self.theirs.start[p.of], float(start.flat[0])) for p in pieces
            )
        return not any(alike)


def arrays_begin(array: np.ndarray, value: float) -> bool:
    """Whether its first entry is that."""
    return bool(array.size) and bool(array.flat[0] == value)


def _content(array: np.ndarray) -> tuple[int, int]:
    """A number that is the same for the same entries in any order."""
    bits = (
        np.ascontiguousarray(array, np.float64).view(np.uint64)
        if array.dtype.kind != "c"
        else (np.ascontiguousarray(array, np.complex128).view(np.uint64))
    )
    mixed = (bits ^ (bits >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return array.size, int(mixed.sum(dtype=np.uint64))


def _axes(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The orders of its axes, the last ones reversed first: as they are, and as JAX has them."""
    if len(shape) > _MAX_AXES:
        yield tuple(range(len(shape)))
        return
    yield from itertools.permutations(range(len(shape)))


def _piece(name: str, shape: tuple[int, ...], own: tuple[int, ...], axes: tuple[int, ...]) -> Piece:
    return Piece(name, shape, whole(shape), axes, whole(own))


def _orders(ours: np.ndarray, theirs: np.ndarray, name: str) -> list[Piece]:
    """The orders of axes in which a tensor is a leaf; else the pieces of it, if that is one."""
    fits: list[Piece] = []
    seen: list[np.ndarray] = []
    places = np.unique(np.linspace(0, ours.size - 1, min(64, ours.size)).astype(int))
    sample = ours.reshape(-1)[places]
    for axes in _axes(theirs.shape):
        turned = theirs.transpose(axes)
        index = np.unravel_index(places, turned.shape)
        if not np.array_equal(turned[index], sample):
            continue
        array = turned.reshape(ours.shape)
        if np.array_equal(array, ours) and not any(
            np.shares_memory(array, one) and array.strides == one.strides for one in seen
        ):
            seen.append(array)
            fits.append(_piece(name, theirs.shape, ours.shape, axes))
    if fits:
        return _without_ones(fits, theirs.shape)
    pieces = pieces_of(ours, Pool({name: theirs.shape}, {name: theirs.reshape(-1)}))
    return pieces if pieces and len(pieces) == 1 else []


def _without_ones(fits: list[Piece], shape: tuple[int, ...]) -> list[Piece]:
    """Orders that differ only in where axes of one entry stand are one."""
    found: dict[tuple[int, ...], Piece] = {}
    for piece in fits:
        found.setdefault(tuple(axis for axis in piece.axes if shape[axis] > 1), piece)
    return list(found.values())


def _sums(arrays: Leaves) -> Iterator[tuple[str, np.ndarray]]:
    """Of one layer's vectors of one size each two, added."""
    flat = [(n, a) for n, a in arrays.items() if a.ndim == 1]
    for (one, a), (other, b) in itertools.combinations(flat, 2):
        if a.shape == b.shape and one.rpartition(".")[0] == other.rpartition(".")[0]:
            yield f"{one} + {other}", a + b


def _terms(piece: Piece) -> list[Piece]:
    return [dataclasses.replace(piece, of=of) for of in piece.of.split(" + ")]


def _sine(one: np.ndarray, other: np.ndarray) -> float:
    """Of the angle between two arrays, whichever way they point; 1 where one is nothing."""
    a, b = one.reshape(-1), other.reshape(-1)
    norms = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if not (norms[0] > 0 and norms[1] > 0 and math.isfinite(norms[0] + norms[1])):
        return 1.0
    a, b = a / norms[0], b / norms[1]
    return min(float(np.linalg.norm(a - b)), float(np.linalg.norm(a + b)))


def _clear(best: float, second: float) -> bool:
    return second > _CLEARLY * best and second > _SAME_DIRECTION / _CLEARLY


def _said(piece: Piece) -> str:
    """A piece in words."""
    text = piece.of
    if piece.take != whole(piece.view):
        runs = ", ".join(
            ":" if run == (0, n) else f"{run[0]}:{run[1]}"
            for run, n in zip(piece.take, piece.view, strict=True)
        )
        text += f"[{runs}]"
    if piece.axes != tuple(range(len(piece.axes))):
        text += f" with axes {piece.axes}"
    return text
