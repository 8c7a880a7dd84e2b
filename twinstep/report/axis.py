"""The parts of a plot: panels of a fixed size, axes of steps and powers of ten, notes upon them."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = {
    "ink": "#1d2530",
    "muted": "#565f6b",
    "grid": "#dfe3e8",
    "torch": "#b8501a",
    "jax": "#1f5fa8",
    "allowed": "#3b7a57",
    "difference": "#5b3f8c",
    "fault": "#b3261e",
}
"""Each role's colour on white; as SVG it can be replaced by a CSS variable, --plot-ROLE."""

PANEL_WIDTH = 4.8  # inches, as all of these
_LEFT, _RIGHT, _TOP, _BOTTOM, _GAP = 0.66, 0.12, 0.5, 0.42, 0.26


def grid(
    rows: int, columns: int, height: float, width: float = PANEL_WIDTH
) -> tuple["Figure", list[list["Axes"]]]:
    """A figure of panels of a fixed size: what fits is known, nothing has to be tried."""
    from matplotlib.figure import Figure

    total = _TOP + rows * height + (rows - 1) * _GAP + _BOTTOM
    figure = Figure((columns * width, total))
    inner = (1 - (_LEFT + _RIGHT) / width) / columns
    bottoms = [_BOTTOM + (rows - 1 - row) * (height + _GAP) for row in range(rows)]
    lefts = [(column + _LEFT / width) / columns for column in range(columns)]
    panels = [
        [figure.add_axes((left, bottom / total, inner, height / total)) for left in lefts]
        for bottom in bottoms
    ]
    return figure, panels


def decades(axes: "Axes", low: float, high: float, *, zero: bool = False) -> tuple[float, float]:
    """A log axis over powers of ten, with a line for 0 below them; its lowest and highest."""
    top = max(high + 0.3, math.ceil(low) + 0.2)
    bottom = low - 0.3
    first, last = math.ceil(bottom), math.floor(top)
    pace = max(1, math.ceil((last - first + 1) / 4))
    ticks: list[float] = [float(tick) for tick in range(first, last + 1, pace)]
    labels = [f"{10.0**tick:g}" if abs(tick) < 4 else f"1e{int(tick)}" for tick in ticks]
    if zero:
        bottom -= 0.35 * max(1.0, (top - bottom) / 4)
        ticks, labels = [bottom, *ticks], ["0", *labels]
    axes.set_ylim(bottom, top)
    axes.set_yticks(ticks, labels)
    axes.tick_params(length=2.5)
    axes.grid(axis="y", color=COLORS["grid"], linewidth=0.6)
    axes.set_axisbelow(True)
    return bottom, top


def plain(axes: "Axes", low: float, high: float) -> None:
    """An axis of plain numbers that leaves some room about them."""
    # never so near that a difference in the last digits fills the panel
    margin = max(0.08 * (high - low), 0.02 * max(abs(low), abs(high))) or 1.0
    axes.set_ylim(low - margin, high + margin)
    axes.locator_params(axis="y", nbins=5)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.tick_params(length=2.5)
    axes.grid(axis="y", color=COLORS["grid"], linewidth=0.6)
    axes.set_axisbelow(True)


def steps(axes: "Axes", count: int, *, said: bool = True) -> None:
    """The axis of the steps, from 1; said: with their numbers."""
    from matplotlib.ticker import MaxNLocator

    count = max(count, 1)
    margin = 0.5 if count == 1 else max(0.02 * (count - 1), 0.05)
    axes.set_xlim(1 - margin, count + margin)
    ticks = MaxNLocator(5, integer=True, min_n_ticks=1).tick_values(1, count)
    inner = [int(tick) for tick in ticks if 1 <= tick <= count] or [1]
    axes.set_xticks(inner, [str(tick) for tick in inner] if said else [""] * len(inner))
    if said:
        axes.set_xlabel("step", labelpad=1)


def mark(axes: "Axes", step: int, last: int, text: str, height: float = 0.78) -> None:
    """A line at the step from which on there is nothing to draw, and why."""
    axes.axvline(step, color=COLORS["fault"], linewidth=0.9, linestyle=(0, (4, 2)), zorder=2)
    late = step > (1 + last) / 2
    axes.annotate(
        text,
        (step, height),
        xycoords=("data", "axes fraction"),
        xytext=(-4 if late else 4, 0),
        textcoords="offset points",
        ha="right" if late else "left",
        va="center",
        color=COLORS["fault"],
        fontsize=8,
    )


def unjudged(axes: "Axes", chaotic_from: int, last: int, *, said: bool) -> None:
    """From here on rounding alone parts two runs, and nothing is allowed or forbidden."""
    axes.axvspan(chaotic_from, last + 1, color=COLORS["muted"], alpha=0.12, linewidth=0, zorder=0)
    if said:
        axes.annotate(
            "not judged: chaos",
            ((chaotic_from + last) / 2, 0.1),
            xycoords=("data", "axes fraction"),
            ha="center",
            color=COLORS["muted"],
            fontsize=8,
        )


def note(axes: "Axes", text: str) -> None:
    """A remark at the lower right."""
    axes.text(
        0.985, 0.1, text, transform=axes.transAxes, ha="right", color=COLORS["muted"], fontsize=8
    )


def nothing(axes: "Axes") -> None:
    """A panel of which nothing is known."""
    axes.set_yticks([])
    axes.text(0.5, 0.5, "not compared", transform=axes.transAxes, ha="center", va="center")
