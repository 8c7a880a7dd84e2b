"""The main job: trains a spec in both frameworks and judges it, chunk by chunk.

PyTorch trains; JAX makes every one of its steps again from the recorded state (the gate), and
trains on its own beside it (the free run). Nothing is kept that grows with the number of steps,
unless the traces are asked for.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from twinstep import launch
from twinstep.compare import Comparison, Judge
from twinstep.specs.base import Claim, Spec
from twinstep.storage import TraceWriter
from twinstep.trace import Outcome, Trace

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Verification:
    """What verifying one spec found.

    outcomes: {framework: how its run ended}
    nearer: for float32, {framework: how far its parameters came from the float64 run, relative}
    claims: what the document says, beside what was measured
    """

    spec: Spec
    comparison: Comparison
    outcomes: dict[str, Outcome]
    nearer: dict[str, float] | None
    claims: list[Claim] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "example": self.spec.name,
            "spec": self.spec.hyper_parameters(),
            **self.comparison.to_dict(),
            "metrics": {name: dict(outcome.metrics) for name, outcome in self.outcomes.items()},
            "distance_to_float64": self.nearer,
            "claims": [claim._asdict() for claim in self.claims],
        }


def verify(
    spec: Spec,
    device: str = "cpu",
    *,
    out: str | Path | None = None,
    progress: Progress = lambda steps: None,
) -> Verification:
    """Trains `spec` in both frameworks and judges every step.

    device: "cpu", "gpu" or "tpu" (PyTorch stays on the CPU beside a TPU)
    out: a new folder for both traces; progress: called with the steps done since the last call
    Raises InputError for a device that is not there or a folder that cannot be written.
    """
    torch_device = "cpu" if device == "tpu" else device
    torch_side = launch.recorder("torch", spec, torch_device)
    jax_side = launch.recorder("jax", spec, device, noise=True)
    replay = launch.replay(spec, device)
    judge = Judge(spec.dtype)
    tails = {"torch": Tail(), "jax": Tail()}
    referee = Referee(spec, device) if spec.dtype != "float64" else None
    with contextlib.ExitStack() as stack:
        writers = _writers(stack, out, {"torch": torch_side, "jax": jax_side})
        pairs = zip(torch_side.chunks(), jax_side.chunks(), _index_chunks(spec), strict=True)
        for theirs, ours, index in pairs:
            replayed, scales = replay(theirs, index)
            judge.gate(theirs, replayed, scales, replay.remeasure)
            judge.free(theirs, ours)
            for name, chunk in (("torch", theirs), ("jax", ours)):
                tails[name].add(chunk)
                if name in writers:
                    writers[name].write(chunk)
            if referee:
                referee.add({"torch": theirs, "jax": ours})
            progress(len(theirs))
        outcomes = {name: tail.outcome() for name, tail in tails.items()}
        for name, writer in writers.items():
            writer.finish(outcomes[name].metrics)
    return Verification(
        spec=spec,
        comparison=judge.comparison(),
        outcomes=outcomes,
        nearer=referee.distances if referee else None,
        claims=spec.claims(outcomes["jax"], lambda other: outcome_of(other, device)),
    )


def outcome_of(spec: Spec, device: str = "cpu") -> Outcome:
    """How a training ends, on the JAX side; keeps no trace."""
    tail = Tail()
    for chunk in launch.chunks(spec, "jax", device, noise=False):
        tail.add(chunk)
    return tail.outcome()


class Tail:
    """What an Outcome needs of a run that is seen chunk by chunk."""

    def __init__(self) -> None:
        self._losses: list[np.ndarray] = []
        self._initial: dict[str, np.ndarray] = {}
        self._last: Trace | None = None

    def add(self, chunk: Trace) -> None:
        """Takes the next steps."""
        self._losses.append(np.array(chunk.losses))
        if not self._initial:
            self._initial = {name: np.array(array[0]) for name, array in chunk.params.items()}
        self._last = chunk.cut(len(chunk) - 1, len(chunk))

    def outcome(self) -> Outcome:
        """How the run ended; ValueError before the first step."""
        if self._last is None:
            raise ValueError("a run of no steps has no outcome")
        return self._last.outcome()._replace(
            losses=np.concatenate(self._losses), initial_params=self._initial
        )


class Referee:
    """A float64 run of the same problem: which side does rounding carry less far from it?

    distances: {framework: the farthest a parameter came from it, in units of its tensor's largest}
    """

    def __init__(self, spec: Spec, device: str) -> None:
        self._chunks = launch.recorder("jax", spec.widened(), device)
        self._steps: Iterator[Trace] | None = None
        self._spec = spec
        self.distances = {"torch": 0.0, "jax": 0.0}

    def add(self, sides: dict[str, Trace]) -> None:
        """Takes the next steps of both sides."""
        from twinstep.chunking import steps_at_once

        if self._steps is None:
            self._steps = self._chunks.chunks(steps_at_once(self._spec))
        exact = next(self._steps)
        for name, chunk in sides.items():
            for leaf, array in chunk.params.items():
                true = exact.params[leaf]
                gap = float(np.max(np.abs(array - true), initial=0))
                size = float(np.max(np.abs(true), initial=0))
                relative = gap / size if size else gap
                self.distances[name] = float(np.fmax(self.distances[name], relative))


def _index_chunks(spec: Spec) -> Iterator[Any]:
    from twinstep.chunking import steps_at_once

    return spec.batches().chunks(steps_at_once(spec))


def _writers(
    stack: contextlib.ExitStack, out: str | Path | None, recorders: dict[str, Any]
) -> dict[str, TraceWriter]:
    if out is None:
        return {}
    return {
        name: stack.enter_context(TraceWriter(Path(out) / name, recorder.metadata))
        for name, recorder in recorders.items()
    }
