"""Leaves told by their first raw gradients: those whose entries begin alike, as biases do.

How near two gradients of one leaf come, and by what factor a loss differs, is what the leaves say
that their values have told.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from twinstep.port.by_values import VALUES, orders_of
from twinstep.port.pieces import Piece, slices, whole_piece
from twinstep.port.pools import NearPool
from twinstep.port.starts import Search, said
from twinstep.port.strides import pieces_of

GRADIENTS = "gradients"

_SAME_DIRECTION = 0.02
"""The sine of the angle between two gradients that may be one's."""
_CLEARLY = 10.0
"""So many times further off has to be the second best."""
_MANY = 8
"""Of so many entries two directions are within 0.02 of each other once in 1e11 by chance; of fewer
the size has to be right too."""
_WORST = 30.0
"""A leaf may be so many times noisier than the median: small sums of what cancels are."""
_LEAST, _UNSEEN = 1e-5, 1e-4
"""The noise of gradients at least, and where nothing tells it."""
_FEW = 4
"""Of so many different numbers only those entries are looked at that begin as one of them."""


class _Fit(NamedTuple):
    """How far a leaf's gradient is from a piece's: the sine, and how many times as large it is."""

    sine: float
    factor: float
    piece: Piece


class Gradients:
    """What both sides' first gradients tell."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.theirs, self.ours = search.theirs.grads, search.ours.grads
        self._measured: dict[str, _Fit | None] = {}

    def tell_ambiguous(self) -> None:
        """Leaves that begin as several tensors, or as one in several orders of axes."""
        self._measure()
        fits = {
            leaf: self._compared(leaf, pieces)
            for leaf, pieces in self.search.ambiguous.items()
            if leaf in self.ours and all(piece.of in self.theirs for piece in pieces)
        }
        self._choose(list(fits), fits, VALUES)
        for leaf, pieces in self.search.ambiguous.items():
            if leaf in self.search.found or leaf in self.search.candidates:
                continue
            words = [said(piece) for piece in pieces]
            if leaf in fits:  # whose gradient is none of theirs: it may be parts
                self.search.holders[leaf] = words
            else:
                self.search.candidates[leaf] = words

    def tell_whole(self) -> None:
        """Leaves that are a whole tensor in some order of axes."""
        self._measure()
        leaves = self._left()
        theirs = [name for name in self.search.untouched() if name in self.theirs]
        all_fits = {leaf: self._fits(leaf, theirs) for leaf in leaves}
        many = [leaf for leaf in leaves if self.ours[leaf].size >= _MANY]
        self._choose(many, all_fits, GRADIENTS)
        self._measure()
        self._choose([leaf for leaf in leaves if leaf not in many], all_fits, GRADIENTS)

    def tell_parts(self) -> None:
        """Leaves that are parts of tensors, or several."""
        self._measure()
        groups: dict[tuple[float, ...] | None, list[str]] = {}
        for leaf in self._left():
            start = self.search.ours.values[leaf]
            values = np.unique(start)
            begins = tuple(values.tolist()) if len(values) <= _FEW else None
            if start.size:
                groups.setdefault(begins, []).append(leaf)
        names = [name for name in self.search.untouched() if name in self.theirs]
        for begins, leaves in groups.items():
            pool = self._pool(names, begins, leaves[0])
            for leaf, factor in itertools.product(leaves if pool.names else (), self.factors):
                pieces = pieces_of(self.ours[leaf] / factor, pool)
                if pieces and leaf not in self.search.found and self.search.begins_as(leaf, pieces):
                    self.search.take(leaf, pieces, GRADIENTS)

    def _left(self) -> list[str]:
        search = self.search
        return [n for n in search.left() if n in self.ours and n not in search.candidates]

    def _measure(self) -> None:
        """Noise and factors, of the leaves that are told."""
        sines, self.factors = list[float](), list[float]()
        for leaf, pieces in self.search.found.items():
            if leaf not in self._measured:
                self._measured[leaf] = self._fit(leaf, pieces)
        for fit in self._measured.values():
            if fit is None:
                continue
            sines.append(fit.sine)
            new = not any(math.isclose(fit.factor, one, rel_tol=0.01) for one in self.factors)
            if fit.sine <= _SAME_DIRECTION and new:
                self.factors.append(fit.factor)
        if not sines:  # nothing is told yet: gradients of one loss
            self.factors = [1.0]
        self.noise = _UNSEEN
        if sines:
            self.noise = min(_SAME_DIRECTION, max(_LEAST, _WORST * float(np.median(sines))))

    def _fit(self, leaf: str, pieces: Sequence[Piece]) -> _Fit | None:
        """Of a leaf with all its pieces; None where that says nothing of noise and factor."""
        if leaf not in self.ours or any(piece.of not in self.theirs for piece in pieces):
            return None
        if self.ours[leaf].size < 2 or len({piece.at for piece in pieces}) < len(pieces):
            return None  # of one number any is a factor; a sum's gradient is that of either
        boxes = [(self.ours[leaf][slices(p.at)], p.cut(self.theirs[p.of], 0)) for p in pieces]
        one, other = (
            np.concatenate([np.ravel(a) for a in side]) for side in zip(*boxes, strict=True)
        )
        sine, factor = _apart(one, other)
        return _Fit(sine, factor, pieces[0]) if factor else None

    def _compared(self, leaf: str, pieces: Sequence[Piece]) -> list[_Fit]:
        """A leaf's gradient and those of pieces, the nearest first."""
        ours = self.ours[leaf]
        fits = [_Fit(*_apart(ours, p.cut(self.theirs[p.of], 0)), p) for p in pieces]
        return sorted(fits, key=lambda fit: fit.sine)

    def _fits(self, leaf: str, names: list[str]) -> list[_Fit]:
        """The whole tensors that begin as a leaf does, the nearest gradient first."""
        start, theirs = self.search.ours.values[leaf], self.search.kept(leaf)
        pieces = []
        for name in names:
            shape = theirs.values[name].shape
            alike = self.search.ours.alike(leaf)
            if math.prod(shape) != start.size or theirs.alike(name) != alike or not start.size:
                continue
            if alike and theirs.values[name].flat[0] != start.flat[0]:
                continue
            orders = [whole_piece(name, shape, start.shape, axes) for axes in orders_of(shape)]
            pieces += [p for p in orders if alike or self.search.begins_as(leaf, [p])]
        return self._compared(leaf, pieces)

    def _choose(self, leaves: list[str], fits: dict[str, list[_Fit]], how: str) -> None:
        """What is near enough, and nearer than all else, seen from either side."""
        near = {leaf: self._near(leaf, found) for leaf, found in fits.items()}
        rivals: dict[str, list[tuple[float, str]]] = {}
        for leaf, found in near.items():
            best: dict[str, float] = {}
            for fit in found:
                best.setdefault(fit.piece.of, fit.sine)
            for of, sine in best.items():
                rivals.setdefault(of, []).append((sine, leaf))
        for leaf in leaves:
            if not (good := near[leaf]):
                continue
            first, others = good[0], sorted(rivals[good[0].piece.of])
            alone = len(good) < 2 or _clear(first.sine, good[1].sine, self.noise)
            mutual = others[0][1] == leaf and (
                len(others) < 2 or _clear(others[0][0], others[1][0], self.noise)
            )
            if alone and mutual:
                self.search.take(leaf, [first.piece], how)
            else:
                self.search.candidates[leaf] = [said(fit.piece) for fit in good]

    def _near(self, leaf: str, fits: list[_Fit]) -> list[_Fit]:
        """Those that may be it."""
        if self.ours[leaf].size >= _MANY:
            return [fit for fit in fits if fit.sine <= _SAME_DIRECTION]
        return [
            fit
            for fit in fits
            if fit.sine <= self.noise
            and any(abs(fit.factor / one - 1) <= self.noise for one in self.factors)
        ]

    def _pool(self, names: list[str], begins: tuple[float, ...] | None, leaf: str) -> NearPool:
        """The gradients of the entries that begin as one of some values; None: as any."""
        start = self.search.kept(leaf).values
        arrays: dict[str, np.ndarray] = {}
        for name in names:
            begun = np.isin(start[name], begins) if begins else np.ones(start[name].shape, bool)
            if begun.any():
                arrays[name] = np.where(begun, self.theirs[name], np.nan).reshape(-1)
        shapes = {name: start[name].shape for name in arrays}
        return NearPool(shapes, arrays, near=min(1e-3, max(1e-6, self.noise / _CLEARLY)))


def _apart(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """The sine of the angle between two arrays, whichever way they point, and how many times the
    other the one is; 1 and 0 where one is nothing.
    """
    a, b = (np.asarray(array.reshape(-1), np.result_type(array, float)) for array in (one, other))
    norms = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if not (norms[0] > 0 and norms[1] > 0 and math.isfinite(norms[0] + norms[1])):
        return 1.0, 0.0
    sign = 1.0 if float(np.vdot(b, a).real) >= 0 else -1.0
    sine = float(np.linalg.norm(a / norms[0] - sign * b / norms[1]))
    return sine, sign * norms[0] / norms[1]


def _clear(best: float, second: float, noise: float) -> bool:
    """Whether the second is so much further off that the best is it."""
    least = noise if best <= noise else _SAME_DIRECTION / _CLEARLY
    return second > _CLEARLY * max(best, least / _CLEARLY) and second > least
