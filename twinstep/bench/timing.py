"""Times that can be compared on a machine that does other things too: sides take turns."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Side = Callable[[], float]
"""Makes one call of what is timed; the seconds of it."""

TURN = 0.05  # seconds
MAX_CALLS = 100  # in a turn
UNCOUNTED = 2  # calls, where a turn has several: the caches are another side's


class Spread(NamedTuple):
    """Median and quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{short(self.median)} ({short(self.low)} to {short(self.high)})"


def short(value: float) -> str:
    """Three digits, or all of those before the point."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of at least one value, within what was measured."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high)


def timed(call: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of one call."""
    start = clock()
    call()
    return clock() - start


def interleaved(
    sides: Mapping[str, Side],
    repeats: int,
    limit: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of a call of each side, a list entry a turn; the sides, all warm, take turns.

    A turn is the median of as many calls as fill TURN. After `limit` seconds no round of turns
    begins, but the first always does.
    """
    calls = {
        name: max(1, min(MAX_CALLS, int(TURN / max(call(), 1e-9)))) for name, call in sides.items()
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    start = clock()
    for turn in range(repeats):
        if turn and clock() - start > limit:
            break
        for name, call in sides.items():
            for _ in range(UNCOUNTED if calls[name] > 1 else 0):
                call()
            times[name].append(statistics.median([call() for _ in range(calls[name])]))
    return times


def ratios(reference: Sequence[float], times: Sequence[float]) -> Spread:
    """How many times as fast as the reference, turn by turn."""
    return spread([a / b for a, b in zip(reference, times, strict=True)])
