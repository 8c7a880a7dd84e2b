"""Leaves that are read when they are asked for, and not kept."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

Reader = Callable[[], np.ndarray]


class ReadLeaves(Mapping[Any, np.ndarray]):
    """{name: array}, each read anew whenever it is asked for.

    readers: {name: what reads it}; once: of given gradients, those that are the backpropagated ones
    raw: these
    """

    def __init__(
        self,
        readers: Mapping[Any, Reader],
        once: Collection[str] = (),
        raw: Mapping[Any, np.ndarray] | None = None,
    ) -> None:
        self._readers, self._once, self._raw = readers, frozenset(once), raw

    def __getitem__(self, name: Any) -> np.ndarray:
        return self._readers[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._readers

    def __iter__(self) -> Iterator[Any]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)

    def is_that_of(self, other: Mapping[Any, np.ndarray], name: str) -> bool:
        """Whether a leaf of the other is this one, held once."""
        return other is self._raw and name in self._once
