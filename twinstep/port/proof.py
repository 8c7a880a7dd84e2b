"""Judges two recordings of a port and of what it is of: every update alone."""

import cmath
import fnmatch
from collections.abc import Collection, Iterator

import numpy as np

from twinstep.errors import InputError
from twinstep.judge import measure, tolerance
from twinstep.judge.activity import ActivityCheck
from twinstep.judge.findings import Comparison, Finding, Verdict
from twinstep.judge.history import Curve, History
from twinstep.port import batches, judging_updates
from twinstep.port.causes import first_causes, update_causes
from twinstep.port.judging_updates import Judged
from twinstep.port.mapping import Mapping
from twinstep.port.sides import Side
from twinstep.port.updates import Cause, Updates
from twinstep.runs import launch
from twinstep.trace import dtypes
from twinstep.trace.ledger import Trace
from twinstep.trace.stages import STAGES

SIDES = ("torch", "jax")
BOUND = "rounding of PyTorch's rule, measured on every update; of the first step, a plain bound"
SEARCHED = "give prove a loss_fn: what of it would have to be otherwise is searched for"
LATER = "losses and gradients after step 1 are held to not part all at once: give step_fn for more"
_ORDER = list(STAGES)
_CANCELLED = 8.0
"""A gradient whose terms cancel rounds as they do: by so many eps of the largest of all."""
_FACTORS = 64
"""Up to this a loss may be a whole multiple of the other's, where the gradients are the same."""


