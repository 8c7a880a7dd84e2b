"""Which samples each update trains on, in the order in which PyTorch's loader gives them."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from twinstep.problems.torch_loader import TorchDataLoader
from twinstep.problems.torch_random import TorchGenerator


class IndexChunk(NamedTuple):
    """Consecutive updates of one batch size.

    start: the first update's number, from 0
    steps: how many
    indices: (steps, batch size) sample numbers; None: every update takes all samples
    """

    start: int
    steps: int
    indices: np.ndarray | None


@dataclass(frozen=True)
class Batches:
    """The samples {name: (N, ...)}, and which of them each update takes.

    Iterating gives a dict {name: (batch size, ...)} an update; `chunks` gives sample numbers for
    many updates at once, which is what a compiled loop wants. Both start at the first update.
    Source: torch.utils.data.DataLoader, https://docs.pytorch.org/docs/stable/data.html
    """

    data: Mapping[str, np.ndarray]
    batch_size: int | None
    shuffle: bool
    generator: TorchGenerator
    total_steps: int

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for chunk in self.chunks(self.total_steps):
            for step in range(chunk.steps):
                index = slice(None) if chunk.indices is None else chunk.indices[step]
                yield {name: array[index] for name, array in self.data.items()}

    def chunks(self, max_steps: int) -> Iterator[IndexChunk]:
        """The updates in chunks of at most `max_steps`, cut as evenly as can be.

        Even cuts keep the number of different lengths, each a compilation, at two a batch size.
        """
        start = 0
        for indices in self._runs():
            steps = self.total_steps - start
            if indices is not None:
                indices = indices[:steps]
                steps = len(indices)
            for low, high in _even_ranges(steps, max_steps):
                yield IndexChunk(
                    start + low, high - low, None if indices is None else indices[low:high]
                )
            start += steps
            if start == self.total_steps:
                return

    def _runs(self) -> Iterator[np.ndarray | None]:
        """Without end: the longest stretches of updates of one batch size, epoch after epoch."""
        if self.batch_size is None:
            yield None
            return
        generator = self.generator.copy()
        samples = len(next(iter(self.data.values())))
        full, rest = divmod(samples, self.batch_size)
        while True:
            (order,) = TorchDataLoader(
                samples, samples, shuffle=self.shuffle, default_generator=generator
            )
            if full:
                yield order[: full * self.batch_size].reshape(full, self.batch_size)
            if rest:
                yield order[-rest:].reshape(1, rest)


def _even_ranges(steps: int, max_steps: int) -> Iterator[tuple[int, int]]:
    pieces = math.ceil(steps / max_steps)
    bounds = [steps * i // pieces for i in range(pieces + 1)]
    yield from itertools.pairwise(bounds)
