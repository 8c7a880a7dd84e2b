"""Where the entries of one line of a leaf are, though not each can be told by what it is.

A zero row of an embedding, or one of the many numbers that float32 draws twice, is known by its
neighbours: it is what stands there if the line goes on as beside it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from twinstep.port.pools import UNKNOWN, Pool

_ROUNDS = 4


@dataclass
class Line:
    """Entries along an axis of a leaf.

    values: what they are; found: their numbers in a pool, where these are known
    """

    values: np.ndarray
    found: np.ndarray
    pool: Pool

    def numbers(self) -> np.ndarray | None:
        """All their numbers; None where some cannot be told."""
        for _ in range(_ROUNDS):
            before = int((self.found != UNKNOWN).sum())
            if before == len(self.found):
                return self.found
            if not before:
                return None
            for stride in self._strides():
                self._go_on(stride, slice(None))
                self._go_on(-stride, slice(None, None, -1))
            if before == int((self.found != UNKNOWN).sum()):
                return None
        return self.found if (self.found != UNKNOWN).all() else None

    def _strides(self) -> Iterator[int]:
        """The commonest steps between known entries beside each other, else between any."""
        places = np.flatnonzero(self.found != UNKNOWN)
        steps, apart = np.diff(self.found[places]), np.diff(places)
        near = steps[apart == 1]
        if not len(near):
            near = steps[steps % apart == 0] // apart[steps % apart == 0]
        values, counts = np.unique(near, return_counts=True)
        for value in values[np.argsort(-counts, kind="stable")][:2]:
            yield int(value)

    def _go_on(self, stride: int, way: slice) -> None:
        """Fills in what a stride leads to, from what is known to the first odd entry."""
        found, values = self.found[way].copy(), self.values[way]
        places = np.arange(len(found))
        known = found != UNKNOWN
        last = np.maximum.accumulate(np.where(known, places, -1))
        guess = found[last] + (places - last) * stride
        fine = ~known & (last >= 0) & self.pool.same(guess, values, found[last])
        odd = np.maximum.accumulate(np.where(~known & ~fine, places, -1))
        found = np.where(fine & (odd < last), guess, found)
        self.found[way] = found
