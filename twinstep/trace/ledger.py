"""A trace is what a run leaves: the ledger of every step, in the order in which it is made.

A step's entries are batch, loss, grads, opt_state, params; after the last one comes, where the
document tests, what the test made of the last parameters. Parameters and everything of their shape
bear PyTorch's ``state_dict`` names and layouts, whichever framework wrote the trace.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from twinstep.errors import InputError
from twinstep.trace import evaluation

if TYPE_CHECKING:
    from os import PathLike

STAGES = ("batch", "loss", "grads", "opt_state", "params", "evaluation")

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
    """What ran: example, its hyper-parameters, framework, dtype, device, precision, versions."""

    example: str
    spec: Mapping[str, Any]
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
    grads: {name: (T, ...)} what the optimizer was given
    opt_state: {name: (T, ...)} after the update; `weight.exp_avg` is Adam's first moment of weight
    params: {name: (T + 1, ...)} the initial ones first
    noise: {"stage/name": (T,)} how far rounding carries each leaf of this very run, if measured
    scales: {"stage/name": (T,)} what an eps of the numbers that losses and gradients are made of
        comes to
    start: the number of the first step, counted from 0
    metrics: {name: value} measured when the training was over
    evaluation: of N tested samples, when the training was over: "outputs" (N, classes),
        "predictions" (N,); "noise" and "rounding" (): what noise and scales are to the outputs
    """

    metadata: Metadata
    losses: np.ndarray
    batch: Leaves
    grads: Leaves
    opt_state: Leaves
    params: Leaves
    noise: Leaves | None = None
    scales: Leaves | None = None
    start: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    evaluation: Leaves = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.losses)

    def entries(self) -> Iterator[tuple[str, str, np.ndarray]]:
        """(stage, leaf, (T, ...) array) in the ledger's order; params without the initial ones."""
        yield from (("batch", name, array) for name, array in self.batch.items())
        yield "loss", "loss", self.losses
        yield from (("grads", name, array) for name, array in self.grads.items())
        yield from (("opt_state", name, array) for name, array in self.opt_state.items())
        yield from (("params", name, array[1:]) for name, array in self.params.items())

    def cut(self, low: int, high: int) -> "Trace":
        """Steps low to high - 1 of this trace, as views. Raises InputError for any it lacks."""
        if not 0 <= low <= high <= len(self):
            raise InputError(f"steps {low} to {high} of a trace that has {len(self)}")

        def rows(leaves: Leaves, extra: int = 0) -> dict[str, np.ndarray]:
            return {name: array[low : high + extra] for name, array in leaves.items()}

        return dataclasses.replace(
            self,
            losses=self.losses[low:high],
            batch=rows(self.batch),
            grads=rows(self.grads),
            opt_state=rows(self.opt_state),
            params=rows(self.params, extra=1),
            noise=None if self.noise is None else rows(self.noise),
            scales=None if self.scales is None else rows(self.scales),
            start=self.start + low,
        )

    def with_noise_of(self, exact: "Trace") -> "Trace":
        """This trace with what was measured on another run of the same problem."""
        measured = {n: exact.evaluation[n] for n in ("noise", "rounding") if n in exact.evaluation}
        evaluation = {**self.evaluation, **measured}
        return dataclasses.replace(
            self, noise=exact.noise, scales=exact.scales, evaluation=evaluation
        )

    def outcome(self) -> Outcome:
        """How the run ended."""
        return Outcome(
            losses=self.losses,
            initial_params={name: array[0] for name, array in self.params.items()},
            params={name: array[-1] for name, array in self.params.items()},
            grads={name: array[-1] for name, array in self.grads.items()},
            metrics=self.metrics,
        )

    def save(self, folder: "str | PathLike[str]") -> None:
        """Writes the trace to a new folder; see `twinstep.trace.storage`. Raises InputError."""
        from twinstep.trace.storage import TraceWriter

        with TraceWriter(folder, self.metadata) as writer:
            writer.write(self)
            writer.finish(self.metrics)


def flaw(trace: Trace) -> str | None:
    """What keeps a trace from being T steps of one dtype, in a few words; None: nothing does."""
    if trace.losses.ndim != 1:
        return f"loss has shape {trace.losses.shape}, expected one number a step"
    if problem := evaluation.flaw(trace.evaluation, trace.metadata.dtype):
        return f"evaluation, {problem}"
    for stage in STAGES[:-1]:
        leaves = {"loss": trace.losses} if stage == "loss" else getattr(trace, stage)
        rows = len(trace) + (stage == "params")  # the initial ones are a row more
        for leaf, array in leaves.items():
            if array.shape[:1] != (rows,):
                return f"{stage}, {leaf} has shape {array.shape}, expected {rows} rows"
            if stage != "batch" and array.dtype != trace.metadata.dtype:
                return f"{stage}, {leaf} is {array.dtype}, expected {trace.metadata.dtype}"
            measured = [trace.noise] if stage != "batch" else []
            measured += [trace.scales] if stage in ("loss", "grads") else []
            for sizes in measured:
                size = None if sizes is None else sizes.get(f"{stage}/{leaf}")
                if sizes is not None and (size is None or size.shape != (len(trace),)):
                    return f"{stage}, {leaf}: what rounding does to it is not known for every step"
    return None


def join(chunks: Sequence[Trace]) -> Trace:
    """One trace from consecutive pieces. Raises InputError when they do not follow each other."""
    if not chunks:
        raise InputError("a trace of no steps: expected at least 1")
    first, last = chunks[0], chunks[-1]
    for before, after in itertools.pairwise(chunks):
        if before.start + len(before) != after.start:
            raise InputError(
                f"steps {after.start} follow steps that end at {before.start + len(before)}"
            )

        for pick in ("batch", "grads", "opt_state", "params"):
            if _like(getattr(before, pick)) != _like(getattr(after, pick)):
                raise InputError(
                    f"the {pick} of steps {after.start} on are not of the names, shapes and dtypes "
                    "of those before"
                )

    def rows(pick: str) -> dict[str, np.ndarray]:
        pieces = [getattr(chunk, pick) for chunk in chunks]
        return {name: np.concatenate([p[name] for p in pieces]) for name in pieces[0]}

    measured = all(chunk.noise is not None and chunk.scales is not None for chunk in chunks)
    return dataclasses.replace(
        first,
        losses=np.concatenate([chunk.losses for chunk in chunks]),
        batch=rows("batch"),
        grads=rows("grads"),
        opt_state=rows("opt_state"),
        params={
            name: np.concatenate([first.params[name][:1], *(c.params[name][1:] for c in chunks)])
            for name in first.params
        },
        noise=rows("noise") if measured else None,
        scales=rows("scales") if measured else None,
        metrics=last.metrics,
        evaluation=last.evaluation,
    )


def _like(leaves: Leaves) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """What the pieces of one run have in common: names, shapes of a step and dtypes."""
    return {name: (array.shape[1:], array.dtype) for name, array in leaves.items()}
