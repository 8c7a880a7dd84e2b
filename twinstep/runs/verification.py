"""The main job: trains a spec in both frameworks and judges it, chunk by chunk.

PyTorch trains; JAX makes every one of its steps again from the recorded state (the gate), and
trains on its own beside it (the free run). Nothing is kept that grows with the number of steps,
unless the traces are asked for.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from twinstep import files
from twinstep.device_config import DeviceConfig
from twinstep.errors import InputError
from twinstep.judge.comparison import check_same_problem
from twinstep.judge.findings import Comparison
from twinstep.judge.history import Curve
from twinstep.judge.judge import Judge
from twinstep.judge.structure import structure
from twinstep.problems.base import Claim, Spec
from twinstep.runs import launch
from twinstep.runs.accuracy import Cost, Float64Reference
from twinstep.runs.gate import Gate
from twinstep.trace.ledger import Metadata, Outcome, Trace
from twinstep.trace.ranks import aligned
from twinstep.trace.storage import open_trace
from twinstep.trace.writing import TraceWriter, check_new_folder

COPIES = 40
"""Of its parameters that a verification holds at least: both sides, replays, perturbed reruns."""

Progress = Callable[[str, int, int], None]
"""Told which side ("torch", "jax" or "gate") goes on, its steps done, and of how many."""


@dataclass(frozen=True)
class Verification:
    """What verifying one spec found.

    Attributes:
        spec: The problem.
        comparison: The verdict on all steps.
        outcomes: {framework: how its run ended}.
        distances: {framework: how far its float32 parameters came from the float64 run, relative};
            None in float64.
        costs: {framework: what its fast mode costs in float32}; None where fast modes are not
            allowed, or in float64.
        history: {("gate" or "free", stage): its curve over the steps}.
        runs: {framework: what ran: device, precision, versions}.
        seconds: What it took.
        claims: What the document says, beside what was measured: a pass of its own, `runs.claims`.

    Example:
        >>> import twinstep
        >>> result = twinstep.verify(twinstep.examples()["zero_grad"](dtype="float64", steps=2))
        >>> result.comparison.verdict.same, result.comparison.steps, sorted(result.outcomes)
        (True, 2, ['jax', 'torch'])
        >>> result.runs["torch"].framework, result.nearer
        ('torch', None)
    """

    spec: Spec
    comparison: Comparison
    outcomes: dict[str, Outcome]
    distances: dict[str, float] | None
    costs: dict[str, Cost] | None
    history: dict[tuple[str, str], Curve]
    runs: dict[str, Metadata]
    seconds: float
    claims: Sequence[Claim] = ()

    @property
    def nearer(self) -> str | None:
        """Whose float32 is nearer to the float64 run, or "both"; None: that was not measured."""
        if self.distances is None:
            return None
        torch, jax = self.distances["torch"], self.distances["jax"]
        return "both" if torch == jax else "torch" if torch < jax else "jax"

    @property
    def accuracy(self) -> dict[str, float]:
        """{framework: percent of the test images named rightly}, of an example that has such."""
        tested = {name: run.metrics for name, run in self.outcomes.items() if run.metrics}
        return {name: 100 * m["correct"] / m["test_images"] for name, m in tested.items()}

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON values.

        Returns:
            {name: value}: the comparison's, and what else was found.
        """
        return {
            "example": self.spec.name,
            "spec": self.spec.hyper_parameters(),
            **self.comparison.to_dict(),
            "metrics": {name: dict(outcome.metrics) for name, outcome in self.outcomes.items()},
            "accuracy": self.accuracy,
            "distance_to_float64": self.distances,
            "nearer_to_float64": self.nearer,
            "cost_of_fast_modes": self.costs
            and {name: cost.to_dict() for name, cost in self.costs.items()},
            "claims": [claim._asdict() for claim in self.claims],
            "runs": {
                name: {
                    "device": run.device,
                    "precision": run.precision,
                    "versions": dict(run.versions),
                }
                for name, run in self.runs.items()
            },
            "seconds": self.seconds,
        }


