"""What pages are made of: verdicts, shares and findings as text, and the templates."""

import math
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from twinstep.judge.findings import Finding, Verdict

PLOT_WIDTH = 4.2  # inches: three stand side by side, and their text is not to shrink
SIGNS = {
    Verdict.EQUAL: "=",
    Verdict.ROUNDING: "≈",
    Verdict.DRIFT: "~",
    Verdict.MISMATCH: "≠",
    Verdict.INVALID: "?",
}
"""Beside its word, each verdict has a sign: none is told by colour alone."""


class Badge(NamedTuple):
    """A verdict: its word and its sign."""

    word: str
    sign: str


class Cell(NamedTuple):
    """A share of the allowance: as text, and in percent of it, at most 100, for the bar."""

    text: str
    percent: float
    over: bool


class Line(NamedTuple):
    """One finding, as text."""

    mode: str
    stage: str
    leaf: str
    step: str
    torch: str
    jax: str
    difference: str
    allowed: str
    ulps: str
    share: str
    over: bool


@cache
def template(name: str) -> Any:
    """A template of a page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def line(mode: str, finding: Finding, dtype: str) -> Line:
    """A finding as text."""
    index = f"[{', '.join(map(str, finding.index))}]" if finding.index else ""
    return Line(
        mode=mode,
        stage=finding.stage,
        leaf=f"{finding.leaf}{index}",
        step=str(finding.step),
        torch=_value(finding.reference, finding.stage, dtype),
        jax=_value(finding.candidate, finding.stage, dtype),
        difference=_amount(finding.difference),
        allowed=_amount(finding.allowed),
        ulps=f"{finding.ulps:.0f}" if finding.ulps < 1e6 else f"{finding.ulps:.1e}",
        share=share(finding.ratio),
        over=not finding.ratio <= 1,
    )


def badge(verdict: Verdict) -> Badge:
    """A verdict's word and sign."""
    return Badge(str(verdict), SIGNS[verdict])


def cell(ratio: float) -> Cell:
    """A share of the allowance, as text and as a bar."""
    bar = 100 * min(ratio, 1.0) if ratio == ratio else 100.0
    return Cell(share(ratio), round(bar, 1), not ratio <= 1)


def share(ratio: float) -> str:
    """A difference in units of what is allowed, in two digits."""
    if not math.isfinite(ratio):
        return "∞"
    if ratio < 99.5:
        return f"{ratio:.2g}"
    return f"{ratio:.0f}" if ratio < 1000 else f"{ratio:.1e}"


def _value(value: complex, stage: str, dtype: str) -> str:
    """A number in as many digits as tell it from its neighbours."""
    if stage == "batch":
        return f"{value:.0f}"
    return f"{value:.9g}" if dtype == "float32" else f"{value:.17g}"


def _amount(value: float) -> str:
    return "0" if value == 0 else f"{value:.2e}" if math.isfinite(value) else str(value)
