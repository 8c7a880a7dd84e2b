"""Holds a port's own step against a golden: a gate for tests, which needs no PyTorch.

The step runs by itself from the golden weights on the golden batches, and perturbed reruns say how
far rounding carries it. Losses are judged as they are, parameters and buffers by their sketches:
random sums are linear, so what the reruns' differ by is what rounding does to them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from twinstep.errors import InputError
from twinstep.judge import measure, tolerance
from twinstep.judge.findings import Comparison, Finding, Verdict
from twinstep.port.gate_causes import LeafUpdate, causes
from twinstep.port.golden import Golden, check_fits, load_golden
from twinstep.port.mapping import Mapping, load_mapping
from twinstep.runs import launch
from twinstep.trace import dtypes
from twinstep.trace.sketch import CHECKSUM, LINEAR, MAXIMUM, NORM, sketch
from twinstep.trace.stages import STAGES

SIDES = ("golden", "port")
BOUND = (
    "a run by itself from the golden weights: rounding measured by perturbed reruns, of each "
    "leaf's norm, largest entry and random sums"
)
_MUCH = 0.5
"""Rounding that moves a leaf by so much of all that it moved hides whether that is right."""
Name = str | Path


@dataclass(frozen=True)
class SketchFinding(Finding):
    """A number of a leaf's sketch.

    Attributes:
        of: Which it is.
    """

    of: str = ""

    @property
    def entry(self) -> str:
        """The leaf, and which number of its sketch."""
        return f"{self.of} of {self.leaf}" if self.of else self.leaf


def prove_golden(
    golden: Golden | Name,
    *,
    step_fn: Callable[[Any, Any], Any],
    state: Any,
    mapping: Mapping | Name | None = None,
    batch_of: Callable[[Any], Any] | None = None,
) -> Comparison:
    """Judges a port's own step by a golden of the PyTorch program that it is of.

    Args:
        golden: The folder that `twinstep golden` wrote, or what `load_golden` read from it.
        step_fn: The port's `step_fn(state, batch) -> (state, loss)`, as a scan's body.
        state: The state before the first step, (params, ...), of whose params only the form is
            used; None for nested dicts. A function in it, as `tx.init`, stands for what it makes of
            the parameters; buffers are put where it holds leaves of just their names.
        mapping: Which of PyTorch's entries each leaf of the port is, as `match` finds it, or its
            file; None: the map.json of the golden, else the port has PyTorch's names and shapes.
        batch_of: Makes of a batch as PyTorch recorded it, {name: array}, the one that step_fn
            takes: the place to turn images from NCHW to NHWC.

    Returns:
        The verdict; the first step and leaf that is off, by PyTorch's name.

    Raises:
        InputError: For what is no golden, a mapping that does not fit, a state of another form, and
            a function that raises or gives what it should not.

    Example:
        >>> import jax, torch, twinstep
        >>> from twinstep.port.golden import golden_of
        >>> from twinstep.torch import record
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with record(model) as rec:
        ...     for x in torch.randn(3, 4, 2):
        ...         rec.batch(x=x)
        ...         optimizer.zero_grad()
        ...         model(x).square().mean().backward()
        ...         optimizer.step()
        >>> def train_step(state, batch):
        ...     (params,) = state
        ...     loss_fn = lambda params: ((batch["x"] @ params["weight"].T) ** 2).mean()
        ...     loss, grads = jax.value_and_grad(loss_fn)(params)
        ...     return (jax.tree.map(lambda p, g: p - 0.1 * g, params, grads),), loss
        >>> golden = golden_of(rec.trace)
        >>> twinstep.prove_golden(golden, step_fn=train_step, state=(None,)).verdict.same
        True

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html
    """
    held = golden if isinstance(golden, Golden) else load_golden(golden)
    found = _mapping(held, mapping, state)
    named = {**held.params, **held.buffers}
    start = named if found is None else found.to_jax(named)
    batches = [_adapted(batch_of, batch, i) for i, batch in enumerate(held.batches)]
    gate = _Gate(held, found)
    steps = launch.free_run().free_steps(
        step_fn,
        state,
        {name: np.asarray(array) for name, array in start.items()},
        batches,
        held.metadata.dtype,
        _update_share(held),
    )
    for number, step in enumerate(steps):
        if not gate.judge(number, step):
            break
    return gate.comparison()


class _Gate:
    """Judges one step after the other."""

    def __init__(self, golden: Golden, mapping: Mapping | None) -> None:
        self._golden, self._mapping = golden, mapping
        self._findings: list[Finding] = []
        self._worst: dict[str, Finding] = {}
        self._noise: dict[str, np.ndarray] = {}
        self._hidden: set[str] = set()
        self._seen: set[str] = set()
        self._before: dict[str, np.ndarray] = {}
        self._updates: dict[tuple[int, str], LeafUpdate] = {}
        self._same_bits = True
        self._chaotic_from: int | None = None
        self._notes: list[str] = []
        self._summed = [] if mapping is None else [n for ns in mapping.summed.values() for n in ns]
        if self._summed:
            self._notes.append(
                f"the port adds up {' and '.join(self._summed)}: of these the losses alone tell"
            )
        kinds = [golden.metadata.dtype, *(dtypes.name(a.dtype) for a in golden.params.values())]
        self._kind = max(kinds, key=tolerance.eps)

    @np.errstate(invalid="ignore", over="ignore")  # a run that has diverged
    def judge(self, number: int, step: Any) -> bool:
        """Holds a step's loss, parameters and buffers; False: rounding alone decides from here."""
        losses = self._golden.losses[: number + 1]
        apart = max(abs(rerun.loss - step.loss) for rerun in step.reruns)
        noise = self._grown("loss", np.array([apart]))
        sizes = [abs(loss) for loss in (*losses.tolist(), step.loss) if np.isfinite(loss)]
        if noise[0] > tolerance.chaos_threshold(self._kind) * max(sizes, default=0.0):
            self._chaotic_from = number + 1
            return False
        if not np.isnan(losses[-1]):
            self._hold_loss(number, losses[-1], step.loss, float(noise[0]))
        found, *reruns = [self._in_torch(one.found) for one in (step, *step.reruns)]
        if left := [name for name in self._golden.params if name not in found]:
            raise InputError(
                f"params has nothing of PyTorch's {left[0]!r}, which the map has in it"
            )
        for stage in ("params", "buffers"):
            for leaf in getattr(self._golden, stage):
                if leaf in found and leaf not in self._summed:
                    self._hold_leaf(number, stage, leaf, found[leaf], [r[leaf] for r in reruns])
        return True

    def comparison(self) -> Comparison:
        """The verdict on all that was judged."""
        verdict, reason, first = self._verdict()
        notes = list(self._notes)
        if self._hidden:
            names = sorted(self._hidden)
            more = f" and {len(names) - 1} leaves more" if names[1:] else ""
            notes.append(
                f"rounding moves {names[0]}{more} as far as the training does: whether step_fn "
                "makes it right is not seen"
            )
        if left := [name for name in self._golden.buffers if name not in self._seen]:
            notes.append(f"buffers are not judged, the state has none of them: {', '.join(left)}")
        return Comparison(
            verdict=verdict,
            reason=reason,
            first=first,
            worst={"free": self._worst},
            bound=BOUND,
            steps=len(self._golden),
            chaotic_from=self._chaotic_from,
            notes=tuple(notes),
            causes=self._causes(first),
        )

    def _causes(self, first: Finding | None) -> tuple[str, ...]:
        if first is None:
            return ()
        off = [f.leaf for f in self._findings if (f.step, f.stage) == (first.step, first.stage)]
        updates = [self._updates[first.step, leaf] for leaf in off if first.stage == "params"]
        return causes(first.step, first.stage, updates)

    def _verdict(self) -> tuple[Verdict, str, Finding | None]:
        order = list(STAGES)
        # of a step the leaf that is furthest off: where a learning rate is wrong, all of them are
        first = min(
            self._findings,
            key=lambda f: (f.step, order.index(f.stage), -f.ratio),
            default=None,
        )
        if first is not None:
            return Verdict.MISMATCH, str(first), first
        if self._chaotic_from == 1:
            return Verdict.INVALID, "rounding alone moves the first loss: nothing is judged", None
        if self._hidden >= {*self._golden.params} - {*self._summed}:
            return Verdict.INVALID, "rounding hides what the training does to each parameter", None
        if self._same_bits and not self._summed and self._chaotic_from is None:
            return Verdict.EQUAL, "the same bits", None
        return Verdict.ROUNDING, "within what rounding explains", None

    def _hold_loss(self, number: int, theirs: float, ours: float, noise: float) -> None:
        kind = self._kind
        allowed = STAGES["loss"].one_step * tolerance.eps(kind) * max(abs(theirs), abs(ours))
        allowed += tolerance.ROUNDING_NOISE_FACTOR * noise + tolerance.floor(kind)
        a, b = (np.asarray([loss], self._golden.losses.dtype) for loss in (theirs, ours))
        gap = measure.differences(a, b)[0]
        self._same_bits = self._same_bits and bool(theirs == ours)
        found = measure.finding(number + 1, "loss", "loss", a[0], b[0], gap, float(allowed), SIDES)
        self._keep(found, bool(gap <= allowed < np.inf))

    def _hold_leaf(
        self, number: int, stage: str, leaf: str, ours: np.ndarray, reruns: list[np.ndarray]
    ) -> None:
        self._seen.add(leaf)
        rows = self._golden.sketches[f"{stage}/{leaf}"]
        theirs = rows[number + 1]
        mine, *others = sketch(np.stack([ours, *reruns]), len(theirs[LINEAR]))
        self._same_bits = self._same_bits and mine[CHECKSUM] == theirs[CHECKSUM]
        kind = dtypes.name(ours.dtype)
        noise = self._noise_of(f"{stage}/{leaf}", ours, reruns, mine, others)
        # as `judge.tolerance` has it of entries: an independent eps of each of them sums up to one
        # of their norm, in a random sum as in the norm itself
        scale = np.full(len(mine), max(mine[NORM], theirs[NORM]))
        scale[MAXIMUM] = max(mine[MAXIMUM], theirs[MAXIMUM])
        allowed = STAGES[stage].one_step * tolerance.eps(kind) * scale
        allowed += tolerance.ROUNDING_NOISE_FACTOR * noise + tolerance.floor(kind)
        gap = np.abs(mine - theirs)
        ratio = measure.ratios(gap, allowed)[:CHECKSUM]
        worst = int(np.argmax(ratio))
        units = tolerance.eps(kind) * scale[worst]
        found = SketchFinding(
            step=number + 1,
            stage=stage,
            leaf=leaf,
            index=(),
            reference=float(theirs[worst]),
            candidate=float(mine[worst]),
            difference=float(gap[worst]),
            allowed=float(allowed[worst]),
            ulps=float(gap[worst] / units) if units else 0.0,
            sides=SIDES,
            of={NORM: "norm", MAXIMUM: "largest entry"}.get(worst, f"random sum {worst - 1}"),
        )
        inside = bool(((gap <= allowed) & (allowed < np.inf))[:CHECKSUM].all())
        self._keep(found, inside)
        if not inside and stage == "params":
            own = mine - self._before.get(leaf, rows[0])
            self._updates[number + 1, leaf] = LeafUpdate(
                (theirs - rows[number])[LINEAR], own[LINEAR], float(allowed[LINEAR].max())
            )
        self._before[leaf] = mine
        moved = np.abs(theirs - rows[0])[LINEAR].max()
        hides = tolerance.ROUNDING_NOISE_FACTOR * noise[NORM] > _MUCH * moved > 0
        if stage == "params":
            (self._hidden.add if hides else self._hidden.discard)(leaf)

    def _noise_of(
        self,
        key: str,
        ours: np.ndarray,
        reruns: list[np.ndarray],
        mine: np.ndarray,
        others: list[np.ndarray],
    ) -> np.ndarray:
        """How far rounding has moved each number of a leaf's sketch so far.

        The random sums are drawn alike, so each stands for all; and no norm moves further than the
        leaf does, which is what they are as large as.
        """
        noise = np.full(len(mine), max(np.abs(one - mine)[LINEAR].max() for one in others))
        apart = [np.abs(dtypes.numbers(one) - dtypes.numbers(ours)) for one in reruns]
        noise[MAXIMUM] = max(float(gap.max(initial=0)) for gap in apart)
        return self._grown(key, noise)

    def _grown(self, key: str, noise: np.ndarray) -> np.ndarray:
        """The largest so far: what rounding did to a run it may have done to the other before."""
        self._noise[key] = np.fmax(self._noise.get(key, noise), noise)
        return self._noise[key]

    def _keep(self, found: Finding, inside: bool) -> None:
        known = self._worst.get(found.stage)
        if known is None or found.ratio > known.ratio:
            self._worst[found.stage] = found
        if not inside:
            self._findings.append(found)

    def _in_torch(self, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return found if self._mapping is None else self._mapping.to_torch(found)


def _mapping(golden: Golden, mapping: Mapping | Name | None, state: Any) -> Mapping | None:
    """The map that was given, or is with the golden; None: the port has PyTorch's names."""
    if mapping is not None:
        found = mapping if isinstance(mapping, Mapping) else load_mapping(mapping)
        check_fits(golden, found)
        return found
    if golden.mapping is not None or not isinstance(state, tuple) or not state or state[0] is None:
        return golden.mapping
    shapes = launch.free_run().shapes_of(state[0])
    for name, array in golden.params.items():
        if shapes.get(name) != array.shape:
            found_there = f"of shape {shapes[name]}" if name in shapes else "none"
            raise InputError(
                f"params: PyTorch has {name!r} of shape {array.shape}, the port {found_there}: "
                "give mapping, or keep a map.json with the golden, see twinstep match"
            )
    return None


def _update_share(golden: Golden) -> float:
    """By how much of itself rounding may have an update longer or shorter.

    What the rule is made of is rounded too: where 1 - beta is made in the run's dtype, as optax's
    bias correction is, half an eps of beta is 1 / (1 - beta) times as much of it; and half of that
    under the root. In float32 that comes to 3e-5 of Adam's update, far more than parameters round.
    """
    values = [
        value
        for held in golden.hyper_parameters.values()
        for value in (held if isinstance(held, list) else [held])
        if isinstance(value, float) and 0 < value < 1
    ]
    return tolerance.eps(golden.metadata.dtype) / 4 / (1 - max(values, default=0.0))


def _adapted(batch_of: Callable[[Any], Any] | None, batch: Any, number: int) -> Any:
    if batch_of is None:
        return dict(batch)
    try:
        return batch_of(dict(batch))
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise InputError(
            f"step {number + 1}: batch_of raised {type(error).__name__}: {first}"
        ) from error