def verify(
    spec: Spec,
    device: str = "cpu",
    *,
    devices: int = 1,
    precision: str = "highest",
    out: str | Path | None = None,
    progress: Progress = lambda side, step, steps: None,
) -> Verification:
    """Trains a spec in both frameworks and judges every step.

    Args:
        spec: The problem, one of `examples()`.
        device: "cpu", "gpu" or "tpu"; PyTorch stays on the CPU beside a TPU.
        devices: How many share each batch.
        precision: Of float32 matrix products: "highest", or "default" for what a framework does
            for speed.
        out: A new folder for both traces; None: none are written.
        progress: Called with the side ("torch", "jax" or "gate"), its steps done, and of how many,
            before it does its next chunk.

    Returns:
        The verdict, and what led to it.

    Raises:
        InputError: For a framework that is not installed, a device that is not there, sizes that
            do not fit the memory, data that cannot be read, and a folder that cannot be written.

    Example:
        >>> import twinstep
        >>> result = twinstep.verify(twinstep.examples()["zero_grad"](dtype="float64", steps=2))
        >>> result.comparison.verdict.same, result.comparison.first
        (True, None)
    """
    start = time.perf_counter()
    device_config = DeviceConfig(device, devices, precision)
    if spec.float64_alone and spec.dtype != "float64":
        raise InputError(
            f"{spec.name}: dtype is {spec.dtype!r}, expected 'float64': what measures {spec.dtype} "
            "is made in float64, in which PyTorch draws other numbers"
        )
    spec.check_fits_memory("verifying", COPIES)
    if out is not None:
        for name in launch.FRAMEWORKS:
            check_new_folder(files.checked_path("out", out) / name)
    torch_side = launch.driver("torch", spec, device_config.for_torch())
    # float32's rounding noise is measured by the float64 run, which is the referee's
    jax_side = launch.driver("jax", spec, device_config, rounding_noise=spec.dtype == "float64")
    gate = Gate(spec, device_config)
    judge = Judge(spec.dtype)
    builders = {"torch": OutcomeBuilder(), "jax": OutcomeBuilder()}
    float64_reference = Float64Reference(spec, device_config) if spec.dtype != "float64" else None
    with contextlib.ExitStack() as stack:
        writers = _writers(stack, out, {"torch": torch_side, "jax": jax_side})
        steps = spec.total_steps
        sides = (
            _announced(name, side.chunks(), progress, steps)
            for name, side in (("torch", torch_side), ("jax", jax_side))
        )
        for theirs, ours, index in zip(*sides, _index_chunks(spec), strict=True):
            progress("gate", theirs.start, steps)
            gate(judge, theirs, index)
            if float64_reference:
                ours = float64_reference.add({"torch": theirs, "jax": ours})
            judge.free(theirs, ours)
            for name, chunk in (("torch", theirs), ("jax", ours)):
                builders[name].add(chunk)
                if name in writers:
                    writers[name].write(chunk)
        outcomes = {name: builder.outcome() for name, builder in builders.items()}
        for name, writer in writers.items():
            writer.finish(outcomes[name].metrics)
    return Verification(
        spec=spec,
        comparison=judge.comparison(),
        outcomes=outcomes,
        distances=float64_reference.params if float64_reference else None,
        costs=float64_reference.costs if float64_reference else None,
        history=judge.history.curves,
        runs={"torch": torch_side.metadata, "jax": jax_side.metadata},
        seconds=time.perf_counter() - start,
    )


def compare_stored(
    reference: str | Path, candidate: str | Path, *, steps: int | None = None
) -> Comparison:
    """Judges two saved traces piece by piece, as `compare` judges two in memory.

    Args:
        reference, candidate: The folders.
        steps: Compare the first ones only; None: all.

    Returns:
        The verdict, its reason in a sentence, and the first entry that is off.

    Raises:
        InputError: For folders that hold no trace, and as for `compare`.
    """
    return judge_stored(reference, candidate, steps=steps).comparison()


def judge_stored(
    reference: str | Path, candidate: str | Path, *, steps: int | None = None
) -> Judge:
    """The same, with what the judge saw step by step in its `history`."""
    stored = open_trace(reference), open_trace(candidate)
    a, b = stored
    check_same_problem(a.metadata, b.metadata)
    lengths = [trace.steps for trace in stored]
    if steps is None and lengths[0] != lengths[1]:
        short = min(stored, key=lambda trace: trace.steps)
        why = "" if short.complete else f" ({short.folder} is of a run that did not end)"
        raise InputError(
            f"the traces have {lengths[0]} and {lengths[1]} steps{why}: "
            f"--steps {min(lengths)} compares what both have"
        )
    count = lengths[0] if steps is None else steps
    if not 1 <= count <= min(lengths):
        raise InputError(f"steps is {count}, the traces have {lengths[0]} and {lengths[1]}")
    judge = Judge(a.metadata.dtype)
    for which, trace in (("first", a), ("second", b)):
        if not trace.complete:
            judge.note(f"the run of the {which} trace ended early, after {trace.steps} steps")
    for ours, theirs in aligned([a.chunks(), b.chunks()], count):
        if difference := structure(ours, theirs):
            raise InputError(f"the traces differ: {difference}")
        judge.free(ours, theirs)
    return judge


class OutcomeBuilder:
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
        self._last = chunk.slice(len(chunk) - 1, len(chunk))

    def outcome(self) -> Outcome:
        """How the run ended; ValueError before the first step."""
        if self._last is None:
            raise ValueError("a run of no steps has no outcome")
        return self._last.outcome()._replace(
            losses=np.concatenate(self._losses), initial_params=self._initial
        )


def _announced(
    side: str, chunks: Iterator[Trace], progress: Progress, steps: int
) -> Iterator[Trace]:
    """The chunks; each is announced before it is made, and the end of all."""
    done = 0
    progress(side, done, steps)
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        progress(side, done, steps)


def _index_chunks(spec: Spec) -> Iterator[Any]:
    return spec.chunks()


def _writers(
    stack: contextlib.ExitStack, out: str | Path | None, drivers: dict[str, Any]
) -> dict[str, TraceWriter]:
    if out is None:
        return {}
    return {
        name: stack.enter_context(TraceWriter(Path(out) / name, driver.metadata))
        for name, driver in drivers.items()
    }
