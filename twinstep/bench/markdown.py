"""A benchmark's JSON as the tables of `benchmarks/README.md`."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from twinstep.bench.timing import Spread
from twinstep.errors import InputError
from twinstep.trace.variants import LABELS

START, END = "<!-- figures -->", "<!-- /figures -->"

_Row = Mapping[str, Any]
_HEADS = {"one": "On one core", "all": "On all cores"}


def put_in(readme: str, report: Mapping[str, Any]) -> str:
    """The text with new figures between its markers. Raises InputError where it has none."""
    return between(START, END, readme, figures(report))


def between(start: str, end: str, text: str, new: str) -> str:
    """The text with something new between two markers. Raises InputError where it has none."""
    if not re.search(f"{start}.*{end}", text, re.DOTALL):
        raise InputError(f"the text has no {start} and {end} to put figures between")
    before, _, rest = text.partition(start)
    return f"{before}{start}\n{new}{end}{rest.partition(end)[2]}"


def figures(report: Mapping[str, Any]) -> str:
    """All tables."""
    machine, rows = report["machine"], report["rows"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    text = [
        f"Taken on {machine['processor']}, {machine['cores']} cores; {versions}, "
        f"Python {machine['python']}.",
        "",
    ]
    usual = [row for row in rows if row["variant"] != "compile"]
    for cores, head in _HEADS.items():
        if mine := [row for row in usual if row["cores"] == cores]:
            text += [f"### {head}", "", *_ratios(mine), ""]
    if first := [row for row in usual if row["cores"] == usual[0]["cores"]]:
        text += ["### The first call, seconds", "", *_firsts(first), ""]
    if compiled := [row for row in rows if row["variant"] == "compile"]:
        text += ["### torch.compile, on one core", "", *_compiled(compiled), ""]
    if report["costs"]:
        text += ["### What proving costs", "", *_costs(report["costs"]), ""]
    return "\n".join([*text, *(f"{note[0].upper()}{note[1:]}." for note in report["notes"])])


def _ratios(rows: Sequence[_Row]) -> list[str]:
    """A line a run: what PyTorch eager takes, and how many times as fast the others are."""
    variants = [
        variant
        for variant in LABELS
        if variant != "eager" and any(row["variant"] == variant for row in rows)
    ]
    asked = any(row["asked"] for row in rows)
    heads = [
        "example",
        "steps",
        "PyTorch eager, us a step",
        *(LABELS[variant] for variant in variants),
    ]
    lines = []
    for (example, steps), run in _runs(rows).items():
        base = run["eager"]
        cells = [f"`{example}`", str(steps), _spread(base, "us")]
        cells += [_spread(run[variant], "ratio") if variant in run else "" for variant in variants]
        wish = run["trace"]["asked"] if "trace" in run else None
        lines.append([*cells, *(["" if wish is None else f"{wish:g}"] if asked else [])])
    return lined_up([*heads, *(["asked for"] if asked else [])], lines)


def _firsts(rows: Sequence[_Row]) -> list[str]:
    variants = [variant for variant in LABELS if any(row["variant"] == variant for row in rows)]
    lines = [
        [
            f"`{example}`",
            str(steps),
            *(_number(run.get(variant, {}).get("first")) for variant in variants),
        ]
        for (example, steps), run in _runs(rows).items()
    ]
    return lined_up(["example", "steps", *(LABELS[variant] for variant in variants)], lines)


def _compiled(rows: Sequence[_Row]) -> list[str]:
    lines = [
        [
            f"`{row['example']}`",
            str(row["steps"]),
            _spread(row, "ratio"),
            _spread(row, "us"),
            _number(row["first"]),
        ]
        for row in rows
    ]
    return lined_up(["example", "steps", "times as fast", "us a step", "first call, s"], lines)


def _costs(costs: Sequence[_Row]) -> list[str]:
    lines = []
    for cost in costs:
        what = (
            "seconds of `twinstep --help`"
            if cost["what"] == "start"
            else f"gate / both trainings, `{cost['example']}`, {cost['steps']} steps, float64"
        )
        lines.append([what, _spread(cost, "value"), f"{cost['asked']:g}"])
    return lined_up(["what", "figure", "asked for"], lines)


def _runs(rows: Sequence[_Row]) -> dict[tuple[str, int], dict[str, _Row]]:
    runs: dict[tuple[str, int], dict[str, _Row]] = {}
    for row in rows:
        runs.setdefault((row["example"], row["steps"]), {})[row["variant"]] = row
    return runs


def _spread(row: _Row, name: str) -> str:
    """A median with its quartiles, or why there is none."""
    value = row[name]
    if value is None:
        return f"not timed: {row['problem']}"
    return str(Spread(**value))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


def lined_up(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """A table's lines."""
    rows = [heads, ["---"] * len(heads), *lines]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
