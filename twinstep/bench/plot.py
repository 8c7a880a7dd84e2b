"""The ratios as a plot: a line a run, a mark a way, all on one log axis."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from twinstep.bench.rows import Found, Row
from twinstep.report.axis import COLORS
from twinstep.trace.variants import LABELS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKS = {"foreach": "s", "fused": "D", "compile": "P", "step": "v", "scan": "o", "trace": "X"}
_ROW, _ROOM, _WIDTH = 0.27, 1.25, 8.0  # inches
_TITLES = {"one": "one core", "all": "all cores"}


def ratios_figure(found: Sequence[Found]) -> "Figure":
    """How many times as fast as PyTorch eager each way is; a panel a number of cores."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    rows = [one for one in found if isinstance(one, Row)]
    panels = [cores for cores in _TITLES if any(row.cores == cores for row in rows)]
    runs = list(dict.fromkeys((row.example, row.steps) for row in rows))
    height = len(panels) * len(runs) * _ROW + _ROOM + 0.45 * len(panels)
    with rc_context({"font.size": 8.5, "text.color": COLORS["ink"]}):
        figure = Figure((_WIDTH, height), layout="constrained")
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
        for (axes,), cores in zip(grid, panels, strict=True):
            axes.set_title(_TITLES[cores], loc="left", fontsize=9)
            axes.axvline(1, color=COLORS["torch"], linewidth=1.2, zorder=1)
            mine = [row for row in rows if row.cores == cores and row.ratio is not None]
            _marks(axes, mine, runs)
            axes.set_yticks(range(len(runs)), [f"{name}, {steps}" for name, steps in runs])
            axes.set_ylim(len(runs) - 0.5, -0.5)
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.grid(axis="x", color=COLORS["grid"], linewidth=0.6)
            axes.grid(axis="y", color=COLORS["grid"], linewidth=0.4)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        grid[-1][0].set_xlabel("times as fast as PyTorch eager (line), with quartiles; log axis")
        handles, labels = _legend(grid, rows)
        if handles:
            figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return figure


def _marks(axes: Any, rows: Sequence[Row], runs: Sequence[tuple[str, int]]) -> None:
    for variant, mark in _MARKS.items():
        points = [
            (row.ratio, runs.index((row.example, row.steps)))
            for row in rows
            if row.variant == variant and row.ratio is not None
        ]
        if not points:
            continue
        middles = [ratio.median for ratio, _ in points]
        axes.errorbar(
            middles,
            [line for _, line in points],
            xerr=[
                [ratio.median - ratio.low for ratio, _ in points],
                [ratio.high - ratio.median for ratio, _ in points],
            ],
            color=COLORS["jax" if variant in ("step", "scan", "trace") else "torch"],
            marker=mark,
            markersize=4.5,
            markerfacecolor="white" if variant in ("foreach", "fused", "step") else None,
            linestyle="none",
            elinewidth=1,
            label=LABELS[variant],
        )


def _legend(grid: Any, rows: Sequence[Row]) -> tuple[list[Any], list[str]]:
    """One entry a way, whichever panel it is in."""
    found = [axes.get_legend_handles_labels() for (axes,) in grid]
    pairs = [pair for handles, labels in found for pair in zip(labels, handles, strict=True)]
    known: dict[str, Any] = functools.reduce(lambda d, p: {p[0]: p[1], **d}, pairs, {})
    names = [LABELS[variant] for variant in _MARKS if LABELS[variant] in known]
    return [known[name] for name in names], names
