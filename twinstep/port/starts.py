"""How a recording begins, and what of it is told so far."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from twinstep.port.pieces import Piece, slices, used, volume, whole
from twinstep.trace import dtypes
from twinstep.trace.leaves import ReadLeaves
from twinstep.trace.ledger import Trace

Leaves = Mapping[str, np.ndarray]
_FEW = 4
"""Of so many different numbers an array is no order: a new layer's ones and zeros."""
_NARROW = ("float32", "float16", "bfloat16")


@dataclass
class Start:
    """The leaves of a recording: as they begin, their first raw gradients, dtypes and shapes.

    Of a saved trace that is read leaf by leaf no leaf is held.
    """

    values: Leaves
    grads: Leaves = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _alike: dict[str, bool] = field(default_factory=dict)
    _kept: dict[str, "Start"] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Trace | Mapping[str, np.ndarray]) -> "Start":
        """What a trace begins with; of plain arrays these."""
        arrays, raw = _rows(given), given.raw_grads if isinstance(given, Trace) else {}
        values = _first(arrays, arrays)
        grads = _first(raw, [name for name in raw if name in arrays])
        kinds, shapes = {}, {}
        for name in arrays:
            array = arrays[name]
            kinds[name], shapes[name] = dtypes.name(array.dtype), array.shape[1:]
        return cls(values, grads, kinds, shapes)

    def alike(self, name: str) -> bool:
        """Whether all entries are the same, and so tell nothing."""
        if name not in self._alike:
            flat = self.values[name].reshape(-1)
            few = flat[:2]  # of most leaves these differ
            alike = bool((few == flat[:1]).all()) and bool((flat == flat[:1]).all())
            self._alike[name] = alike
        return self._alike[name]

    def kept_as(self, kind: str) -> "Start":
        """The values as a port of less precision has them, who rounds them once."""
        if kind not in _NARROW or all(held == kind for held in self.kinds.values()):
            return self
        if kind not in self._kept:
            dtype = dtypes.bfloat16() if kind == "bfloat16" else np.dtype(kind)
            values = {name: _rounded(array, dtype) for name, array in self.values.items()}
            self._kept[kind] = Start(values, self.grads, self.kinds, self.shapes)
        return self._kept[kind]


@dataclass
class Search:
    """What is told so far of a port's leaves, and what may be what of the others.

    Attributes:
        theirs, ours: How PyTorch and the port begin.
        found: {the port's name: its pieces}.
        by: {the port's name: what told it}.
        ambiguous: {the port's name: whole tensors as whose values it begins}.
        holders: {the port's name: tensors that have all its values, in words}.
        candidates: {the port's name: what it may be, in words}.
    """

    theirs: Start
    ours: Start
    found: dict[str, tuple[Piece, ...]] = field(default_factory=dict)
    by: dict[str, str] = field(default_factory=dict)
    ambiguous: dict[str, list[Piece]] = field(default_factory=dict)
    holders: dict[str, list[str]] = field(default_factory=dict)
    candidates: dict[str, list[str]] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of PyTorch's tensors."""
        return self.theirs.shapes

    def left(self) -> list[str]:
        """The leaves that are not told."""
        return [name for name in self.ours.values if name not in self.found]

    def untouched(self) -> list[str]:
        """Those of PyTorch's tensors that no leaf has anything of."""
        touched = {piece.of for pieces in self.found.values() for piece in pieces}
        return [name for name in self.theirs.values if name not in touched]

    def used(self) -> dict[str, np.ndarray]:
        """{PyTorch's name: which of its entries are in a leaf}"""
        return used(self.found, self.shapes)

    def take(self, leaf: str, pieces: Sequence[Piece], how: str) -> None:
        """A leaf is told."""
        self.found[leaf], self.by[leaf] = tuple(pieces), how

    def kept(self, leaf: str) -> Start:
        """How PyTorch begins, in the precision of a leaf."""
        return self.theirs.kept_as(self.ours.kinds[leaf])

    def may_be_of(self, leaf: str, name: str) -> bool:
        """Whether a tensor has entries as those with which a leaf begins."""
        few_values = np.unique(self.ours.values[leaf])
        return bool(np.isin(few_values, self.kept(leaf).values[name]).all())

    def begins_as(self, leaf: str, pieces: Sequence[Piece]) -> bool:
        """Whether a leaf begins as these pieces do, of which each has a box of its own."""
        start, theirs = self.ours.values[leaf], self.kept(leaf).values
        boxes = {piece.at for piece in pieces}
        return len(boxes) == len(pieces) and all(
            np.array_equal(piece.cut(theirs[piece.of], 0), start[slices(piece.at)])
            for piece in pieces
        )


def few(array: np.ndarray) -> bool:
    """Whether its numbers are so few that they don't tell in which order they stand."""
    seen: set[float] = set()
    for number in array.reshape(-1)[: 4 * _FEW].tolist():
        seen.add(number)
    return len(seen) <= _FEW < array.size and len(np.unique(array)) <= _FEW


def said(piece: Piece) -> str:
    """A piece in words."""
    text = piece.of
    if piece.take != whole(piece.view):
        runs = ", ".join(
            ":" if run == (0, n) else f"{run[0]}:{run[1]}"
            for run, n in zip(piece.take, piece.view, strict=True)
        )
        text += f"[{runs}]"
    if piece.axes != tuple(range(len(piece.axes))) and volume(piece.take) > 1:
        text += f" with axes {piece.axes}"
    return text


def _rows(given: Trace | Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """{leaf: (n, ...)}, of plain arrays one row each."""
    if isinstance(given, Trace):
        return given.params
    return {name: np.asarray(array)[None] for name, array in given.items()}


def _first(held: Mapping[str, np.ndarray], names: Iterable[str]) -> Mapping[str, np.ndarray]:
    """The first rows of some leaves; read anew each time where they are not held."""
    if isinstance(held, dict):
        return {name: _numbers(held[name][0]) for name in names}

    def read(name: str) -> np.ndarray:
        return _numbers(held[name][0].copy())  # and not a view of all rows

    return ReadLeaves({name: partial(read, name) for name in names})


def _numbers(array: np.ndarray) -> np.ndarray:
    return dtypes.numbers(np.asarray(array)[None]).reshape(np.shape(array))


def _rounded(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if array.dtype.kind != "f" or dtype.names:  # NumPy alone has no bfloat16 to round to
        return array
    return dtypes.numbers(array[None].astype(dtype)).reshape(array.shape)
