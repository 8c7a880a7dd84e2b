"""Results as text: tables as wide as the terminal, plain columns when piped."""

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.markup import escape

from twinstep.judge.findings import Comparison, json_number
from twinstep.problems.base import Spec
from twinstep.report import table
from twinstep.report.table import Column
from twinstep.report.verdicts import STYLES, ratio
from twinstep.trace.ledger import Outcome


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

    def of_most(values: Sequence[str]) -> str:
        value, count = Counter(values).most_common(1)[0]
        return value if 2 * count > len(values) else "as in the row"

    return {
        "set": name,
        "rows": len(specs),
        "document": first.document.number,
        "model": of_most([spec.model for spec in specs]),
        "loss": of_most([spec.objective for spec in specs]),
        "steps": first.total_steps,
    }


# the smaller the sooner it leaves a narrow screen
_LEAVES = {"section": 1, "steps": 2, "document": 3, "loss": 4, "model": 5, "optimizer": 6}


def print_examples(
    examples: Sequence[Mapping[str, Any]], sets: Sequence[Mapping[str, Any]]
) -> None:
    """The list of examples, and of sets below it, as `describe` and `describe_set` have them."""
    console = table.screen()
    for rows in (examples, sets):
        columns = [
            Column(
                head,
                [str(row[head]) for row in rows],
                right=head in ("steps", "rows"),
                leaves=_LEAVES.get(head),
            )
            for head in rows[0]
        ]
        table.show(console, columns)
        if rows is examples:
            console.print("\nsets of many small trainings, for verify:", style="bold")


def outcome_values(outcome: Outcome) -> dict[str, Any]:
    """How a run ended, as plain JSON values; nan and inf as strings."""
    return {
        "losses": [json_number(loss) for loss in outcome.losses.tolist()],
        "params": {
            name: np.vectorize(json_number, otypes=[object])(array).tolist()
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


def print_comparison(comparison: Comparison) -> None:
    """One comparison of two traces."""
    console = table.screen()
    style = STYLES[comparison.verdict]
    console.print(f"[{style}]{comparison.verdict}[/]: {escape(comparison.reason)}")
    several = "may be: " if len(comparison.causes) > 1 else "cause: "
    for cause in comparison.causes:
        console.print(escape(f"{several}{cause}"))
    passing = max(map(comparison.smallest_allowance, comparison.worst), default=math.nan)
    console.print(
        f"{comparison.steps} steps; allowance: {comparison.bound}; "
        f"{ratio(passing)} of it would have passed"
    )
    for note in comparison.notes:
        console.print(escape(note))
    if comparison.chaotic_from:
        console.print(
            f"values judged to step {comparison.chaotic_from - 1}: from there on it is chaos"
        )
    for mode, worst in comparison.worst.items():
        of = f"{mode}: " if len(comparison.worst) > 1 else ""
        for stage, finding in worst.items():
            console.print(f"  {of}{stage:9} {escape(str(finding))}, {finding.ulps:.0f} ulps")
