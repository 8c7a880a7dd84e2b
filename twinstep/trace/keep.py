"""What of a program's updates is kept."""

import fnmatch
from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple, get_args

import numpy as np

from twinstep.errors import InputError, unknown

Batch = Literal["values", "fingerprint"]


class Keep(NamedTuple):
    """What of each update is kept, and which are.

    steps: how many, or which of each optimizer's, from 1; every: the first of so many
    values: whether batches are, beside numbers that tell them; exclude: patterns of names
    """

    steps: int | frozenset[int] | None = None
    every: int = 1
    raw_grads: bool = True
    opt_state: bool = True
    values: bool = True
    exclude: tuple[str, ...] = ()

    @property
    def leaps(self) -> bool:
        """Whether updates are left out between others."""
        return self.every > 1 or isinstance(self.steps, frozenset)

    def has(self, update: int) -> bool:
        """Whether an optimizer's update is kept, from 1."""
        chosen = not isinstance(self.steps, frozenset) or update in self.steps
        return chosen and (update - 1) % self.every == 0

    def over(self, rows: int, updates: Collection[int]) -> bool:
        """Whether there are as many rows as are to be; of each optimizer so many updates."""
        if isinstance(self.steps, frozenset):
            return bool(updates) and min(updates) >= max(self.steps)
        return self.steps is not None and rows >= self.steps

    def of(self, leaves: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
        """The leaves that are kept."""
        return [
            (name, array)
            for name, array in leaves.items()
            if not any(fnmatch.fnmatch(name, pattern) for pattern in self.exclude)
        ]


EVERYTHING = Keep()


def kept(
    steps: int | Collection[int] | None,
    every: int,
    raw_grads: bool,
    opt_state: bool,
    batch: Batch,
    exclude: Collection[str],
) -> Keep:
    """What people say that is to be kept. InputError for what cannot be."""
    if batch not in get_args(Batch):
        raise InputError(unknown("batch", batch, get_args(Batch)))
    for name, number in (("steps", steps), ("every", every)):
        numbers = number if isinstance(number, Collection) else [number]
        if any(n is not None and (type(n) is not int or n < 1) for n in numbers) or not numbers:
            raise InputError(f"{name} is {number!r}, expected a whole number from 1 on")
    chosen = frozenset(steps) if isinstance(steps, Collection) else steps
    return Keep(chosen, every, raw_grads, opt_state, batch == "values", tuple(exclude))
