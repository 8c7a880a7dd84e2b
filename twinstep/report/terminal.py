"""Results as text: tables and a progress bar on a terminal, plain columns when piped."""

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from twinstep.findings import Comparison, Verdict
from twinstep.many import Finished, Lost, Progress
from twinstep.specs.base import Claim, Spec
from twinstep.trace import Outcome
from twinstep.verify import Verification

_STYLES = {
    Verdict.EQUAL: "bold green",
    Verdict.ROUNDING: "green",
    Verdict.DRIFT: "yellow",
    Verdict.MISMATCH: "bold red",
    Verdict.INVALID: "magenta",
}
_STAGES = ("loss", "grads", "opt_state", "params")
_PIPED_WIDTH = 160

Hear = Callable[[Progress | Finished], None]


def nothing(line: str) -> None:
    """Says nothing."""


def describe(kind: type[Spec]) -> dict[str, Any]:
    """An example in a few words, as plain JSON values."""
    spec = kind()
    return {
        "example": kind.name,
        "document": kind.document.number,
        "section": kind.document.section,
        "model": kind.model,
        "loss": kind.objective,
        "optimizer": kind.update,
        "steps": spec.total_steps,
    }


def describe_set(name: str, specs: Sequence[Spec]) -> dict[str, Any]:
    """A set of many trainings in a few words, as `describe` has an example."""
    first = specs[0]
    return {
        "example": name,
        "document": first.document.number,
        "section": f"{len(specs)} rows, for verify",
        "model": first.model,
        "loss": first.objective,
        "optimizer": first.update,
        "steps": first.total_steps,
    }


def print_examples(rows: Sequence[Mapping[str, Any]]) -> None:
    """The list of examples, as `describe` and `describe_set` have them."""
    table = _table(*rows[0])
    for row in rows:
        table.add_row(*map(str, row.values()))
    _console().print(table)


def outcome_values(outcome: Outcome) -> dict[str, Any]:
    """How a run ended, as plain JSON values; nan and inf as strings."""
    return {
        "losses": [_json_number(loss) for loss in outcome.losses.tolist()],
        "params": {
            name: np.vectorize(_json_number, otypes=[object])(array).tolist()
            for name, array in outcome.params.items()
        },
        "metrics": dict(outcome.metrics),
    }


def report_finite(outcome: Outcome) -> bool:
    """Whether every loss is a number; says on stderr where the first one is not."""
    bad = np.flatnonzero(~np.isfinite(outcome.losses))
    if len(bad):
        print(f"step {bad[0] + 1}: the loss is {outcome.losses[bad[0]]}", file=sys.stderr)
    return not len(bad)


@contextlib.contextmanager
def progress(specs: Sequence[Spec], *, show: bool) -> Iterator[Hear]:
    """A bar on a terminal; gives what is to hear how it goes."""
    from rich import progress as bars

    console = Console(stderr=True)
    if not (show and console.is_terminal):
        yield lambda event: None
        return
    columns = [
        bars.TextColumn("verifying"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
    ]
    with bars.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=len(specs))

        def hear(event: Progress | Finished) -> None:
            if isinstance(event, Finished):
                bar.advance(task)

        yield hear


def print_verifications(found: Sequence[Verification | Lost]) -> None:
    """A verdict a row, what is behind each, and what the documents claim."""
    console = _console()
    table = _table("example", "dtype", "steps", "verdict", *_STAGES, "free run", "seconds")
    for column in table.columns[2:3] + table.columns[4:]:
        column.justify = "right"
    results = [result for result in found if not isinstance(result, Lost)]
    for result in found:
        if isinstance(result, Lost):
            table.add_row(result.spec.name, result.spec.dtype, "-", "[bold red]lost[/]", *"-" * 6)
            continue
        comparison = result.comparison
        gate = comparison.worst.get("gate", {})
        table.add_row(
            result.spec.name,
            result.spec.dtype,
            str(comparison.steps),
            f"[{_STYLES[comparison.verdict]}]{comparison.verdict}[/]",
            *(_ratio(gate[stage].ratio) if stage in gate else "-" for stage in _STAGES),
            _free(comparison),
            f"{result.seconds:.1f}",
        )
    console.print(table)
    console.print(
        "loss to params: the largest difference of a single step, from the same state, in units of "
        "what rounding\nexplains, which is the smallest allowance that would pass; free run: the "
        "same of two trainings left to themselves,\nto the step from which on rounding alone parts "
        "two runs of this training, if there is one.",
        style="dim",
    )
    _print_reasons(console, results)
    _print_nearer(console, results)
    _print_costs(console, results)
    _print_claims(console, results)
    counts = {v: sum(r.comparison.verdict is v for r in results) for v in Verdict}
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    lost = len(found) - len(results)
    summary += f"{', ' if summary and lost else ''}{f'{lost} lost' if lost else ''}"
    console.print(f"\n{len(found)} verified: {summary}", style="bold")


