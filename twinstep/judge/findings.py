"""What a comparison finds: a verdict, and the entries of the ledger that led to it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """What a comparison comes to."""

    EQUAL = "equal"  # the same bits
    ROUNDING = "rounding"  # within the allowance
    DRIFT = "drift"  # every step alone is rounding, the free run grew apart
    MISMATCH = "mismatch"  # a fault
    INVALID = "invalid"  # nothing was proved

    @property
    def same(self) -> bool:
        """Whether the two runs train the same; drift is no fault, but it is not the same run."""
        return self in (Verdict.EQUAL, Verdict.ROUNDING)


@dataclass(frozen=True)
class Finding:
    """One leaf at one step, at its worst entry.

    step: from 1; 0 for what was there before the first update
    reference, candidate: the two values at `index` of the leaf
    difference: the largest in the leaf; allowed: what rounding explains
    ulps: how many numbers of the dtype lie between the two values
    sides: whose the two values are, by framework where that tells them apart
    """

    step: int
    stage: str
    leaf: str
    index: tuple[int, ...]
    reference: float
    candidate: float
    difference: float
    allowed: float
    ulps: float
    sides: tuple[str, str] = ("first", "second")

    @property
    def ratio(self) -> float:
        """The difference in units of what is allowed; inf where no multiple of it would do."""
        if self.difference == 0:
            return 0.0
        numbers = math.isfinite(self.reference) and math.isfinite(self.candidate)
        if not numbers or not 0 < self.allowed < math.inf:
            return math.inf
        return self.difference / self.allowed

    @property
    def entry(self) -> str:
        """The leaf and the index in it, "weight[0, 2]"."""
        return f"{self.leaf}{list(self.index)}" if self.index else self.leaf

    def __str__(self) -> str:
        values = zip(self.sides, _told_apart(self.reference, self.candidate), strict=True)
        said = ", ".join(f"{side} {value}" for side, value in values)
        return (
            f"step {self.step}, {self.stage}, {self.entry}: {said}, apart {self.difference:.2g}, "
            f"allowed {self.allowed:.2g}"
        )


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    reason: the verdict in a sentence
    first: the first entry outside its allowance, in the ledger's order
    worst: {"gate" or "free": {stage: the entry that comes nearest to, or furthest past, its
        allowance}}
    bound: where the free run's allowance comes from
    steps: how many were compared
    chaotic_from: the step from which on rounding alone carries the free run to another course
    notes: what else is to be known of it, a sentence each
    """

    verdict: Verdict
    reason: str
    first: Finding | None
    worst: Mapping[str, Mapping[str, Finding]]
    bound: str
    steps: int
    chaotic_from: int | None
    notes: tuple[str, ...] = ()

    def smallest_allowance(self, mode: str) -> float:
        """The smallest multiple of the allowance with which "gate" or "free" would have passed.

        nan where no value was judged.
        """
        found = self.worst.get(mode, {}).items()
        ratios = [f.ratio for stage, f in found if stage != "batch" or f.ratio]
        return max(ratios, default=math.nan)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; a number that JSON lacks (nan, inf) becomes a string."""
        return {
            "verdict": str(self.verdict),
            "same": self.verdict.same,
            "reason": self.reason,
            "steps": self.steps,
            "first": None if self.first is None else _plain(self.first),
            "bound": self.bound,
            "chaotic_from": self.chaotic_from,
            "notes": list(self.notes),
            "smallest_allowance": {
                mode: json_number(self.smallest_allowance(mode)) for mode in self.worst
            },
            "worst": {
                mode: {stage: _plain(finding) for stage, finding in stages.items()}
                for mode, stages in self.worst.items()
            },
        }


def _told_apart(a: float, b: float) -> tuple[str, str]:
    """Two numbers in as few digits as tell one from the other, but no fewer than three."""
    if isinstance(a, int):  # a fingerprint
        return str(a), str(b)
    for digits in range(3, 17):
        if f"{a:.{digits}g}" != f"{b:.{digits}g}":
            break
    else:
        digits = 3 if a == b else 17
    return f"{a:.{digits}g}", f"{b:.{digits}g}"


def json_number(value: float) -> float | str:
    """A number as JSON has it; one that it lacks (nan, inf) as a string."""
    return value if math.isfinite(value) else str(value)


def _plain(finding: Finding) -> dict[str, Any]:
    plain = {
        key: json_number(value) if isinstance(value, float) else value
        for key, value in asdict(finding).items()
    }
    lists = {"index": list(finding.index), "sides": list(finding.sides)}
    return plain | lists | {"ratio": json_number(finding.ratio)}
