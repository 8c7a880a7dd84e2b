"""Honest pairs, many of them: every port by dtypes, seeds, learning rates and lengths."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from port.ports import PORTS, STEPS

SEEDS = range(10, 23)
RATES = (1.0, 0.25, 2.0)  # of the port's own learning rate
LENGTHS = (STEPS, 7)


class HonestPair(NamedTuple):
    """A port's right programs, and how both are trained."""

    port: str
    seed: int
    dtype: str
    learning_rate: float
    steps: int

    def __str__(self) -> str:
        return "-".join(str(value) for value in self)


def honest(port: str | None = None) -> Iterator[HonestPair]:
    """Settings in which the two programs are the same training.

    Args:
        port: Of one port alone; None: of all.

    Yields:
        26 a port and dtype: each seed by two rates, the lengths in turn.
    """
    rates, lengths = itertools.cycle(RATES), itertools.cycle(LENGTHS)
    for name in [port] if port else PORTS:
        for dtype, seed, _ in itertools.product(("float64", "float32"), SEEDS, range(2)):
            rate = next(rates) * PORTS[name].learning_rate
            yield HonestPair(name, seed, dtype, rate, next(lengths))
