"""What `twinstep bench` shows: the table, the plot, the figures in benchmarks/README.md."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from twinstep import InputError
from twinstep.bench import markdown, table
from twinstep.bench.plot import ratios_figure
from twinstep.bench.rows import ASKED, RUNS, Cost, Row, report, runs
from twinstep.bench.timing import Spread
from twinstep.problems import EXAMPLES
from twinstep.problems.regression import LinearRegression
from twinstep.trace.variants import LABELS

README = Path(__file__).parents[2] / "benchmarks" / "README.md"


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
    value = json.loads(
        json.dumps(report([*MADE, Cost("start", Spread(0.1, 0.1, 0.1), 0.3)], ["x"]))
    )
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


def test_readme_has_a_line_for_every_run() -> None:
    written = README.read_text()
    assert markdown.put_in(written, report(MADE)) != written
    _, _, figures = written.partition(markdown.START)
    for name, counts in RUNS.items():
        for steps in counts:
            assert figures.count(f"| `{name}` | {steps} |") >= 2, "a ratio and a first call"
        assert f"gate / both trainings, `{name}`" in figures
    assert "seconds of `twinstep --help`" in figures


def test_readme_has_a_line_for_every_optimizer() -> None:
    _, _, figures = README.read_text().partition("<!-- optimizers -->")
    figures = figures.partition("<!-- /optimizers -->")[0]
    for name in ("adam", "adamw", "sgd, momentum 0.9", "rmsprop"):
        assert figures.count(f"| {name} |") == 1
