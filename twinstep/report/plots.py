"""Results as plots: the losses of both frameworks, and every stage's difference over the steps.

Figures are made without pyplot, so nothing global is touched. Each colour has a role; as SVG a
role is a CSS variable, so that a page decides what it looks like on paper, by day and by night.
"""

import functools
import html
import io
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

from twinstep.errors import InputError
from twinstep.judge.findings import Comparison
from twinstep.judge.history import Curve
from twinstep.report import axis, write_bytes
from twinstep.report.axis import COLORS
from twinstep.runs.verification import Verification
from twinstep.trace.stages import STEPS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


STAGES = [stage.name for stage in STEPS if stage.noisy]
MODES = {"gate": "gate", "free": "free run"}
MAX_POINTS = 256  # what a small panel can show
_HEIGHT = {"loss": 1.9, "difference": 0.92}  # inches
_HUGE = 1e300  # beyond it an axis of plain numbers overflows
_MAX_DECADES = 20  # below that part of the largest, a number is drawn as 0
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": COLORS["muted"],
    "axes.labelcolor": COLORS["ink"],
    "text.color": COLORS["ink"],
    "xtick.color": COLORS["muted"],
    "ytick.color": COLORS["muted"],
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.borderaxespad": 0,
    "legend.columnspacing": 1.2,
    "svg.fonttype": "none",  # text stays text: small, searchable, and in the page's own typeface
    "svg.hashsalt": "twinstep",
    "path.simplify": False,  # it drops the points that `_dots` draws
}


P = ParamSpec("P")


def _styled(make: Callable[P, "Figure"]) -> Callable[P, "Figure"]:
    """Makes a figure in the house style, whatever the caller's own settings are."""

    @functools.wraps(make)
    def styled(*args: P.args, **kwargs: P.kwargs) -> "Figure":
        import matplotlib

        with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
            return make(*args, **kwargs)

    return styled


@_styled
def losses_figure(results: Sequence[Verification], *, width: float = axis.PANEL_WIDTH) -> "Figure":
    """The losses of both frameworks over the steps, a panel a result; width: of one, in inches."""
    figure, rows = axis.grid(1, len(results), _HEIGHT["loss"], width)
    for axes, result in zip(rows[0], results, strict=True):
        losses = {name: outcome.losses.astype(float) for name, outcome in result.outcomes.items()}
        values = np.concatenate([array[np.isfinite(array)] for array in losses.values()])
        low, high = (values.min(), values.max()) if len(values) else (1.0, 1.0)
        logarithmic = low > 0 and (high / 20 > low or high > 1e100)
        # the one broad and pale, the other narrow and dark upon it: both show where they are equal
        for name, width, alpha in (("torch", 4.5, 0.4), ("jax", 1.3, 1.0)):
            steps, shown = _outline(losses[name])
            if logarithmic:
                with np.errstate(divide="ignore", invalid="ignore"):
                    shown = np.log10(shown)
            label = {"torch": "PyTorch", "jax": "JAX"}[name]
            style: dict[str, Any] = {"color": COLORS[name], "label": label, "zorder": 3}
            if np.isfinite(shown).sum() == 1:  # a line has no length
                style |= {"marker": "o", "markersize": 2 * width, "linestyle": "none"}
            shown = np.where(np.isfinite(shown), np.clip(shown, -_HUGE, _HUGE), np.nan)
            axes.plot(steps, shown, linewidth=width, alpha=alpha, **style)
        if logarithmic:
            axis.decades(axes, math.log10(low), math.log10(high))
        else:
            axis.plain(axes, max(low, -_HUGE), min(high, _HUGE))
        count = max(map(len, losses.values()))
        for name, array in losses.items():
            bad = np.flatnonzero(~np.isfinite(array))
            if len(bad):
                where = {"torch": 0.9, "jax": 0.76}[name]
                text = f"{name} {array[bad[0]]} from step {bad[0] + 1}"
                axis.mark(axes, bad[0] + 1, count, text, where)
        axis.steps(axes, count)
        chaotic_from = result.comparison.chaotic_from
        if (
            chaotic_from and chaotic_from <= count
        ):  # or two curves that part would look like a fault
            axis.unjudged(axes, chaotic_from, count, said=False)
        scale = " (log)" if logarithmic else ""
        axes.set_title(f"loss{scale}, {result.spec.dtype}")
        axes.legend(loc="lower right", bbox_to_anchor=(1.01, 0.98), ncols=2)
    return figure


