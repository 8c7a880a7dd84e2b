"""What a comparison finds: a verdict, and the entries of the ledger that led to it."""

import cmath
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """What a comparison comes to.

    Attributes:
        EQUAL: The same bits.
        ROUNDING: Other bits, all within what rounding explains.
        DRIFT: Every step alone is rounding, but the free run grew apart.
        MISMATCH: A fault: an entry is outside its allowance, or the structure differs.
        INVALID: Nothing was proved, as where all gradients are zero.

    Example:
        >>> import twinstep
        >>> [str(verdict) for verdict in twinstep.Verdict if verdict.same]
        ['equal', 'rounding']
    """

    EQUAL = "equal"
    ROUNDING = "rounding"
    DRIFT = "drift"
    MISMATCH = "mismatch"
    INVALID = "invalid"

    @property
    def same(self) -> bool:
        """Whether the two runs train the same; drift is no fault, but it is not the same run."""
        return self in (Verdict.EQUAL, Verdict.ROUNDING)


@dataclass(frozen=True)
class Finding:
    """One leaf at one step, at its worst entry.

    Attributes:
        step: The number of the update, from 1; 0 for what was there before the first.
        stage: The kind of entry, such as "loss", "raw_grads" or "params".
        leaf: The name of the array, PyTorch's where it is a parameter's.
        index: Of the entry in the leaf; () for a number.
        reference, candidate: The two values there, complex in a complex leaf.
        difference: The largest absolute one in the leaf; of complex values, the modulus.
        allowed: What rounding explains, in the same unit.
        ulps: How many numbers of the dtype lie between the two values.
        sides: Whose the two values are, by framework where that tells them apart.

    Example:
        >>> import twinstep
        >>> finding = twinstep.Finding(
        ...     step=3, stage="params", leaf="weight", index=(0, 1), reference=1.0,
        ...     candidate=1.5, difference=0.5, allowed=0.25, ulps=4194304,
        ... )
        >>> print(finding)
        step 3, params, weight[0, 1]: first 1, second 1.5, apart 0.5, allowed 0.25
        >>> finding.ratio
        2.0
    """

    step: int
    stage: str
    leaf: str
    index: tuple[int, ...]
    reference: complex
    candidate: complex
    difference: float
    allowed: float
    ulps: float
    sides: tuple[str, str] = ("first", "second")

    @property
    def numbers(self) -> bool:
        """Whether neither value is a nan or an inf."""
        return cmath.isfinite(self.reference) and cmath.isfinite(self.candidate)

    @property
    def ratio(self) -> float:
        """The difference in units of what is allowed; inf where no multiple of it would do."""
        if self.difference == 0:
            return 0.0
        if not self.numbers or not 0 < self.allowed < math.inf:
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
    """What a comparison found: a verdict and the entries that led to it.

    "gate" means each step made again from the recorded state before it; "free" means two runs,
    each on its own.

    Attributes:
        verdict: What it comes to.
        reason: The verdict in a sentence.
        first: The first entry outside its allowance, in the ledger's order; None: there is none.
        worst: {"gate" or "free": {stage: the entry that comes nearest to its allowance, or is
            furthest past it}}.
        bound: Where the free run's allowance comes from.
        steps: How many were compared.
        chaotic_from: The step, from 1, from which on rounding alone carries the free run to
            another course; None: it does not.
        notes: What else is to be known of it, a sentence each.
        causes: Known differences, each of which makes what was found, a sentence each.

    Example:
        >>> import twinstep
        >>> trace = twinstep.run(twinstep.examples()["zero_grad"](steps=2), framework="torch")
        >>> found = twinstep.compare(trace, trace)
        >>> print(found)
        equal: the same bits
        >>> found.verdict.same, found.steps, found.first
        (True, 2, None)
    """

    verdict: Verdict
    reason: str
    first: Finding | None
    worst: Mapping[str, Mapping[str, Finding]]
    bound: str
    steps: int
    chaotic_from: int | None
    notes: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}"

    def smallest_allowance(self, mode: str) -> float:
        """The smallest multiple of the allowance with which a mode would have passed.

        Args:
            mode: "gate" or "free".

        Returns:
            The largest ratio of a difference to what is allowed; nan where no value was judged.
        """
        found = self.worst.get(mode, {}).items()
        ratios = [f.ratio for stage, f in found if stage != "batch" or f.ratio]
        return max(ratios, default=math.nan)

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain JSON values.

        Returns:
            {name: value}; a number that JSON lacks (nan, inf) is a string.
        """
        return {
            "verdict": str(self.verdict),
            "same": self.verdict.same,
            "reason": self.reason,
            "steps": self.steps,
            "first": None if self.first is None else _plain(self.first),
            "bound": self.bound,
            "chaotic_from": self.chaotic_from,
            "notes": list(self.notes),
            "causes": list(self.causes),
            "smallest_allowance": {
                mode: json_number(self.smallest_allowance(mode)) for mode in self.worst
            },
            "worst": {
                mode: {stage: _plain(finding) for stage, finding in stages.items()}
                for mode, stages in self.worst.items()
            },
        }


def _told_apart(a: complex, b: complex) -> tuple[str, str]:
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
        key: str(value)
        if isinstance(value, complex)
        else json_number(value)
        if isinstance(value, float)
        else value
        for key, value in asdict(finding).items()
    }
    lists = {"index": list(finding.index), "sides": list(finding.sides)}
    return plain | lists | {"ratio": json_number(finding.ratio)}
