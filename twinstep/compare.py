"""Two traces -> a Comparison. Pure functions over NumPy; no framework, no files.

Every entry of the ledger is measured as one number a step, the largest absolute difference of the
leaf, and held against one allowance a step. NaN is within no allowance.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

from twinstep import tolerance
from twinstep.errors import InputError
from twinstep.trace import STAGES, Leaves, Metadata, Trace


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

    @property
    def ratio(self) -> float:
        """The difference in units of what is allowed."""
        if self.difference == 0:
            return 0.0
        return self.difference / self.allowed if self.allowed else math.inf

    def __str__(self) -> str:
        where = f"{self.leaf}{list(self.index)}" if self.index else self.leaf
        return (
            f"step {self.step}, {self.stage}, {where}: {self.reference!r} and {self.candidate!r} "
            f"are {self.difference:.3g} apart, {self.allowed:.3g} allowed"
        )


class Structure(NamedTuple):
    """A difference that comes before all values: a name, a shape, a dtype or a length."""

    stage: str
    leaf: str
    says: str

    def __str__(self) -> str:
        return f"{self.stage}, {self.leaf}: {self.says}" if self.leaf else self.says


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    reason: the verdict in a sentence
    first: the first entry outside its allowance, in the ledger's order
    worst: {"gate" or "free": {stage: the entry that comes nearest to, or furthest past, its
        allowance}}
    bound: where the free run's allowance comes from
    steps: how many were compared
    horizon: the step from which on rounding alone carries the free run to another course
    """

    verdict: Verdict
    reason: str
    first: Finding | None
    worst: Mapping[str, Mapping[str, Finding]]
    bound: str
    steps: int
    horizon: int | None

    def smallest_allowance(self, mode: str) -> float:
        """The smallest multiple of the allowance with which "gate" or "free" would have passed."""
        return max((finding.ratio for finding in self.worst.get(mode, {}).values()), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; a number that JSON lacks (nan, inf) becomes a string."""
        return {
            "verdict": str(self.verdict),
            "same": self.verdict.same,
            "reason": self.reason,
            "steps": self.steps,
            "first": None if self.first is None else _plain(self.first),
            "bound": self.bound,
            "horizon": self.horizon,
            "smallest_allowance": {
                mode: _number(self.smallest_allowance(mode)) for mode in self.worst
            },
            "worst": {
                mode: {stage: _plain(finding) for stage, finding in stages.items()}
                for mode, stages in self.worst.items()
            },
        }


def structure(reference: Trace, candidate: Trace) -> Structure | None:
    """The first name, shape, dtype or length in which two traces differ; None: in nothing."""
    if len(reference) != len(candidate):
        return Structure("", "", f"{len(reference)} steps and {len(candidate)} steps")
    if reference.start != candidate.start:
        return Structure("", "", f"they start at steps {reference.start} and {candidate.start}")
    mine = {(stage, leaf): array for stage, leaf, array in reference.entries()}
    theirs = {(stage, leaf): array for stage, leaf, array in candidate.entries()}
    for key in sorted(mine.keys() | theirs.keys(), key=lambda key: STAGES.index(key[0])):
        a, b = mine.get(key), theirs.get(key)
        if a is None or b is None:
            return Structure(*key, f"only the {'second' if a is None else 'first'} trace has it")
        if a.shape[1:] != b.shape[1:]:
            return Structure(*key, f"shapes {a.shape[1:]} and {b.shape[1:]}")
        if a.dtype != b.dtype:
            return Structure(*key, f"dtypes {a.dtype} and {b.dtype}")
    return None


def compare(reference: Trace, candidate: Trace, *, steps: int | None = None) -> Comparison:
    """Judges two free runs of the same problem, whichever frameworks and machines they ran on.

    The allowance is the noise that the traces bring (the larger where both do), else a plain
    bound. `steps`: compare the first ones only. Raises InputError for traces of different
    problems, names, shapes, dtypes or lengths.
    """
    if steps is not None:
        reference, candidate = reference.cut(0, steps), candidate.cut(0, steps)
    refuse_other_problem(reference.metadata, candidate.metadata)
    if difference := structure(reference, candidate):
        raise InputError(f"the traces differ: {difference}")
    judge = Judge(reference.metadata.dtype)
    judge.free(reference, candidate)
    return judge.comparison()


def refuse_other_problem(a: Metadata, b: Metadata) -> None:
    """Raises InputError when two traces are not of one example with one setting."""
    if a.example != b.example:
        raise InputError(f"the traces are of different examples: {a.example} and {b.example}")
    ours, theirs = dict(a.spec), dict(b.spec)
    differ = [key for key in sorted(ours.keys() | theirs.keys()) if _differs(ours, theirs, key)]
    if differ:
        pairs = ", ".join(f"{key} {ours.get(key)!r} and {theirs.get(key)!r}" for key in differ)
        raise InputError(f"the traces are of different settings: {pairs}")


# Where the run's length and data came from is no part of the problem: the length is compared as
# such, the data by the fingerprint of every batch.
_NOT_THE_PROBLEM = {"epochs", "steps", "data_dir"}


def _differs(ours: Mapping[str, Any], theirs: Mapping[str, Any], key: str) -> bool:
    def plain(value: Any) -> Any:
        return list(value) if isinstance(value, tuple) else value

    return key not in _NOT_THE_PROBLEM and plain(ours.get(key)) != plain(theirs.get(key))


@dataclass
class Judge:
    """Takes a run chunk by chunk and comes to one Comparison; holds nothing that grows with it.

    gate: recorded steps against the same steps made by the other side from the same states
    free: two runs, each on its own
    horizon: the step from which on rounding alone parts runs like this one, if it does
    """

    dtype: str
    horizon: int | None = None
    _steps: dict[str, int] = field(default_factory=lambda: {"gate": 0, "free": 0})
    _worst: dict[str, dict[str, Finding]] = field(default_factory=dict)
    _first: dict[str, Finding] = field(default_factory=dict)
    _carried: dict[tuple[str, str, str], float] = field(default_factory=dict)
    _measured_noise: bool = True
    _same_bits: bool = True
    _structure: Structure | None = None
    _last_loss: float | None = None
    _loss_moved: bool = False
    _params_moved: bool = False
    _gradient_seen: bool = False

    def gate(
        self,
        recorded: Trace,
        replayed: Trace,
        scales: Leaves,
        remeasure: Callable[[np.ndarray], Leaves] | None = None,
    ) -> None:
        """Judges each step alone: each of `replayed` was made from the state before in `recorded`.

        scales: {"stage/leaf": (T,)} the size of what losses and gradients are made of
        remeasure: gives larger, dearer sizes for the rows that the first ones do not explain
        """
        if self._refuse(recorded, replayed):
            return
        self._witness(recorded)
        if remeasure:
            rows = self._unexplained(recorded, replayed, scales)
            if len(rows):
                careful = remeasure(rows)
                scales = {name: sizes.copy() for name, sizes in scales.items()}
                for name, sizes in careful.items():
                    scales[name][rows] = np.fmax(scales[name][rows], sizes)

        def allowed(stage: str, leaf: str, array: np.ndarray) -> np.ndarray:
            return self._one_step("gate", recorded, scales, stage, leaf, array)

        self._measure("gate", recorded, replayed, allowed)

    def free(self, reference: Trace, candidate: Trace) -> None:
        """Judges two runs by the noise that they bring, or by the plain bound."""
        if self._refuse(reference, candidate):
            return
        self._witness(reference)
        if reference.start == 0:
            self._initial(reference, candidate)
        measured = [
            (trace.noise, trace.scales)
            for trace in (reference, candidate)
            if trace.noise is not None and trace.scales is not None
        ]
        self._measured_noise = self._measured_noise and bool(measured)
        steps = reference.start + np.arange(1, len(reference) + 1)
        chaos = self._chaos(reference, [noise for noise, _ in measured])

        def allowed(stage: str, leaf: str, array: np.ndarray) -> np.ndarray:
            if not measured or stage == "batch":
                return self._plain_bound(stage, leaf, array, steps)
            key = f"{stage}/{leaf}"
            noise = np.max([noise[key] for noise, _ in measured], axis=0)
            noise = self._running(("noise", stage, leaf), noise)
            one_step = [
                self._one_step("free", reference, scales, stage, leaf, array)
                for _, scales in measured
            ]
            limit = tolerance.NOISE_FACTOR * noise + np.max(one_step, axis=0)
            return np.where(chaos, np.inf, limit)

        self._measure("free", reference, candidate, allowed)

    def _chaos(self, trace: Trace, noises: list[Leaves]) -> np.ndarray:
        """(T,) whether rounding alone has carried runs like this one to another course."""
        if not noises:
            return np.zeros(len(trace), bool)
        noise = np.max([noise["loss/loss"] for noise in noises], axis=0)
        noise = self._running(("chaos", "noise", ""), noise)
        size = self._running(("chaos", "size", ""), np.abs(trace.losses))
        chaos = noise > tolerance.chaos(self.dtype) * size
        if self.horizon is None and chaos.any():
            self.horizon = trace.start + int(np.argmax(chaos)) + 1
        return chaos

    def _unexplained(self, recorded: Trace, replayed: Trace, scales: Leaves) -> np.ndarray:
        """The rows in which a loss or a gradient is further off than the sizes explain."""
        theirs = {(stage, leaf): array for stage, leaf, array in replayed.entries()}
        outside = np.zeros(len(recorded), bool)
        for stage, leaf, array in recorded.entries():
            if stage in ("loss", "grads"):
                limit = self._one_step("gate", recorded, scales, stage, leaf, array)
                outside |= ~(_differences(array, theirs[stage, leaf]) <= limit)
        return np.flatnonzero(outside)

    def _one_step(
        self, mode: str, trace: Trace, scales: Leaves, stage: str, leaf: str, array: np.ndarray
    ) -> np.ndarray:
        """(T,) what a single step may round, entry by entry."""
        if stage == "batch":
            return np.zeros(len(array))
        if stage in ("loss", "grads"):
            sizes = scales[f"{stage}/{leaf}"].astype(float)
        elif stage == "params":
            sizes = _largest(trace.params[leaf])
            sizes = np.maximum(sizes[1:], sizes[:-1])
        else:
            sizes = self._and_before((mode, stage, leaf), _largest(array))
        amount = tolerance.ONE_STEP_EPS[stage]
        return amount * tolerance.eps(self.dtype) * sizes + tolerance.floor(self.dtype)

    def _plain_bound(
        self, stage: str, leaf: str, array: np.ndarray, steps: np.ndarray
    ) -> np.ndarray:
        """(T,) the allowance of a free run of which no noise is known; `steps`: their numbers."""
        if stage == "batch":
            return np.zeros(len(array))
        sizes = self._running(("plain", stage, leaf), _largest(array))
        amount = tolerance.PLAIN_EPS + tolerance.PLAIN_EPS_A_STEP * steps
        return amount * tolerance.eps(self.dtype) * sizes + tolerance.floor(self.dtype)

    def comparison(self) -> Comparison:
        """The verdict on all that was judged."""
        verdict, reason, first = self._verdict()
        steps = max(self._steps.values())
        plain = f"plain bound, {tolerance.PLAIN_EPS} + {tolerance.PLAIN_EPS_A_STEP} a step eps"
        return Comparison(
            verdict=verdict,
            reason=reason,
            first=first,
            worst=self._worst,
            bound="noise measured on this run" if self._measured_noise else plain,
            steps=steps,
            horizon=self.horizon,
        )

    def _verdict(self) -> tuple[Verdict, str, Finding | None]:
        gate, free = self._first.get("gate"), self._first.get("free")
        # without a gate a free run that leaves its allowance is a fault; with one, it is drift,
        # unless it parts before the first update
        faults = [gate] if gate else []
        if free and (free.step == 0 or not self._steps["gate"]):
            faults.append(free)
        first = min(faults, key=lambda finding: finding.step, default=None)
        if self._structure:
            return Verdict.MISMATCH, f"different structure: {self._structure}", None
        if not max(self._steps.values()):
            return Verdict.INVALID, "no steps", None
        if first and not math.isfinite(first.reference) and not math.isfinite(first.candidate):
            return (
                Verdict.INVALID,
                f"step {first.step}: {first.stage} {first.leaf} is {first.reference} in the one "
                f"and {first.candidate} in the other",
                first,
            )
        if first:
            return Verdict.MISMATCH, str(first), first
        if not self._gradient_seen:
            return Verdict.INVALID, "all gradients are zero", None
        if not self._params_moved:
            return Verdict.INVALID, "no parameter ever moved", None
        if not self._loss_moved and max(self._steps.values()) > 1:
            return Verdict.INVALID, "the loss never moved", None
        if free:
            return Verdict.DRIFT, f"every step alone is rounding; {free}", free
        if self._same_bits:
            return Verdict.EQUAL, "the same bits", None
        return Verdict.ROUNDING, "within what rounding explains", None

    def _refuse(self, reference: Trace, candidate: Trace) -> bool:
        """Whether the structure differs; what is not alike is never compared by value."""
        self._structure = self._structure or structure(reference, candidate)
        return self._structure is not None

    def _witness(self, trace: Trace) -> None:
        """Notes whether anything happened: a comparison of nothing proves nothing."""
        losses = trace.losses if self._last_loss is None else [self._last_loss, *trace.losses]
        self._loss_moved = self._loss_moved or bool(np.any(np.diff(losses) != 0))
        self._last_loss = float(trace.losses[-1])
        if not self._gradient_seen:
            self._gradient_seen = any(np.any(array != 0) for array in trace.grads.values())
        if not self._params_moved:
            self._params_moved = any(np.any(a[1:] != a[:-1]) for a in trace.params.values())

    def _initial(self, reference: Trace, candidate: Trace) -> None:
        """Both must start from the very same parameters."""
        for leaf, array in reference.params.items():
            a, b = array[:1], candidate.params[leaf][:1]
            difference = _differences(a, b)
            if not difference[0] <= 0 and "free" not in self._first:
                self._first["free"] = _finding(0, "params", leaf, a[0], b[0], difference[0], 0.0)

    def _measure(self, mode: str, reference: Trace, candidate: Trace, allowed: Any) -> None:
        self._steps[mode] += len(reference)
        theirs = {(stage, leaf): array for stage, leaf, array in candidate.entries()}
        worst = self._worst.setdefault(mode, {})
        firsts = [self._first[mode]] if mode in self._first else []
        for stage, leaf, a in reference.entries():
            b = theirs[stage, leaf]
            difference, limit = _differences(a, b), allowed(stage, leaf, a)
            self._same_bits = self._same_bits and _same_bits(a, b, difference)
            outside = ~(difference <= limit)  # NaN is outside
            ratio = _ratios(difference, limit)
            picks = [int(np.argmax(ratio))]
            if outside.any():
                picks.append(int(np.argmax(outside)))
            for pick in picks:
                number = reference.start + pick + 1
                finding = _finding(
                    number, stage, leaf, a[pick], b[pick], difference[pick], limit[pick]
                )
                if outside[pick]:
                    firsts.append(finding)
                if stage not in worst or worst[stage].ratio < finding.ratio:
                    worst[stage] = finding
        if firsts:
            # min keeps the ledger's order of leaves among equals
            self._first[mode] = min(firsts, key=lambda f: (f.step, STAGES.index(f.stage)))

    def _running(self, key: tuple[str, str, str], values: np.ndarray) -> np.ndarray:
        """The maximum of all values so far, over this chunk and those before it."""
        values = np.maximum.accumulate(np.maximum(values, self._carried.get(key, 0.0)))
        self._carried[key] = float(values[-1])
        return values

    def _and_before(self, key: tuple[str, str, str], values: np.ndarray) -> np.ndarray:
        """The larger of each value and the one before it, also over the edge of a chunk."""
        before = np.concatenate([[self._carried.get(key, 0.0)], values[:-1]])
        self._carried[key] = float(values[-1])
        return np.maximum(before, values)


_BLOCK = 1 << 16  # entries at a time: a block and its difference stay in the cache


def _blocks(array: np.ndarray) -> Iterator[slice]:
    """Slices of steps, of about _BLOCK entries each."""
    rows = max(1, _BLOCK // max(1, math.prod(array.shape[1:])))
    return (slice(low, low + rows) for low in range(0, len(array), rows))


def _differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(T,) the largest absolute difference of each step; nan where either has a nan or an inf."""
    if not np.issubdtype(a.dtype, np.floating):  # fingerprints
        return np.where(a == b, 0.0, np.inf)
    result = np.empty(len(a))
    # inf - inf is nan by intent, and a difference that overflows is inf
    with np.errstate(invalid="ignore", over="ignore"):
        for rows in _blocks(a):
            gap = (a[rows] - b[rows]).reshape(len(a[rows]), -1)
            np.abs(gap, out=gap)
            result[rows] = gap.max(axis=1, initial=0)
    return result


def _largest(array: np.ndarray) -> np.ndarray:
    """(T,) the largest absolute entry of each step."""
    flat = array.reshape(len(array), -1)
    return np.maximum(flat.max(axis=1, initial=0), -flat.min(axis=1, initial=0)).astype(float)


def _ratios(difference: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """(T,) difference / limit, where nothing is 0 and nan is worse than all."""
    ratio = np.zeros(len(difference))
    np.divide(difference, limit, out=ratio, where=limit > 0)
    ratio[(limit <= 0) & (difference > 0)] = np.inf
    return np.where(np.isnan(difference), np.inf, ratio)


def _same_bits(a: np.ndarray, b: np.ndarray, difference: np.ndarray) -> bool:
    """Whether no bit differs; 0 and -0 do, though their difference is 0."""
    if not np.all(difference == 0):
        return False
    if not np.issubdtype(a.dtype, np.floating):
        return True
    return bool(np.array_equal(np.signbit(a), np.signbit(b)))


def _finding(
    step: int, stage: str, leaf: str, a: np.ndarray, b: np.ndarray, difference: float, limit: float
) -> Finding:
    """The worst entry of one leaf at one step."""
    a, b = np.asarray(a), np.asarray(b)
    if a.size == 0:
        return Finding(step, stage, leaf, (), 0.0, 0.0, 0.0, float(limit), 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(np.subtract(a, b, dtype=float))
    # a nan is the worst entry there is
    index = np.unravel_index(int(np.argmax(np.where(np.isnan(gap), np.inf, gap))), a.shape)
    x, y = a[index], b[index]
    finite = np.isfinite(difference)
    return Finding(
        step=step,
        stage=stage,
        leaf=leaf,
        index=tuple(int(i) for i in index),
        reference=x.item(),
        candidate=y.item(),
        difference=float(difference) if finite else math.inf,
        allowed=float(limit),
        ulps=_ulps(x, y),
    )


def _ulps(x: np.floating, y: np.floating) -> float:
    """How many numbers of the dtype lie between two; the bits, as integers, count them."""
    if not np.issubdtype(x.dtype, np.floating):
        return 0.0 if x == y else math.inf
    if not (np.isfinite(x) and np.isfinite(y)):
        return math.inf
    kind = f"i{x.dtype.itemsize}"

    def ordered(value: np.floating) -> int:
        bits = int(np.asarray(value).view(kind))
        return bits if bits >= 0 else -(bits & np.iinfo(kind).max)

    return float(abs(ordered(x) - ordered(y)))


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _plain(finding: Finding) -> dict[str, Any]:
    plain = {
        key: _number(value) if isinstance(value, float) else value
        for key, value in asdict(finding).items()
    }
    return plain | {"index": list(finding.index), "ratio": _number(finding.ratio)}
