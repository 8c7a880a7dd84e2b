"""Sums up the micro-steps of MultiSteps, which together are one update."""

from collections.abc import Container, Mapping
from typing import Any

import numpy as np

from twinstep.jax.states import Named
from twinstep.trace.fingerprint import joined


class Micro:
    """The micro-steps since the last update.

    losses: of each, by name; batches, rngs: of each
    sums: whether they are summed and not averaged, as far as was seen: of two micro-steps, where
        nothing inside is watched, nobody can tell
    """

    def __init__(self) -> None:
        self.sums = False
        self.clear()

    def __len__(self) -> int:
        return len(self.losses)

    def clear(self) -> None:
        """An update is over."""
        self.losses: list[Named] = []
        self.batches: list[Named] = []
        self.rngs: list[Named] = []
        self._mean: Named = {}
        self._total: Named = {}

    def add(self, losses: Named, raw: Named, held: Named, batch: Named, rng: Named) -> None:
        """A micro-step. held: what MultiSteps itself has accumulated, whose dtype is its own

        The running mean is made as optax makes it, and rounds as it does, nearly always.
        """
        count = len(self.losses)
        for name, grad in raw.items():
            dtype = held[name].dtype if name in held else grad.dtype
            mean = self._mean.get(name, np.zeros(grad.shape, dtype)).astype(dtype)
            total = self._total.get(name, np.zeros(grad.shape, dtype)).astype(dtype)
            off: Any = grad - mean
            self._mean[name] = mean + off / np.asarray(count + 1, off.dtype)
            self._total[name] = grad + total
        self.losses.append(losses)
        # until the update, by when their memory may hold something else
        self.batches.append({name: np.array(array) for name, array in batch.items()})
        self.rngs.append({name: np.array(array) for name, array in rng.items()})

    def saw(self, accumulated: Mapping[str, np.ndarray]) -> None:
        """What there is of them in a state tells whether they are summed.

        That is near one of the two, which are far from each other; XLA may round another way.
        """
        for name, array in accumulated.items() if len(self.losses) > 1 else ():
            mean, total = self._mean.get(name), self._total.get(name)
            if mean is None or total is None or mean.shape != array.shape:
                continue
            of_mean, of_total = (np.abs(array - one).max(initial=0) for one in (mean, total))
            if of_mean < of_total / 100 or of_total < of_mean / 100:
                self.sums = bool(of_total < of_mean)
                return

    def grads(self, like: Named) -> Named:
        """What was backpropagated in all of them, in the dtypes of one of them."""
        found = self._total if self.sums else self._mean
        return {name: array.astype(like[name].dtype) for name, array in found.items()}

    def loss(self) -> float:
        """The mean or the sum of theirs."""
        every = [float(losses["loss"]) for losses in self.losses]
        return sum(every) if self.sums else sum(every) / len(every)

    def batch(self, spread: Container[str] = ()) -> dict[str, Any]:
        """Their batches, one after the other; as they are where shapes differ.

        spread: "batch/name" of those that are as they are until all processes' are put together
        """
        found: dict[str, Any] = {}
        for name in dict.fromkeys(name for batch in self.batches for name in batch):
            parts = [batch[name] for batch in self.batches if name in batch]
            found[name] = parts if f"batch/{name}" in spread else joined(parts)
        return found