def print_comparison(comparison: Comparison) -> None:
    """One comparison of two traces."""
    console = _console()
    style = _STYLES[comparison.verdict]
    console.print(f"[{style}]{comparison.verdict}[/]: {_escape(comparison.reason)}")
    console.print(
        f"{comparison.steps} steps; allowance: {comparison.bound}; "
        f"{_ratio(comparison.smallest_allowance('free'))} of it would have passed"
    )
    for note in comparison.notes:
        console.print(_escape(note))
    if comparison.horizon:
        console.print(f"values judged to step {comparison.horizon - 1}: from there on it is chaos")
    for stage, finding in comparison.worst.get("free", {}).items():
        console.print(f"  {stage:9} {_escape(str(finding))}, {finding.ulps:.0f} ulps")


def _print_reasons(console: Console, results: Sequence[Verification]) -> None:
    for result in results:
        if not result.comparison.verdict.same:
            where = f"{result.spec.name} ({result.spec.dtype})"
            console.print(
                f"\n[{_STYLES[result.comparison.verdict]}]{where}: {result.comparison.verdict}[/] "
                f"{_escape(result.comparison.reason)}"
            )


def _print_nearer(console: Console, results: Sequence[Verification]) -> None:
    """Which side of a float32 pair is nearer to the float64 run."""
    rows = [(result.spec.name, result.distances) for result in results if result.distances]
    if not rows:
        return
    table = _table("float32, away from float64", "torch", "jax", "nearer")
    for name, distances in rows:
        torch, jax = distances["torch"], distances["jax"]
        nearer = "as near" if torch == jax else "torch" if torch < jax else "jax"
        table.add_row(name, f"{torch:.1e}", f"{jax:.1e}", nearer)
    console.print(table)


def _print_costs(console: Console, results: Sequence[Verification]) -> None:
    """What the fast modes cost, where they were asked for."""
    columns = ("first loss", "any loss", "parameters", "bits")
    table = _table("away from float64", "side", "products in", *columns)
    for result in results:
        for name, cost in (result.costs or {}).items():
            run = result.runs[name]
            pairs = zip(astuple(cost.fast), astuple(cost.full), strict=True)
            figures = [f"{fast:.1e} ({full:.1e})" for fast, full in pairs]
            bits = "the same as at highest" if cost.same_bits else "others"
            if cost.same_bits and run.precision == "highest":
                bits = f"no fast mode on {run.device}: the same bits"
            table.add_row(result.spec.name, name, run.precision, *figures, bits)
    if table.row_count:
        console.print(table)
        console.print(
            "at --precision default, in brackets at highest: a measurement of accuracy, no proof "
            "of parity;\nthe verdicts above allow what they always do.",
            style="dim",
        )


def _print_claims(console: Console, results: Sequence[Verification]) -> None:
    """What the documents say and what was measured, once an example."""
    table = _table("document", "example", "says", "measured", "holds")
    seen = set()
    for result in results:
        for claim in () if result.spec.name in seen else _with_accuracy(result):
            holds = {True: "yes", False: "[red]no[/]", None: ""}[claim.holds]
            name, number = result.spec.name, result.spec.document.number
            table.add_row(number, name, _escape(claim.says), _escape(claim.measured), holds)
        seen.add(result.spec.name)
    if table.row_count:
        console.print(table)


def _with_accuracy(result: Verification) -> list[Claim]:
    """The claims; where both sides were tested on images, both accuracies."""
    claims = list(result.claims)
    if all("correct" in outcome.metrics for outcome in result.outcomes.values()):
        percent = {
            name: 100 * outcome.metrics["correct"] / outcome.metrics["test_images"]
            for name, outcome in result.outcomes.items()
        }
        both = ", ".join(f"{name} {value:.2f} %" for name, value in percent.items())
        claims.append(Claim("accuracy on the test images", both, None))
    return claims


def _free(comparison: Comparison) -> str:
    ratio = _ratio(comparison.smallest_allowance("free"))
    return f"{ratio} to {comparison.horizon}" if comparison.horizon else ratio


def _ratio(value: float) -> str:
    return "0" if value == 0 else f"{value:.2g}" if value < 1000 else f"{value:.1e}"


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=_PIPED_WIDTH, no_color=True)


def _table(*columns: str) -> Table:
    terminal = Console().is_terminal
    table = Table(box=SIMPLE if terminal else None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
