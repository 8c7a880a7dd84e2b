"""A trace is what a run leaves: the ledger of every step, in the order of `stages.STAGES`.

Parameters and everything of their shape bear PyTorch's ``state_dict`` names and layouts, whichever
framework wrote the trace.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from twinstep.errors import InputError
from twinstep.trace import evaluation
from twinstep.trace.stages import LEAVES, STAGES, STEPS, Stage
from twinstep.trace.writing import TraceWriter

if TYPE_CHECKING:
    from os import PathLike

Leaves = Mapping[str, np.ndarray]


class Outcome(NamedTuple):
    """How a run ended: losses (T,), params before and after, the last gradients, test figures."""

    losses: np.ndarray
    initial_params: Leaves
    params: Leaves
    grads: Leaves
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Metadata:
    """What ran: framework, dtype, device, precision, versions.

    example, spec: of a documents' example, its name and hyper-parameters; None: of a loop of one's
        own
    """

    example: str | None
    spec: Mapping[str, Any] | None
    framework: str
    dtype: str
    device: str
    precision: str
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Trace:
    """T consecutive steps of a run, or all of them.

    losses: (T,)
    batch: {name: (T,)} uint32 fingerprints of what each step trained on
    raw_grads: {name: (T, ...)} what was backpropagated
    grads: {name: (T, ...)} what the optimizer was given: the very same array where it is the same
    opt_state: {name: (T, ...)} after the update; `weight.exp_avg` is Adam's first moment of weight
    params: {name: (T + 1, ...)} the initial ones first
    rounding_noise: {"stage/name": (T,)} how far rounding carries each leaf of this very run, if
        measured
    rounding_scale: {"stage/name": (T,)} what an eps of the numbers that losses and gradients are
        made of comes to
    start: the number of the first step, counted from 0
    metrics: {name: value} measured when the training was over
    evaluation: of N tested samples, when the training was over: "outputs" (N, classes),
        "predictions" (N,); "rounding_noise" and "rounding_scale" (): the same of the outputs
    rng, activations: {name: (T, ...)} on request
    buffers: {name: (T + 1, ...)} such as BatchNorm's running mean, of any type
    hyper_parameters: {"group.name": (T,)} of the optimizer, before each update, if it has any
    inputs: {name: {fingerprint: array}} what the batches were, if that is kept
    appears_at: {"stage/name": step} of leaves that came later: they have rows from that step on
    """

    metadata: Metadata
    losses: np.ndarray
    batch: Leaves
    raw_grads: Leaves
    grads: Leaves
    opt_state: Leaves
    params: Leaves
    rounding_noise: Leaves | None = None
    rounding_scale: Leaves | None = None
    start: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    evaluation: Leaves = field(default_factory=dict)
    rng: Leaves = field(default_factory=dict)
    activations: Leaves = field(default_factory=dict)
    buffers: Leaves = field(default_factory=dict)
    hyper_parameters: Leaves = field(default_factory=dict)
    inputs: Mapping[str, Mapping[int, np.ndarray]] = field(default_factory=dict)
    appears_at: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.losses)

    def leaves(self, stage: Stage) -> Leaves:
        """What the trace holds of a stage, by name."""
        held: Leaves = {"loss": self.losses} if stage.name == "loss" else getattr(self, stage.field)
        return held

    def entries(self) -> Iterator[tuple[str, str, np.ndarray]]:
        """(stage, leaf, (T, ...) array) in the ledger's order; params without the initial ones."""
        for stage in STEPS:
            for leaf, array in self.leaves(stage).items():
                late = max(0, self.appears_at.get(f"{stage.name}/{leaf}", 0) - self.start)
                rows = array[stage.before :]
                if late:  # nothing was there, on either side, or the structure differs
                    rows = np.concatenate([np.zeros((late, *rows.shape[1:]), rows.dtype), rows])
                yield stage.name, leaf, rows

    def held_once(self, leaf: str) -> bool:
        """Whether the optimizer was given what was backpropagated, bit for bit."""
        return leaf in self.grads and self.grads[leaf] is self.raw_grads.get(leaf)

    def inputs_of(self, step: int) -> dict[str, np.ndarray]:
        """{name: array} that a step was made on (from 0). InputError where that was not kept."""
        if not 0 <= step < len(self):
            raise InputError(f"step {step} of a trace that has {len(self)}")
        if missing := [name for name in self.batch if name not in self.inputs]:
            raise InputError(f"the trace has no values of batch {missing[0]}, a fingerprint alone")
        return {name: self.inputs[name][int(self.batch[name][step])] for name in self.batch}

    def slice(self, low: int, high: int) -> "Trace":
        """Steps low to high - 1 of this trace, as views. Raises InputError for any it lacks.

        A leaf that comes after them is not in them.
        """
        if not 0 <= low <= high <= len(self):
            raise InputError(f"steps {low} to {high} of a trace that has {len(self)}")
        later = {key for key, first in self.appears_at.items() if first >= self.start + high}

        def rows(key: str, array: np.ndarray, before: int) -> np.ndarray:
            late = max(0, self.appears_at.get(key, 0) - self.start)
            return array[max(0, low - late) : max(0, high - late) + before]

        def measured(leaves: Leaves | None) -> Leaves | None:
            return leaves and {name: array[low:high] for name, array in leaves.items()}

        return self._each(
            rows,
            later,
            rounding_noise=measured(self.rounding_noise),
            rounding_scale=measured(self.rounding_scale),
            start=self.start + low,
            appears_at={key: first for key, first in self.appears_at.items() if key not in later},
        )

    def _each(
        self,
        change: Callable[[str, np.ndarray, int], np.ndarray],
        without: Collection[str] = (),
        **others: Any,
    ) -> "Trace":
        """With the rows of every leaf changed, but for some; what is held once stays so."""
        changed: dict[str, Any] = {}
        for stage in STEPS:
            made = {
                leaf: changed["raw_grads"][leaf]
                if stage.name == "grads" and self.held_once(leaf)
                else change(f"{stage.name}/{leaf}", array, stage.before)
                for leaf, array in self.leaves(stage).items()
                if f"{stage.name}/{leaf}" not in without
            }
            changed[stage.field] = made["loss"] if stage.name == "loss" else made
        return dataclasses.replace(self, **changed, **others)

    def with_rounding_noise_of(self, exact: "Trace") -> "Trace":
        """This trace with what was measured on another run of the same problem."""
        measured = {
            n: exact.evaluation[n]
            for n in ("rounding_noise", "rounding_scale")
            if n in exact.evaluation
        }
        evaluation = {**self.evaluation, **measured}
        return dataclasses.replace(
            self,
            rounding_noise=exact.rounding_noise,
            rounding_scale=exact.rounding_scale,
            evaluation=evaluation,
        )

    def outcome(self) -> Outcome:
        """How the run ended."""
        return Outcome(
            losses=self.losses,
            initial_params={name: array[0] for name, array in self.params.items()},
            params={name: array[-1] for name, array in self.params.items()},
            grads={name: array[-1] for name, array in self.raw_grads.items()},
            metrics=self.metrics,
        )

    def summary(self) -> str:
        """What was recorded, a line a stage: its leaves and numbers a step; and what is odd."""
        ran, first, last = self.metadata, float(self.losses[0]), float(self.losses[-1])
        lines = [
            f"{ran.framework}, {ran.dtype} on {ran.device}: {len(self)} steps, "
            f"loss {first:.6g} to {last:.6g}"
        ]
        for stage in LEAVES:
            if leaves := self.leaves(stage):
                numbers = sum(math.prod(array.shape[1:]) for array in leaves.values())
                lines.append(f"{stage.name}: {len(leaves)} leaves, {numbers} numbers a step")
        if changed := [leaf for leaf in self.grads if not self.held_once(leaf)]:
            lines.append(f"given gradients differ from raw ones: {len(changed)} leaves")
        for key, step in self.appears_at.items():
            lines.append(f"{key} from step {step + 1} on")
        return "\n".join(lines)

    def validation_error(self) -> str | None:
        """What keeps this from being T steps of one dtype, in a few words; None: nothing does."""
        if self.losses.ndim != 1:
            return f"loss has shape {self.losses.shape}, expected one number a step"
        if problem := evaluation.validation_error(self.evaluation, self.metadata.dtype):
            return f"evaluation, {problem}"
        for stage in STEPS:
            for leaf, array in self.leaves(stage).items():
                key = f"{stage.name}/{leaf}"
                late = min(len(self), max(0, self.appears_at.get(key, 0) - self.start))
                rows = len(self) - late + stage.before
                if array.shape[:1] != (rows,):
                    return f"{stage.name}, {leaf} has shape {array.shape}, expected {rows} rows"
                if stage.numbers and array.dtype != self.metadata.dtype:
                    return f"{stage.name}, {leaf} is {array.dtype}, expected {self.metadata.dtype}"
                measured = [self.rounding_noise] if stage.noisy else []
                measured += [self.rounding_scale] if stage.name in ("loss", "raw_grads") else []
                for sizes in measured:
                    size = None if sizes is None else sizes.get(key)
                    if sizes is not None and (size is None or size.shape != (len(self),)):
                        what = f"{stage.name}, {leaf}"
                        return f"{what}: what rounding does to it is not known for every step"
        return None

    def save(self, folder: "str | PathLike[str]") -> None:
        """Writes the trace to a new folder. Raises InputError."""
        with TraceWriter(folder, self.metadata) as writer:
            writer.write(self)
            writer.finish(self.metrics)