class Proof:
    """Judges two recordings that are lined up, stage by stage."""

    def __init__(self, torch: Side, jax: Side, leaves: Collection[str] = ()) -> None:
        """leaves: patterns of PyTorch's names, of what is judged; none: all is."""
        self.torch, self.jax = torch, jax
        self.leaves = list(torch.trace.params)
        self._patterns = leaves
        self.findings: list[Finding] = []
        self.worst: dict[str, dict[str, Finding]] = {}
        self.notes: list[str] = []
        self.unjudged: dict[str, str] = {}
        self.same_bits = True
        self.history = History()
        self.loss_factor = 1.0
        self.said: list[str] = []
        self._judged: list[Updates] = []
        if leaves:
            chosen = [leaf for leaf in self.leaves if self._is_chosen(leaf)]
            if not chosen:
                raise InputError(
                    f"leaves {', '.join(leaves)}: none of the {len(self.leaves)} that PyTorch's "
                    f"trace has, expected a pattern of names such as {self.leaves[0]!r}"
                )
            self.notes.append(
                f"of {len(self.leaves)} leaves {len(chosen)} are judged, by {', '.join(leaves)}"
            )
        self._scale = self._largest_gradients()

    def from_traces(self) -> None:
        """Judges all that the recordings tell by themselves."""
        self._start()
        found, notes = batches.compared(self.torch, self.jax)
        self.findings += found
        self.notes += notes
        self._first_step()
        self._updates()
        self._later_steps()

    def _is_chosen(self, leaf: str) -> bool:
        return not self._patterns or any(fnmatch.fnmatch(leaf, one) for one in self._patterns)

    def comparison(self, bound: str = BOUND) -> Comparison:
        """The verdict on all that was judged; bound: where the allowances come from."""
        verdict, reason, first = self._verdict()
        causes = (*(cause.says for cause in self._causes(first)), *self.said)
        early = first is not None and first.step == 1 and first.stage in ("loss", "raw_grads")
        if early and not causes and bound == BOUND:
            self.notes.append(SEARCHED)
        return Comparison(
            verdict=verdict,
            reason=reason,
            first=first,
            worst=self.worst,
            bound=bound,
            steps=len(self.torch.trace),
            chaotic_from=None,
            notes=tuple(self.notes),
            causes=causes,
        )

    def _causes(self, first: Finding | None) -> list[Cause]:
        """Known differences that make what is first off."""
        if first is None:
            return []
        if first.stage != "params" or first.step == 0:
            return first_causes.causes_of(self.torch, self.jax, first)
        if first.leaf in (twice := {} if self.jax.mapping is None else self.jax.mapping.twice):
            says = (
                f"{first.leaf} is one tensor in PyTorch, held twice by the port, as "
                f"{' and '.join(twice[first.leaf])}: each moves by its own gradient"
            )
            return [Cause("tied", says, {}, 0.0)]
        for updates in self._judged:
            if first.leaf in updates.grads:
                allowed = {
                    leaf: self._judged_leaf(updates, leaf, careful=True).allowed
                    for leaf in updates.grads
                }
                return update_causes.causes_of(updates, allowed)
        return []

    @property
    def first(self) -> Finding | None:
        """The first entry that is off, in the ledger's order."""
        return min(self.findings, key=lambda f: (f.step, _ORDER.index(f.stage)), default=None)

    def _verdict(self) -> tuple[Verdict, str, Finding | None]:
        first = self.first
        if first is not None and not any(map(cmath.isfinite, (first.reference, first.candidate))):
            return Verdict.INVALID, f"{first.stage}, {first.leaf} is no number on both sides", first
        if first is not None:
            return Verdict.MISMATCH, str(first), first
        for trace in (self.torch.trace, self.jax.trace):
            activity = ActivityCheck()
            activity.see(trace)
            if why := activity.unproved(len(trace)):
                return Verdict.INVALID, why, None
        if self.unjudged:
            leaf, why = next(iter(self.unjudged.items()))
            more = f", and {len(self.unjudged) - 1} leaves more" if len(self.unjudged) > 1 else ""
            return Verdict.INVALID, f"updates of {leaf} are not judged: {why}{more}", None
        if self.same_bits:
            return Verdict.EQUAL, "the same bits", None
        return Verdict.ROUNDING, "within what rounding explains", None

    def hold(
        self,
        mode: str,
        stage: str,
        leaf: str,
        steps: np.ndarray,
        arrays: tuple[np.ndarray, np.ndarray],
        allowed: np.ndarray,
    ) -> None:
        """Holds rows against what is allowed; keeps the first that is outside, and the worst."""
        a, b = arrays
        gap = measure.differences(a, b)
        self.same_bits = self.same_bits and measure.same_bits(a, b, gap)
        ratio = measure.ratios(gap, allowed)
        outside = ~(gap <= allowed)
        curve = Curve(steps + 1, gap, allowed, np.full(len(steps), leaf))
        self.history.add(mode, stage, curve, ratio)
        picks = {int(np.argmax(ratio))} | ({int(np.argmax(outside))} if outside.any() else set())
        for row in sorted(picks):
            finding = measure.finding(
                int(steps[row]) + 1, stage, leaf, a[row], b[row], gap[row], allowed[row], SIDES
            )
            known = self.worst.setdefault(mode, {}).get(stage)
            if known is None or finding.ratio > known.ratio:
                self.worst[mode][stage] = finding
            if outside[row]:
                self.findings.append(finding)

    # The start

    def _start(self) -> None:
        """Both begin with the same parameters and buffers; what is summed, up to rounding."""
        summed = self._summed()
        for stage in ("params", "buffers"):
            for leaf, _, a, b in self._both(stage):
                if leaf in summed:
                    continue
                first = a[:1], b[:1]
                self.hold("gate", stage, leaf, np.array([-1]), first, np.zeros(1))
        self._copies()
        for own, names in summed.items():
            self.notes.append(f"the port adds up {' and '.join(names)} in {own}")

    def _copies(self) -> None:
        """What the port holds twice is the same at every step, as it is one tensor in PyTorch."""
        mapping = self.jax.mapping
        for of, names in ({} if mapping is None else mapping.twice).items():
            if not self._is_chosen(of):
                continue
            assert mapping is not None
            made = []
            for name in names:
                alone = Mapping({name: mapping.leaves[name]}, mapping.shapes, mapping.torch_shapes)
                array = self.jax.trace.params[name]
                made.append(alone.to_torch({name: array}, lead=1).get(of))
            for name, copy in zip(names[1:], made[1:], strict=True):
                if copy is not None and made[0] is not None and len(copy) == len(made[0]):
                    steps = self.jax.trace.steps_of("params", name)
                    pair = made[0][1:], copy[1:]
                    self.hold("gate", "params", of, steps, pair, np.zeros(len(steps)))

    def _summed(self) -> dict[str, list[str]]:
        """{one of PyTorch's leaves: what is added up with it}"""
        mapping = self.jax.mapping
        sums = {} if mapping is None else mapping.summed
        return {name: names for names in sums.values() for name in names}

    def _both(self, stage: str) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
        """(leaf, PyTorch's steps, both sides' rows) of those that both have as many of."""
        for leaf in filter(self._is_chosen, getattr(self.torch.trace, stage)):
            mine, theirs = self.torch.rows(stage, leaf), self.jax.rows(stage, leaf)
            if mine is not None and theirs is not None and len(mine.array) == len(theirs.array):
                yield leaf, mine.steps, mine.array, theirs.array

    # Loss and gradients

    def _largest_gradients(self) -> float:
        """The largest entry of all gradients of the first update, on the side where it is less."""
        found = []
        for side in (self.torch, self.jax):
            tops = [
                measure.largest(array[:1])[0]
                for array in side.trace.raw_grads.values()
                if len(array)
            ]
            found.append(max((top for top in tops if np.isfinite(top)), default=0.0))
        return float(min(found))

    def _first_step(self) -> None:
        """Loss, gradients and buffers, which come of the same parameters."""
        before = len(self.findings)
        for stage in ("raw_grads", "buffers"):
            initial = STAGES[stage].initial
            for leaf, steps, a, b in self._both(stage):
                if not self._is_first(steps):
                    continue
                row = slice(initial, initial + 1)
                one, other = a[row], b[row]
                kind = dtypes.name(one.dtype)
                if not tolerance.eps(kind):
                    continue
                sizes = np.fmin(measure.largest(one), measure.largest(other))
                allowed = tolerance.plain_bound(sizes, np.ones(1), kind)
                if stage == "raw_grads":
                    allowed = allowed + _CANCELLED * tolerance.eps(kind) * self._scale
                self.hold("gate", stage, leaf, np.zeros(1, int), (one, other), allowed)
        gradients = len(self.findings) == before
        self._first_loss(gradients)

    def _first_loss(self, gradients_agree: bool) -> None:
        """The first loss, up to a whole factor where the gradients say that it is one."""
        one, other = self.torch.trace, self.jax.trace
        a, b = one.losses[:1], other.losses[:1]
        if not self._losses_known():
            self.notes.append("the losses are not compared: not both sides know them")
            return
        if gradients_agree and (factor := _factor(float(a[0]), float(b[0]), one)) != 1:
            self.notes.append(
                f"the port's loss is {factor:g} of PyTorch's, its gradients are the same"
            )
            b = b / factor
            self.loss_factor = factor
        kind = tolerance.precision(one, "loss", a)
        allowed = tolerance.plain_bound(np.fmin(np.abs(a), np.abs(b)), np.ones(1), kind)
        self.hold("gate", "loss", "loss", np.zeros(1, int), (a, b), allowed)

    def _losses_known(self) -> bool:
        return all(
            len(side.trace.steps_of("loss", "loss")) == len(side.trace)
            and len(side.trace) == len(self.torch.trace)
            for side in (self.torch, self.jax)
        )

    def _later_steps(self) -> None:
        """Losses and gradients after the first step: two free runs, which may not part at once."""
        if any(finding.step <= 1 for finding in self.findings) or len(self.torch.trace) < 2:
            return
        self.notes.append(LATER)
        if self._losses_known() and len(self.torch.trace) > 1:
            a, b = self.torch.trace.losses, self.jax.trace.losses / self.loss_factor
            kind = tolerance.precision(self.torch.trace, "loss", a)
            sizes = np.maximum(np.abs(a), np.abs(b))
            self._growth("loss", "loss", np.arange(len(a)), (a, b), sizes, kind)
        for leaf, steps, a, b in self._both("raw_grads"):
            kind = dtypes.name(a.dtype)
            sizes = np.maximum(measure.largest(a), self._scale)
            self._growth("raw_grads", leaf, steps, (a, b), sizes, kind)

    def _is_first(self, steps: np.ndarray) -> bool:
        """Whether a leaf's rows begin with the first update of all: both sides are alike before."""
        return len(steps) > 0 and int(steps[0]) == self.torch.trace.start

    def _growth(
        self,
        stage: str,
        leaf: str,
        steps: np.ndarray,
        arrays: tuple[np.ndarray, np.ndarray],
        sizes: np.ndarray,
        kind: str,
    ) -> None:
        """Allows so many times what was apart before: what grows step by step is no fault."""
        a, b = arrays
        later = slice(1 if self._is_first(steps) else 0, None)
        if not len(a[later]):
            return
        gap = measure.differences(a, b)
        bound = tolerance.plain_bound(sizes, 1 + np.arange(len(a)), kind)
        part = np.maximum.accumulate(np.nan_to_num(gap, nan=np.inf) / np.maximum(sizes, 1e-300))
        before = np.concatenate([[0.0], part[:-1]]) * sizes
        allowed = tolerance.max_growth(kind) * np.maximum(before, bound)
        limit = np.maximum(allowed, bound)[later]
        self.hold("free", stage, leaf, steps[later], (a[later], b[later]), limit)

    # Updates

    def _updates(self) -> None:
        """Every update of every leaf, alone."""
        groups, self.unjudged = judging_updates.updates_of(self.torch, self.jax, self.leaves)
        for leaf in [leaf for leaf, why in self.unjudged.items() if why == judging_updates.NOBODY]:
            self._stays(leaf)
        try:
            known = launch.rules().KNOWN
        except InputError as error:  # without JAX all but the updates is compared
            why = str(error)
            self.unjudged |= dict.fromkeys((n for group in groups for n in group.grads), why)
            return
        for updates in groups:
            if updates.rule not in known:
                why = f"{updates.rule} is none of the rules that are known"
                self.unjudged |= dict.fromkeys(updates.grads, why)
                continue
            for leaf in filter(self._is_chosen, updates.grads):
                self._judge_leaf(updates, leaf)
            self._judged.append(updates)
        self.unjudged = {leaf: w for leaf, w in self.unjudged.items() if self._is_chosen(leaf)}

    def _stays(self, leaf: str) -> None:
        """A leaf that PyTorch leaves as it is."""
        mine, theirs = self.torch.rows("params", leaf), self.jax.rows("params", leaf)
        if mine is None or theirs is None or (mine.array != mine.array[:1]).any():
            return
        del self.unjudged[leaf]
        pair = theirs.array[:-1], theirs.array[1:]
        self.hold("gate", "params", leaf, theirs.steps, pair, np.zeros(len(theirs.steps)))

    def _judge_leaf(self, updates: Updates, leaf: str) -> None:
        """Judges a leaf's updates."""
        found = self._judged_leaf(updates, leaf)
        kind = updates.params[leaf].dtype
        pair = found.rule.astype(kind), found.port.astype(kind)
        self.hold("gate", "params", leaf, found.steps, pair, found.allowed)

    def _judged_leaf(self, updates: Updates, leaf: str, careful: bool = False) -> Judged:
        rows, mine = self.jax.rows("params", leaf), self.torch.steps("params", leaf)
        assert rows is not None
        renewed = np.zeros(len(rows.steps), bool)
        renewed[0] = True
        if "renewed" in self.torch.trace.update and mine is not None:
            renewed |= np.isin(mine, self.torch.trace.steps_of("update", "renewed"))
        kind, before = dtypes.name(rows.array.dtype), updates.params[leaf][:-1]
        made = launch.rules().updated
        return judging_updates.judged(
            updates, leaf, kind, before, renewed, rows.steps, made, careful
        )


def _factor(a: float, b: float, trace: Trace) -> float:
    """The whole factor, or its inverse, that is between two losses; 1: none, or none is."""
    if not (a and b and cmath.isfinite(a * b)) or abs(a - b) <= 1e-6 * max(abs(a), abs(b)):
        return 1.0
    ratio = b / a
    whole = round(max(ratio, 1 / ratio))
    if not 2 <= whole <= _FACTORS:
        return 1.0
    exact = float(whole) if ratio > 1 else 1 / whole
    return exact if abs(ratio / exact - 1) <= 1e-6 else 1.0
