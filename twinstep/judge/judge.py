"""Takes a run piece by piece and comes to a verdict.

Every entry of the ledger is measured as one number a step, the largest absolute difference of the
leaf, and held against one allowance a step. NaN is within no allowance.
"""

import cmath
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from twinstep.judge import measure, tolerance
from twinstep.judge.activity import ActivityCheck
from twinstep.judge.findings import Comparison, Finding, Verdict
from twinstep.judge.history import Curve, History
from twinstep.judge.structure import Structure, pairs, structure
from twinstep.trace import dtypes, evaluation
from twinstep.trace.ledger import Leaves, Trace
from twinstep.trace.stages import STAGES


def _ledger_order(finding: Finding) -> tuple[int, int]:
    """Where in the ledger."""
    return finding.step, list(STAGES).index(finding.stage)


@dataclass
class Judge:
    """Takes a run chunk by chunk and comes to one Comparison; holds nothing that grows with it.

    gate: recorded steps against the same steps made by the other side from the same states
    free: two runs, each on its own
    chaotic_from: the step from which on rounding alone parts runs like this one, if it does
    history: what was measured over the steps
    """

    dtype: str
    chaotic_from: int | None = None
    history: History = field(default_factory=History)
    _steps: dict[str, int] = field(default_factory=lambda: {"gate": 0, "free": 0})
    _worst: dict[str, dict[str, Finding]] = field(default_factory=dict)
    _first: dict[str, Finding] = field(default_factory=dict)
    _unproved: Finding | None = None
    _sudden: bool = False
    _carried: dict[tuple[str, str, str], float] = field(default_factory=dict)
    _notes: dict[str, None] = field(default_factory=dict)
    _noise_measured: bool = True
    _same_bits: bool = True
    _structure: Structure | None = None
    _activity: dict[str, ActivityCheck] = field(default_factory=dict)
    _values_judged: bool = False
    _sides: tuple[str, str] = ("first", "second")

    def gate(
        self,
        recorded: Trace,
        replayed: Trace,
        rounding_scale: Leaves,
        measure_rounding_scale: Callable[[np.ndarray], Leaves] | None = None,
    ) -> None:
        """Judges each step alone: each of `replayed` was made from the state before in `recorded`.

        replayed: its rounding noise, if any, is how far rounding carries each step by itself
        rounding_scale: {"stage/leaf": (T,)} what an eps of what losses and gradients are made of
            comes to
        measure_rounding_scale: gives larger, dearer ones for the rows that the first ones do not
            well explain
        """
        if self._refuse(recorded, replayed):
            return
        self._check_activity("reference", recorded)
        self._values_judged = True
        if measure_rounding_scale:
            rows = self._unexplained(recorded, replayed, rounding_scale)
            if len(rows):
                careful = measure_rounding_scale(rows)
                rounding_scale = {name: sizes.copy() for name, sizes in rounding_scale.items()}
                for name, sizes in careful.items():
                    rounding_scale[name][rows] = np.fmax(rounding_scale[name][rows], sizes)

        def allowed(stage: str, leaf: str, array: np.ndarray) -> np.ndarray:
            one_step = self._one_step("gate", recorded, rounding_scale, stage, leaf, array)
            if replayed.rounding_noise is None or stage not in ("opt_state", "params"):
                return one_step
            # the step evaluates many times, and carries each one's rounding on to the next
            carried = tolerance.ROUNDING_NOISE_FACTOR * replayed.rounding_noise[f"{stage}/{leaf}"]
            limit = tolerance.max_noise_share(dtypes.name(array.dtype)) * measure.largest(array)
            return one_step + np.minimum(carried, limit)

        self._measure("gate", recorded, replayed, allowed)
        if recorded.evaluation:
            rounding = float(replayed.evaluation["rounding_scale"])
            self._evaluate("gate", recorded, replayed, self._of_outputs(rounding))

    def free(self, reference: Trace, candidate: Trace) -> None:
        """Judges two runs by the rounding noise that they bring, or by the plain bound."""
        if self._refuse(reference, candidate):
            return
        self._check_activity("reference", reference)
        self._check_activity("candidate", candidate)
        if reference.start == 0:
            self._initial(reference, candidate)
        measured = [
            (trace.rounding_noise, trace.rounding_scale)
            for trace in (reference, candidate)
            if trace.rounding_noise is not None and trace.rounding_scale is not None
        ]
        self._noise_measured = self._noise_measured and bool(measured)
        rounding_noise = measure.larger([rounding_noise for rounding_noise, _ in measured])
        rounding_scale = measure.larger([rounding_scale for _, rounding_scale in measured])
        chaotic = self._chaos(reference, rounding_noise)
        self._values_judged = self._values_judged or not chaotic.all()
        theirs = {(stage, leaf): array for stage, leaf, array in candidate.entries()}

        def allowed(stage: str, leaf: str, array: np.ndarray) -> np.ndarray:
            if STAGES[stage].exact:
                return np.zeros(len(array))
            if f"{stage}/{leaf}" not in rounding_noise:
                sizes = np.fmin(measure.largest(array), measure.largest(theirs[stage, leaf]))
                kind = tolerance.precision(reference, stage, array)
                steps = reference.steps_of(stage, leaf) + 1
                return self._plain_bound(stage, leaf, sizes, steps, kind)
            carried = self._running(
                ("rounding_noise", stage, leaf), rounding_noise[f"{stage}/{leaf}"]
            )
            one_step = self._one_step("free", reference, rounding_scale, stage, leaf, array)
            return tolerance.ROUNDING_NOISE_FACTOR * carried + one_step

        self._measure("free", reference, candidate, allowed, beyond=chaotic)
        if reference.evaluation:
            limit = math.inf if chaotic[-1] else self._evaluation_bound(reference, candidate)
            self._evaluate("free", reference, candidate, limit, beyond=bool(chaotic[-1]))

    def _chaos(self, trace: Trace, rounding_noise: Leaves) -> np.ndarray:
        """(T,) whether rounding alone has carried runs like this one to another course."""
        if not rounding_noise:
            return np.zeros(len(trace), bool)
        carried = self._running(("chaos", "rounding_noise", ""), rounding_noise["loss/loss"])
        size = self._running(("chaos", "size", ""), np.abs(trace.losses))
        chaotic = carried > tolerance.chaos_threshold(self.dtype) * size
        steps = trace.start + 1 + np.arange(len(trace))
        if self.chaotic_from is None and chaotic.any():
            self.chaotic_from = int(steps[np.argmax(chaotic)])
        # there is no way back: a loss that grows later does not undo it
        return steps >= (math.inf if self.chaotic_from is None else self.chaotic_from)

    def _unexplained(self, recorded: Trace, replayed: Trace, rounding_scale: Leaves) -> np.ndarray:
        """The rows in which a loss or a gradient is further off than the sizes well explain."""
        outside = np.zeros(len(recorded), bool)
        for stage, leaf, array, other in pairs(recorded, replayed):
            if f"{stage}/{leaf}" in rounding_scale:
                limit = self._one_step("gate", recorded, rounding_scale, stage, leaf, array)
                gap = measure.differences(array, other)
                outside |= ~(gap <= tolerance.WELL_EXPLAINED * limit)
        return np.flatnonzero(outside)

    def _one_step(
        self,
        mode: str,
        trace: Trace,
        rounding_scale: Leaves,
        stage: str,
        leaf: str,
        array: np.ndarray,
    ) -> np.ndarray:
        """(T,) what a single step may round, entry by entry."""
        kind = tolerance.precision(trace, stage, array)
        if STAGES[stage].exact or not tolerance.eps(kind):
            return np.zeros(len(array))
        amount, floor = STAGES[stage].one_step, tolerance.floor(kind)
        if f"{stage}/{leaf}" in rounding_scale:
            return amount * rounding_scale[f"{stage}/{leaf}"].astype(float) + floor
        if stage == "params":
            params = trace.params[leaf]
            sizes = measure.largest(params)
            move = measure.differences(params[1:], params[:-1])
            sizes = np.fmax(np.maximum(sizes[1:], sizes[:-1]), move)
        else:
            sizes = self._and_before((mode, stage, leaf), measure.largest(array))
        return amount * tolerance.eps(kind) * sizes + floor

    def _plain_bound(
        self, stage: str, leaf: str, sizes: np.ndarray, steps: np.ndarray, dtype: str
    ) -> np.ndarray:
        """(T,) the allowance of a free run of which no rounding noise is known.

        sizes: the leaf's largest entries, in the trace in which they are smaller: it must not
            matter which trace is named first
        """
        sizes = self._running(("plain", stage, leaf), sizes)
        return tolerance.plain_bound(sizes, steps, dtype)

    def note(self, says: str) -> None:
        """What is to be known of the judgement beside it; said once."""
        self._notes[says] = None

    @property
    def fault(self) -> str | None:
        """What the gate has found, or could not judge; None: nothing."""
        found = self._structure or self._first.get("gate") or self._unproved
        return None if found is None else str(found)

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
            bound="rounding noise measured on this run" if self._noise_measured else plain,
            steps=steps,
            chaotic_from=self.chaotic_from,
            notes=tuple(self._notes),
        )

    def _verdict(self) -> tuple[Verdict, str, Finding | None]:
        gate, free = self._first.get("gate"), self._first.get("free")
        # without a gate a free run that leaves its allowance is a fault; with one, it is drift,
        # unless it starts from other parameters, trains on other batches or parts all at once
        faults = [gate] if gate else []
        if free and (free.stage == "batch" or self._sudden or not self._steps["gate"]):
            faults.append(free)
        first = min(faults, key=lambda finding: finding.step, default=None)
        if self._structure:
            return Verdict.MISMATCH, f"different structure: {self._structure}", None
        if not max(self._steps.values()):
            return Verdict.INVALID, "no steps", None
        if first and not any(map(cmath.isfinite, (first.reference, first.candidate))):
            return (
                Verdict.INVALID,
                f"step {first.step}: {first.stage} {first.leaf} is {first.reference} "
                f"({first.sides[0]}) and {first.candidate} ({first.sides[1]})",
                first,
            )
        if first:
            return Verdict.MISMATCH, str(first), first
        if self._unproved:
            return Verdict.INVALID, f"{self._unproved}: nothing was judged by that", self._unproved
        for activity in self._activity.values():
            if why := activity.unproved(max(self._steps.values())):
                return Verdict.INVALID, why, None
        if free:
            return Verdict.DRIFT, f"every step alone is rounding; {free}", free
        if self._same_bits:
            return Verdict.EQUAL, "the same bits", None
        if not self._values_judged:
            return Verdict.INVALID, "rounding alone parts runs like this from the first step", None
        return Verdict.ROUNDING, "within what rounding explains", None

    def _refuse(self, reference: Trace, candidate: Trace) -> bool:
        """Whether the structure differs; what is not alike is never compared by value."""
        frameworks = reference.metadata.framework, candidate.metadata.framework
        if frameworks[0] != frameworks[1]:
            self._sides = frameworks
        self._structure = self._structure or structure(reference, candidate)
        return self._structure is not None or not len(reference)

    def _check_activity(self, side: str, trace: Trace) -> None:
        self._activity.setdefault(side, ActivityCheck()).see(trace)

    def _initial(self, reference: Trace, candidate: Trace) -> None:
        """Both must start from the very same parameters."""
        for leaf, array in reference.params.items():
            a, b = array[:1], candidate.params[leaf][:1]
            difference = measure.differences(a, b)
            self._same_bits = self._same_bits and measure.same_bits(a, b, difference)
            gap = difference.item()
            if not gap <= 0:
                finding = measure.finding(0, "params", leaf, a[0], b[0], gap, 0.0, self._sides)
                self._first.setdefault("free", finding)
                self._sudden = True
                self._note("free", finding)

    def _measure(
        self,
        mode: str,
        reference: Trace,
        candidate: Trace,
        allowed: Callable[[str, str, np.ndarray], np.ndarray],
        beyond: np.ndarray | None = None,
    ) -> None:
        """beyond: (T,) the steps whose values are not judged; that they are numbers is"""
        self._steps[mode] += len(reference)
        beyond = np.zeros(len(reference), bool) if beyond is None else beyond
        known = self._first.get(mode)
        firsts, unproved = [known] if known else [], [self._unproved] if self._unproved else []
        worst = np.zeros(len(reference))
        for stage, leaf, a, b in pairs(reference, candidate):
            exact = STAGES[stage].exact
            steps = reference.steps_of(stage, leaf) + 1
            rows = steps - 1 - reference.start
            with np.errstate(over="ignore"):  # a limit that overflows is inf
                difference, limit = measure.differences(a, b), allowed(stage, leaf, a)
            self._same_bits = self._same_bits and measure.same_bits(a, b, difference)
            past = beyond[rows] & (not exact)  # what is drawn, not computed, has no chaos in it
            limit = np.where(past, np.inf, limit)
            ratio = measure.ratios(difference, limit)
            no_number = np.isnan(difference)
            ratio[past & ~no_number] = 0
            open_ended = (difference > 0) & ~np.isfinite(limit) & ~past
            outside = no_number | ((difference > 0) & ~past & ~open_ended & ~(difference <= limit))
            np.maximum.at(worst, rows, ratio)
            leaves = np.full(len(rows), leaf)
            self.history.add(mode, stage, Curve(steps, difference, limit, leaves), ratio)
            judged = np.flatnonzero(~past | no_number)
            picks = {int(judged[np.argmax(ratio[judged])])} if len(judged) else set()
            for odd in (outside, open_ended):
                picks |= {int(np.argmax(odd))} if odd.any() else set()
            for pick in sorted(picks):
                finding = measure.finding(
                    int(steps[pick]),
                    stage,
                    leaf,
                    a[pick],
                    b[pick],
                    difference[pick],
                    limit[pick],
                    self._sides,
                )
                firsts += [finding] if outside[pick] else []
                unproved += [finding] if open_ended[pick] else []
                self._note(mode, finding)
        # min keeps the ledger's order of leaves among equals
        self._unproved = min(unproved, key=_ledger_order, default=None)
        if firsts:
            self._first[mode] = min(firsts, key=_ledger_order)
        if mode == "free":
            if firsts and not known:
                row = self._first[mode].step - 1 - reference.start
                before = worst[row - 1] if row else self._carried.get(("worst", "", ""), 0.0)
                grown = worst[row] <= tolerance.max_growth(self.dtype) * max(1.0, before)
                self._sudden = not beyond[row] and (self._first[mode].step == 1 or not grown)
            self._carried["worst", "", ""] = float(worst[-1])

    def _of_outputs(self, rounding: float, rounding_noise: float = 0.0) -> float:
        """How far apart two outputs may be."""
        one_step = STAGES["evaluation"].one_step * rounding + tolerance.floor(self.dtype)
        return tolerance.ROUNDING_NOISE_FACTOR * rounding_noise + one_step

    def _evaluation_bound(self, reference: Trace, candidate: Trace) -> float:
        """The same for two free runs: by the rounding noise that they bring, or plainly."""
        both = reference.evaluation, candidate.evaluation
        measured = [e for e in both if "rounding_noise" in e and "rounding_scale" in e]
        if measured:
            rounding, rounding_noise = (
                max(float(e[n]) for e in measured) for n in ("rounding_scale", "rounding_noise")
            )
            return self._of_outputs(rounding, rounding_noise)
        size = min(measure.largest(e["outputs"][None]).item() for e in both)
        steps = reference.start + len(reference)
        key = "evaluation", "outputs"
        bound = self._plain_bound(*key, np.array([size]), np.array([steps]), self.dtype)
        return float(bound.item())

    def _evaluate(
        self, mode: str, reference: Trace, candidate: Trace, limit: float, beyond: bool = False
    ) -> None:
        """Judges what the test made of the last parameters; beyond: that they are numbers."""
        one, other = reference.evaluation, candidate.evaluation
        self._same_bits = self._same_bits and evaluation.same_bits(one, other)
        mine, theirs = reference.metrics, candidate.metrics
        figures = {name: (mine[name], theirs[name]) for name in mine if name in theirs}
        step = reference.start + len(reference)
        for finding in measure.of_evaluations(step, one, other, figures, limit, self._sides):
            if beyond and finding.numbers:
                continue
            self._note(mode, finding)
            if finding.difference > 0 and not math.isfinite(finding.allowed) and finding.numbers:
                self._unproved = self._unproved or finding
            elif finding.ratio > 1:
                self._first.setdefault(mode, finding)

    def _note(self, mode: str, finding: Finding) -> None:
        """Keeps the worst of each stage; the earliest among equals, however the run is cut."""
        worst = self._worst.setdefault(mode, {})
        known = worst.get(finding.stage)
        if known is None or (finding.ratio, -finding.step) > (known.ratio, -known.step):
            worst[finding.stage] = finding

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