def concatenate(chunks: Sequence[Trace]) -> Trace:
    """One trace from consecutive pieces. Raises InputError when they do not follow each other."""
    if not chunks:
        raise InputError("a trace of no steps: expected at least 1")
    first, last = chunks[0], chunks[-1]
    for before, after in itertools.pairwise(chunks):
        if before.start + len(before) != after.start:
            raise InputError(
                f"steps {after.start} follow steps that end at {before.start + len(before)}"
            )
        for stage in LEAVES:
            ours, theirs = (_like(piece, stage) for piece in (before, after))
            for leaf in ours.keys() | theirs.keys():
                late = after.appears_at.get(f"{stage.name}/{leaf}", 0) >= after.start
                if ours.get(leaf) != theirs.get(leaf) and not (leaf not in ours and late):
                    raise InputError(
                        f"the {stage.name} of steps {after.start} on are not of the names, shapes "
                        "and dtypes of those before"
                    )

    def rows(key: str, last_rows: np.ndarray, before: int) -> np.ndarray:
        name, _, leaf = key.partition("/")
        every = [chunk.leaves(STAGES[name]) for chunk in chunks]
        held = [leaves[leaf] for leaves in every if leaf in leaves]
        return np.concatenate([held[0][:before], *(array[before:] for array in held)])

    def measured(pick: str) -> Any:
        pieces = [getattr(chunk, pick) for chunk in chunks]
        return {name: np.concatenate([p[name] for p in pieces]) for name in pieces[0]}

    known = all(
        chunk.rounding_noise is not None and chunk.rounding_scale is not None for chunk in chunks
    )
    once = {
        leaf for leaf in last.grads if all(c.held_once(leaf) for c in chunks if leaf in c.grads)
    }
    grads = {n: last.raw_grads[n] if n in once else np.array(a) for n, a in last.grads.items()}
    return dataclasses.replace(last, grads=grads)._each(
        rows,
        rounding_noise=measured("rounding_noise") if known else None,
        rounding_scale=measured("rounding_scale") if known else None,
        inputs={
            name: {n: a for chunk in chunks for n, a in chunk.inputs.get(name, {}).items()}
            for name in last.inputs
        },
        start=first.start,
        metrics=last.metrics,
        evaluation=last.evaluation,
    )


def _like(trace: Trace, stage: Stage) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """What the pieces of one run have in common: names, shapes of a step and dtypes."""
    leaves = trace.leaves(stage).items()
    return {name: (array.shape[1:], array.dtype) for name, array in leaves}
