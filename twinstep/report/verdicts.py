"""What was verified, as text: a verdict a row, what is behind each, what the documents claim."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from twinstep.judge.findings import Comparison, Verdict
from twinstep.problems.base import Claim
from twinstep.report import table
from twinstep.report.table import Column
from twinstep.runs.pool import Lost
from twinstep.runs.verification import Verification
from twinstep.trace.stages import STEPS

STYLES = {
    Verdict.EQUAL: "bold green",
    Verdict.ROUNDING: "green",
    Verdict.DRIFT: "yellow",
    Verdict.MISMATCH: "bold red",
    Verdict.INVALID: "magenta",
}
_LOST = "bold red"
_STAGES = {stage.name: stage.column for stage in STEPS if stage.column}
"""{stage of a column: its turn to leave a narrow screen}"""
_WIDE = 120  # columns from which claims are a table

_LEGEND = (
    "the largest difference of a single step, from the same state, in units of what rounding "
    "explains, which is the smallest allowance that would pass; free run: the same of two "
    "trainings left to themselves, to the step from which on rounding alone parts two runs of this "
    "training, if there is one."
)


def print_verifications(found: Sequence[Verification | Lost]) -> None:
    """A verdict a row, what is behind each, and what the documents claim."""
    console = table.screen()
    heads = table.show(console, _columns(found)) if found else []
    stages = [stage for stage in _STAGES if stage in heads] or ["a stage"]
    legend = f"{' to '.join(dict.fromkeys((stages[0], stages[-1])))}: {_LEGEND}"
    if "nearest" in heads:
        legend = f"nearest: the figure that comes nearest to its limit; {legend}"
    console.print(legend, style="dim", highlight=False)
    results = [result for result in found if not isinstance(result, Lost)]
    for line in _reasons(found):
        console.print(line)
    notes = {note: None for result in results for note in result.comparison.notes}
    for note in notes:
        names = [r.spec.name for r in results if note in r.comparison.notes]
        console.print(escape(f"{', '.join(names)}: {note}"), style="dim", highlight=False)
    _print_nearer(console, results)
    _print_costs(console, results)
    _print_claims(console, results)
    counts = {v: sum(r.comparison.verdict is v for r in results) for v in Verdict}
    kinds = [f"{count} {verdict}" for verdict, count in counts.items() if count]
    kinds += [f"{len(found) - len(results)} lost"] if len(found) > len(results) else []
    console.print(f"\n{len(found)} verified: {', '.join(kinds)}", style="bold")


def verdict_of(result: Verification | Lost) -> tuple[str, str]:
    """The verdict in a word, and its style."""
    if isinstance(result, Lost):
        return "lost", _LOST
    return str(result.comparison.verdict), STYLES[result.comparison.verdict]


def ratio(value: float) -> str:
    """A difference in units of what is allowed, in two digits; - where nothing was judged."""
    if math.isnan(value):
        return "-"
    return "0" if value == 0 else f"{value:.2g}" if value < 1000 else f"{value:.1e}"


def nearest(comparison: Comparison) -> str:
    """The figure that comes nearest to its limit, or furthest past it, and what it is of."""
    figures = {
        "free run" if mode == "free" else stage: finding.ratio
        for mode, stages in comparison.worst.items()
        for stage, finding in stages.items()
        if mode != "free" or finding.ratio == comparison.smallest_allowance("free")
    }
    if not any(figures.values()):
        return "0"
    stage = max(figures, key=lambda stage: figures[stage])
    return f"{stage} {ratio(figures[stage])}"


def _columns(found: Sequence[Verification | Lost]) -> list[Column]:
    """The table of `print_verifications`; of what was lost there is a name and that it was."""
    comparisons = [None if isinstance(one, Lost) else one.comparison for one in found]

    def of(stage: str) -> list[str]:
        gates = [c.worst.get("gate", {}) if c else {} for c in comparisons]
        return [ratio(gate[stage].ratio) if stage in gate else "-" for gate in gates]

    steps = [str(c.steps) if c else "-" for c in comparisons]
    seconds = ["-" if isinstance(one, Lost) else f"{one.seconds:.1f}" for one in found]
    words, styles = zip(*map(verdict_of, found), strict=True)
    return [
        Column("example", [one.spec.name for one in found]),
        Column("dtype", [one.spec.dtype for one in found]),
        Column("steps", steps, right=True, leaves=2),
        Column("verdict", words, styles=styles),
        *[Column(stage, of(stage), right=True, leaves=turn) for stage, turn in _STAGES.items()],
        Column("free run", [_free(c) if c else "-" for c in comparisons], right=True, leaves=7),
        Column(
            "nearest",
            [nearest(c) if c else "-" for c in comparisons],
            right=True,
            enters=min(_STAGES.values()),
        ),
        Column("seconds", seconds, right=True, leaves=1),
    ]


def _reasons(found: Sequence[Verification | Lost]) -> Iterator[str]:
    """Why what is not the same is not, as rich's markup."""
    for result in found:
        verdict, style = verdict_of(result)
        where = escape(f"{result.spec.name} ({result.spec.dtype})")
        if isinstance(result, Lost):
            yield f"\n[{style}]{where}: {verdict}[/] {escape(result.why)}"
        elif not result.comparison.verdict.same:
            yield f"\n[{style}]{where}: {verdict}[/] {escape(result.comparison.reason)}"


