"""What was found as text: a block an example, ratios first."""

from collections.abc import Sequence

from twinstep.bench.rows import Cost, Found, Row
from twinstep.trace.variants import LABELS

_CORES = {"one": "one core", "all": "all cores"}
_HEAD = ("", "times as fast", "us a step", "first call, s", "parity", "")
FOOT = (
    "times as fast as PyTorch eager, and microseconds a step: the median of turns, with quartiles; "
    "first call: JAX traces\nand compiles in it; parity: of that very run; to step n: from there "
    "on rounding alone parts runs like this."
)


def lines(found: Sequence[Found]) -> list[str]:
    """The lines of what one task found."""
    rows = [one for one in found if isinstance(one, Row)]
    text = [line for one in found if isinstance(one, Cost) for line in _cost_lines(one)]
    return (_block(rows) if rows else []) + text


def _block(rows: Sequence[Row]) -> list[str]:
    first = rows[0]
    where = _CORES[first.cores] + (f" ({first.threads})" if first.cores == "all" else "")
    title = f"{first.example}, {first.steps} steps, {first.dtype}, {where}"
    cells = [_HEAD] + [_cells(row) for row in rows if row.problem is None]
    width = [max(len(row[i]) for row in cells) for i in range(len(_HEAD))]
    width[0] = max(map(len, LABELS.values()))
    shown = iter(cells[1:])
    text = ["", title, _aligned(cells[0], width)]
    for row in rows:
        if row.problem is None:
            text.append(_aligned(next(shown), width))
        else:
            text.append(f"  {LABELS[row.variant]:{width[0]}}  not timed: {row.problem}")
    return text


def _cells(row: Row) -> tuple[str, ...]:
    if row.ratio is None or row.us is None or row.first is None:
        raise ValueError(f"{row.variant} has no figure and no reason")
    parity = f"{row.verdict}, to step {row.chaotic_from}" if row.chaotic_from else str(row.verdict)
    ratio = "1" if row.variant == "eager" else str(row.ratio)
    asked = "" if row.asked is None else f"asked for: {row.asked:g}"
    return (LABELS[row.variant], ratio, str(row.us), f"{row.first:.3g}", parity, asked)


def _aligned(cells: Sequence[str], width: Sequence[int]) -> str:
    parts = [f"{cell:{size}}" for cell, size in zip(cells, width, strict=True)]
    return ("  " + "  ".join(parts)).rstrip()


def _cost_lines(cost: Cost) -> list[str]:
    what = (
        "twinstep --help, seconds"
        if cost.what == "start"
        else f"gate / both trainings, {cost.example}, {cost.steps} steps, float64"
    )
    if cost.value is None:
        return ["", f"{what}: not timed: {cost.problem}"]
    return ["", f"{what}: {cost.value}, asked for: {cost.asked:g}"]
