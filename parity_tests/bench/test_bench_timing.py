"""Times of `twinstep bench`: sides in turn, medians, ratios; by a clock that tests move."""

import itertools
import math
from collections.abc import Callable, Iterator

import pytest

from twinstep.bench.timing import Spread, interleaved, ratios, spread, timed


class Clock:
    """A clock that moves only when something takes time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def side(self, name: str, seconds: Iterator[float], calls: list[str]) -> Callable[[], float]:
        """A side whose calls take so long, one after the other."""

        def make() -> float:
            calls.append(name)
            taken = next(seconds)
            self.now += taken
            return taken

        return make


def test_timed_is_the_seconds_of_one_call() -> None:
    clock = Clock()

    def slow() -> None:
        clock.now += 3

    clock.now = 7
    assert timed(slow, clock) == 3


def test_sides_take_turns() -> None:
    """Of 10 ms, five calls fill a turn, after two that do not count; of 1 s, one does."""
    clock, calls = Clock(), list[str]()
    sides = {
        "a": clock.side("a", itertools.repeat(0.01), calls),
        "b": clock.side("b", itertools.repeat(1.0), calls),
    }
    times = interleaved(sides, 3, clock=clock)
    assert times == {"a": [0.01] * 3, "b": [1.0] * 3}
    assert "".join(calls) == "ab" + 3 * ("aa" + "aaaaa" + "b")


def test_a_turn_is_the_median_of_its_calls_without_the_first_two() -> None:
    clock = Clock()
    seconds = iter([0.02, 9, 9, 0.02, 0.5])  # warm; two uncounted; a turn of two calls
    times = interleaved({"a": clock.side("a", seconds, [])}, 1, clock=clock)
    assert times["a"] == [pytest.approx(0.26)]


@pytest.mark.parametrize(("limit", "turns"), [(0.5, 1), (2.5, 3), (math.inf, 9)])
def test_no_turn_begins_after_the_limit(limit: float, turns: int) -> None:
    clock = Clock()
    sides = {"a": clock.side("a", itertools.repeat(1.0), [])}
    assert len(interleaved(sides, 9, limit, clock)["a"]) == turns


def test_spread_is_median_and_quartiles() -> None:
    assert spread([5, 1, 2, 4, 3]) == Spread(3, 2, 4)
    assert spread([7]) == Spread(7, 7, 7)
    assert str(spread([1.0, 3.0])) == "2 (1.5 to 2.5)"
    # a ratio is taken turn by turn: a machine that is twice as slow in one slows both
    assert ratios([2, 4, 2], [1, 2, 1]) == Spread(2, 2, 2)
