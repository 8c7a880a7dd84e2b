"""What the judge saw, step by step, for people to look at: a curve a stage, of bounded length."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

MAX_POINTS = 1024


class Curve(NamedTuple):
    """One stage over the steps: at each, the leaf that comes nearest to what it is allowed.

    steps: (K,) numbers from 1; difference, allowed: (K,), of that leaf; leaf: (K,) its name
    A long run keeps the worst of each few steps.
    """

    steps: np.ndarray
    difference: np.ndarray
    allowed: np.ndarray
    leaf: np.ndarray


@dataclass
class History:
    """The curves of a run that is seen chunk by chunk: {("gate" or "free", stage): Curve}."""

    curves: dict[tuple[str, str], Curve] = field(default_factory=dict)
    _ratios: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)

    def add(self, mode: str, stage: str, found: Curve, ratio: np.ndarray) -> None:
        """Takes what was found of one leaf; of two leaves at one step the worse is kept.

        ratio: (K,) difference in units of what is allowed
        """
        key, curve = (mode, stage), found
        if key in self.curves:
            known = self.curves[key]
            curve = Curve(*(np.concatenate(pair) for pair in zip(known, found, strict=True)))
            ratio = np.concatenate([self._ratios[key], ratio])
        width = 1
        while len(np.unique((curve.steps - 1) // width)) > MAX_POINTS:
            width *= 2
        bins = (curve.steps - 1) // width
        # within a bin the worst comes last, and of equals the earliest
        order = np.lexsort((-curve.steps, ratio, bins))
        last = np.flatnonzero(np.append(np.diff(bins[order]) != 0, True))
        kept = order[last]
        self.curves[key] = Curve(*(array[kept] for array in curve))
        self._ratios[key] = ratio[kept]