def _print_nearer(console: Console, results: Sequence[Verification]) -> None:
    """Which side of a float32 pair is nearer to the float64 run."""
    rows = [(r.spec.name, r.distances, r.nearer) for r in results if r.distances]
    if not rows:
        return
    columns = [
        Column("float32, away from float64", [name for name, _, _ in rows]),
        Column("torch", [f"{distances['torch']:.1e}" for _, distances, _ in rows]),
        Column("jax", [f"{distances['jax']:.1e}" for _, distances, _ in rows]),
        Column("nearer", ["as near" if nearer == "both" else str(nearer) for _, _, nearer in rows]),
    ]
    table.show(console, columns)


def _print_costs(console: Console, results: Sequence[Verification]) -> None:
    """What the fast modes cost, where they were asked for."""
    rows = []
    for result in results:
        for name, cost in (result.costs or {}).items():
            run = result.runs[name]
            pairs = zip(astuple(cost.fast), astuple(cost.full), strict=True)
            shown = [f"{fast:.1e} ({full:.1e})" for fast, full in pairs]
            bits = "the same as at highest" if cost.same_bits else "others"
            if cost.same_bits and run.precision == "highest":
                bits = f"no fast mode on {run.device}: the same bits"
            rows.append((result.spec.name, name, run.precision, *shown, bits))
    if not rows:
        return
    figures = ("first loss", "any loss", "parameters")
    heads = ("away from float64", "side", "products in", *figures, "bits")
    leaves = {"any loss": 1, "first loss": 2, "bits": 3}
    columns = zip(heads, zip(*rows, strict=True), strict=True)
    table.show(console, [Column(head, cells, leaves=leaves.get(head)) for head, cells in columns])
    console.print(
        "at --precision default, in brackets at highest: a measurement of accuracy, no proof "
        "of parity; the verdicts above allow what they always do.",
        style="dim",
        highlight=False,
    )


def _print_claims(console: Console, results: Sequence[Verification]) -> None:
    """What the documents say and what was measured, once an example; in a narrow screen a list."""
    claims = []
    seen = set()
    for result in results:
        for claim in () if result.spec.name in seen else _with_accuracy(result):
            holds = {True: "yes", False: "no", None: ""}[claim.holds]
            number, name = result.spec.document.number, result.spec.name
            claims.append((number, name, claim.says, claim.measured, holds))
        seen.add(result.spec.name)
    if claims and console.width < _WIDE:
        console.print("\nwhat the documents say, and what was measured:", style="bold")
        told = {"yes": ": it holds", "no": ": it does not hold", "": ""}
        table.paragraphs(
            console,
            [
                (f"{number} {name}: {says}", f"{measured}{told[holds]}")
                for number, name, says, measured, holds in claims
            ],
        )
    elif claims:
        grid = Table(box=table.box(console), pad_edge=False, header_style="bold")
        for head in ("document", "example", "says", "measured", "holds"):
            grid.add_column(head, overflow="fold")
        for *cells, holds in claims:
            grid.add_row(*map(escape, cells), "[red]no[/]" if holds == "no" else holds)
        console.print(grid)


def _with_accuracy(result: Verification) -> list[Claim]:
    """The claims; where both sides were tested on images, both accuracies."""
    claims = list(result.claims)
    if result.accuracy:
        both = ", ".join(f"{name} {value:.2f} %" for name, value in result.accuracy.items())
        claims.append(Claim("accuracy on the test images", both, None))
    return claims


def _free(comparison: Comparison) -> str:
    text = ratio(comparison.smallest_allowance("free"))
    return f"{text} to {comparison.chaotic_from}" if comparison.chaotic_from else text
