"""What `twinstep bench` measures and shows: times in turn, by a clock that tests move; the table,
the plot, the figures in benchmarks/README.md.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers.commands import ROOT

from twinstep import InputError
from twinstep.bench import markdown, table
from twinstep.bench.plot import ratios_figure
from twinstep.bench.rows import ASKED, RUNS, Cost, Row, report, runs
from twinstep.bench.timing import Spread, interleaved, ratios, spread, timed
from twinstep.problems import EXAMPLES
from twinstep.problems.regression import LinearRegression
from twinstep.trace.variants import LABELS

README = ROOT / "benchmarks" / "README.md"


class Clock:
    """A clock that moves only when something takes time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def side(self, seconds: Iterator[float], calls: list[str], name: str) -> Callable[[], float]:
        """A side whose calls take so long, one after the other."""

        def make() -> float:
            calls.append(name)
            taken = next(seconds)
            self.now += taken
            return taken

        return make


def test_timed_is_the_seconds_of_one_call() -> None:
    clock = Clock()
    clock.now = 7
    assert timed(clock.side(iter([3]), [], ""), clock) == 3


def test_sides_take_turns() -> None:
    """Of 10 ms, five calls fill a turn, after two that do not count; of 1 s, one does."""
    clock, calls = Clock(), list[str]()
    taken = {"a": 0.01, "b": 1.0}
    sides = {n: clock.side(itertools.repeat(seconds), calls, n) for n, seconds in taken.items()}
    times = interleaved(sides, 3, clock=clock)
    assert times == {"a": [0.01] * 3, "b": [1.0] * 3}
    assert "".join(calls) == "ab" + 3 * ("aa" + "aaaaa" + "b")


def test_a_turn_is_the_median_of_its_calls_without_the_first_two() -> None:
    clock = Clock()
    seconds = iter([0.02, 9, 9, 0.02, 0.5])  # warm; two uncounted; a turn of two calls
    times = interleaved({"a": clock.side(seconds, [], "a")}, 1, clock=clock)
    assert times["a"] == [pytest.approx(0.26)]


@pytest.mark.parametrize(("limit", "turns"), [(0.5, 1), (2.5, 3), (math.inf, 9)])
def test_no_turn_begins_after_the_limit(limit: float, turns: int) -> None:
    clock = Clock()
    sides = {"a": clock.side(itertools.repeat(1.0), [], "a")}
    assert len(interleaved(sides, 9, limit, clock)["a"]) == turns


def test_spread_is_median_and_quartiles() -> None:
    assert spread([5, 1, 2, 4, 3]) == Spread(3, 2, 4)
    assert spread([7]) == Spread(7, 7, 7)
    assert str(spread([1.0, 3.0])) == "2 (1.5 to 2.5)"
    # a ratio is taken turn by turn: a machine that is twice as slow in one slows both
    assert ratios([2, 4, 2], [1, 2, 1]) == Spread(2, 2, 2)


def test_which_runs_are_timed() -> None:
    assert runs(LinearRegression()) == [100, 2000]
    assert runs(LinearRegression(steps=7)) == [7]
    assert runs(EXAMPLES["gradient_update"]()) == [1, 2000]
    assert runs(EXAMPLES["sgd_single_sample"]()) == [1000]
    assert RUNS.keys() <= EXAMPLES.keys()
    for (name, steps), asked in ASKED.items():
        assert steps in RUNS[name]
        assert Row(name, steps, "float32", "one", 1, "trace").asked == asked
        assert Row(name, steps, "float32", "all", 2, "trace").asked is None
        assert Row(name, steps, "float32", "one", 1, "scan").asked is None


def made(variant: str = "scan", cores: str = "one", **changes: Any) -> Row:
    row = Row("zero_grad", 5, "float32", cores, 1, variant, Spread(2, 1, 3), Spread(9, 8, 10), 0.25)
    return dataclasses.replace(row, verdict="rounding", **changes)


BROKEN = made("fused", ratio=None, us=None, first=None, problem="mismatch: step 1")
MADE = [made("eager", ratio=Spread(1, 1, 1)), BROKEN, made("scan", chaotic_from=4), made("trace")]


def test_table_has_ratios_first() -> None:
    lines = table.lines(MADE)
    assert lines[1] == "zero_grad, 5 steps, float32, one core"
    assert [line.split("  ")[1] for line in lines[3:]] == [LABELS[row.variant] for row in MADE]
    assert lines[4] == "  PyTorch fused              not timed: mismatch: step 1"
    expected = "JAX scan 2 (1 to 3) 9 (8 to 10) 0.25 rounding, to step 4"
    assert " ".join(lines[5].split()) == expected
    gate = Cost("gate", Spread(1.1, 1, 1.2), 1.15, "zero_grad", 9)
    expected = "gate / both trainings, zero_grad, 9 steps, float64: 1.1 (1 to 1.2), asked for: 1.15"
    assert table.lines([gate]) == ["", expected]


def test_plot_has_a_mark_for_every_figure() -> None:
    others = [dataclasses.replace(row, cores="all") for row in MADE]
    figure = ratios_figure([*MADE, *others, Cost("start", Spread(1, 1, 1), 0.3)])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["one core", "all cores"]
    for axes in figure.axes:
        marks = axes.get_legend_handles_labels()[1]
        assert marks == ["JAX scan", "JAX scan with the trace"]  # what failed is not drawn
    ratios_figure([BROKEN]).canvas.draw()  # nothing to draw is no error


def test_markdown_stands_between_its_markers() -> None:
    start = Cost("start", Spread(0.1, 0.1, 0.1), 0.3)
    value = json.loads(json.dumps(report([*MADE, start], ["x"])))
    before = f"# Text\n{markdown.START}\nold\n{markdown.END}\nmore\n"
    after = markdown.put_in(before, value)
    assert after.startswith(f"# Text\n{markdown.START}\nTaken on ")
    assert after.endswith(f"{markdown.END}\nmore\n")
    assert "old" not in after
    assert "| `zero_grad` | 5 | 9 (8 to 10) | not timed: mismatch: step 1 | 2 (1 to 3) |" in after
    assert "| seconds of `twinstep --help` | 0.1 (0.1 to 0.1) | 0.3 |" in after
    assert markdown.put_in(after, value) == after
    with pytest.raises(InputError, match="no <!-- figures -->"):
        markdown.put_in("# Text\n", value)


def test_readme_has_a_line_for_every_run_and_optimizer() -> None:
    written = README.read_text()
    assert markdown.put_in(written, report(MADE)) != written
    _, _, figures = written.partition(markdown.START)
    for name, counts in RUNS.items():
        for steps in counts:
            assert figures.count(f"| `{name}` | {steps} |") >= 2, "a ratio and a first call"
        assert f"gate / both trainings, `{name}`" in figures
    assert "seconds of `twinstep --help`" in figures
    _, _, figures = written.partition("<!-- optimizers -->")
    figures = figures.partition("<!-- /optimizers -->")[0]
    for name in ("adam", "adamw", "sgd, momentum 0.9", "rmsprop"):
        assert figures.count(f"| {name} |") == 1