@_styled
def differences_figure(
    comparison: Comparison,
    history: Mapping[tuple[str, str], Curve],
    dtype: str,
    modes: Sequence[str] = ("gate", "free"),
    *,
    width: float = axis.PANEL_WIDTH,
) -> "Figure":
    """Every stage's difference over the steps beside what is allowed; the first fault is marked.

    modes: a column each; width: of one, in inches
    """
    stages = [s for s in STAGES if any((mode, s) in history for mode in modes)] or ["loss"]
    figure, rows = axis.grid(len(stages), len(modes), _HEIGHT["difference"], width)
    chaotic_from, count = comparison.chaotic_from, comparison.steps
    for row, stage in zip(rows, stages, strict=True):
        for axes, mode in zip(row, modes, strict=True):
            curve = history.get((mode, stage))
            axis.steps(axes, count, said=stage == stages[-1])
            if curve is None:
                axis.nothing(axes)
            else:
                _difference(axes, curve)
                _mark_first(axes, curve, comparison, stage)
            if mode == "free" and chaotic_from and chaotic_from <= count:
                axis.unjudged(axes, chaotic_from, count, said=stage == stages[0])
            axes.text(
                0.0, 1.0, f" {stage}", transform=axes.transAxes, va="bottom", fontweight="bold"
            )
    for axes, mode in zip(rows[0], modes, strict=True):
        axes.set_title(f"{MODES[mode]}, {dtype}", pad=17)
    _legend(rows[0][-1])
    return figure


def svg(figure: "Figure", prefix: str = "", label: str = "") -> str:
    """The figure as an SVG element to put into a page.

    prefix: goes before every id, so that two figures of one page share none
    label: what the figure shows, for those who do not see it
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    # a style element would be the whole page's
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text[text.index("<svg") :], flags=re.DOTALL)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda m: f' id="{prefix}{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(href="#|url\(#)', rf"\1{prefix}", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    text = re.sub(r' transform="rotate\(-0 [^"]*"', "", text)
    # a hundredth of a point is more than anyone sees, and two thirds of the text are such digits
    text = re.sub(r' (d|x|y)="[^"]*"', lambda m: re.sub(r"(\.\d\d)\d+", r"\1", m[0]), text)
    text = re.sub(r"\s*\n\s*", " ", text)
    for role, color in COLORS.items():
        text = text.replace(color, f"var(--plot-{role}, {color})")
    box = re.search(r'viewBox="[^"]*"', text)
    root = (
        f'<svg {box[0] if box else ""} role="img" aria-label="{html.escape(label)}" '
        'stroke-linejoin="round" xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return root + text[text.index(">") + 1 :].strip()


def save(figure: "Figure", path: str | Path) -> None:
    """Writes the figure to a file, PNG or SVG by its ending. Raises InputError."""
    import matplotlib

    kind = Path(path).suffix.lower()
    if kind not in (".png", ".svg"):
        raise InputError(f"{path} ends in {kind!r}, expected .png or .svg")
    # a file that is looked at by itself has no page whose typeface and colours it could take
    style = {**STYLE, "svg.fonttype": "path"}
    drawn = io.BytesIO()
    with matplotlib.rc_context(style):  # type: ignore[arg-type]
        metadata = {"Date": None} if kind == ".svg" else {}
        figure.savefig(drawn, format=kind[1:], dpi=160, facecolor="white", metadata=metadata)
    write_bytes(path, drawn.getvalue())


def _difference(axes: "Axes", curve: Curve) -> None:
    """One stage: dots for the difference, a line for what is allowed; the bottom line is 0."""
    curve = _thinned(curve)
    steps = curve.steps.astype(float)
    difference, allowed = curve.difference.astype(float), curve.allowed.astype(float)
    finite = np.concatenate([difference, allowed])
    finite = finite[np.isfinite(finite) & (finite > 0)]
    high = math.log10(finite.max()) if len(finite) else -16.0
    low = max(math.log10(finite.min()), high - _MAX_DECADES) if len(finite) else -17.0
    low, high = axis.decades(axes, low, high, zero=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        heights = np.where(difference > 0, np.maximum(np.log10(difference), low), low)
        limits = np.where(allowed > 0, np.maximum(np.log10(allowed), low), low)
    heights[~np.isfinite(difference)] = high - 0.06 * (high - low)
    limits[~np.isfinite(allowed)] = np.nan
    outside = ~((difference <= allowed) | (difference == 0))
    axes.axhline(low, color=COLORS["muted"], linewidth=0.6, linestyle=(0, (1, 2)), zorder=1)
    edges = (
        np.concatenate(
            [
                [1.5 * steps[0] - 0.5 * steps[1]],
                (steps[1:] + steps[:-1]) / 2,
                [1.5 * steps[-1] - 0.5 * steps[-2]],
            ]
        )
        if len(steps) > 1
        else steps[0] + np.array([-0.25, 0.25])
    )
    color = COLORS["allowed"]
    axes.stairs(limits, edges, baseline=low, fill=True, color=color, alpha=0.13, linewidth=0)
    axes.stairs(limits, edges, baseline=None, color=color, linewidth=1.0, zorder=2)
    size = 4.0 if len(steps) <= 20 else 2.4 if len(steps) <= 120 else 1.7
    _dots(axes, steps[~outside], heights[~outside], size)
    if outside.any():
        axes.plot(
            steps[outside],
            heights[outside],
            linestyle="none",
            marker="x",
            markersize=4,
            color=COLORS["fault"],
            zorder=4,
            clip_on=False,
        )
    if not difference.any():
        axis.note(axes, "exactly equal at every step" if len(steps) > 1 else "exactly equal")
    bad = np.flatnonzero(~np.isfinite(difference))
    if len(bad):
        word = "not a number" if np.isnan(difference[bad[0]]) else "infinite"
        axis.mark(
            axes, int(steps[bad[0]]), int(steps[-1]), f"{word} from step {int(steps[bad[0]])}"
        )


def _mark_first(axes: "Axes", curve: Curve, comparison: Comparison, stage: str) -> None:
    """A line and its words where the first fault is, if it is of this stage and seen here."""
    first = comparison.first
    if first is None or first.stage != stage:
        return
    here = curve.steps == first.step
    if np.any(here & ~(curve.difference <= curve.allowed) & np.isfinite(curve.difference)):
        text = f"step {first.step}: {first.entry}"
        axis.mark(axes, first.step, comparison.steps, text, 0.22)


def _dots(axes: "Axes", x: np.ndarray, y: np.ndarray, size: float) -> None:
    """Round dots as one path of the shortest strokes: a marker each would be ten times the text."""
    gaps, left, right = np.full(len(x), np.nan), *axes.get_xlim()
    axes.plot(
        np.stack([x, x + 1e-4 * (right - left), gaps], axis=1).ravel(),
        np.stack([y, y, gaps], axis=1).ravel(),
        color=COLORS["difference"],
        linewidth=size,
        solid_capstyle="round",
        snap=False,  # snapped to pixels, most would vanish
        zorder=3,
        clip_on=False,
    )


def _legend(axes: "Axes") -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    dot = {"marker": "o", "markersize": 3.5, "linestyle": "none", "color": COLORS["difference"]}
    handles: list[Any] = [
        Line2D([], [], label="difference", **dot),  # type: ignore[arg-type]
        Patch(facecolor=(*_rgb("allowed"), 0.13), edgecolor=COLORS["allowed"], label="allowed"),
    ]
    axes.legend(
        handles=handles,
        loc="lower right",
        bbox_to_anchor=(1.01, 1.0),
        ncols=2,
        handlelength=1.2,
    )


def _rgb(role: str) -> tuple[float, float, float]:
    color = COLORS[role]
    red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def _thinned(curve: Curve) -> Curve:
    """At most MOST_POINTS points: of neighbours the one that is nearest to what it is allowed."""
    count = len(curve.steps)
    if count <= MAX_POINTS:
        return curve
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = curve.difference / curve.allowed
    ratio = np.where(np.isnan(ratio) & (curve.difference != 0), np.inf, np.nan_to_num(ratio))
    edges = np.linspace(0, count, MAX_POINTS + 1).astype(int)
    kept = [low + int(np.argmax(ratio[low:high])) for low, high in itertools.pairwise(edges)]
    return Curve(*(array[kept] for array in curve))


def _outline(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps from 1 and losses; of a long run the smallest and the largest of neighbours."""
    if len(losses) <= 4 * MAX_POINTS:
        return np.arange(1, len(losses) + 1), losses
    edges = np.linspace(0, len(losses), MAX_POINTS + 1).astype(int)
    kept: set[int] = {0, len(losses) - 1}
    for low, high in itertools.pairwise(edges):
        piece = losses[low:high]
        kept |= {low + int(np.argmin(piece)), low + int(np.argmax(piece))}
    order = np.array(sorted(kept))
    return order + 1, losses[order]
