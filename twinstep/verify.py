"""The main job: trains a spec in both frameworks and judges it, chunk by chunk.

PyTorch trains; JAX makes every one of its steps again from the recorded state (the gate), and
trains on its own beside it (the free run). Nothing is kept that grows with the number of steps,
unless the traces are asked for.
"""

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from twinstep import files, launch
from twinstep.accuracy import Cost, Referee
from twinstep.chunking import steps_at_once
from twinstep.compare import refuse_other_problem
from twinstep.errors import InputError
from twinstep.findings import Comparison
from twinstep.history import Curve
from twinstep.judge import Judge
from twinstep.place import CPU, Place
from twinstep.specs.base import Claim, Spec
from twinstep.storage import TraceWriter, open_trace, refuse_used
from twinstep.structure import structure
from twinstep.trace import Metadata, Outcome, Trace

COPIES = 40
"""Of its parameters that a verification holds at least: both sides, replays, perturbed reruns."""

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Verification:
    """What verifying one spec found.

    outcomes: {framework: how its run ended}
    distances: for float32, {framework: how far its parameters came from the float64 run, relative}
    costs: for float32 where fast modes are allowed, {framework: what its own costs}
    claims: what the document says, beside what was measured
    history: every stage over the steps: {("gate" or "free", stage): Curve}
    runs: {framework: what ran: device, precision, versions}
    seconds: what it took
    """

    spec: Spec
    comparison: Comparison
    outcomes: dict[str, Outcome]
    distances: dict[str, float] | None
    costs: dict[str, Cost] | None
    claims: list[Claim]
    history: dict[tuple[str, str], Curve]
    runs: dict[str, Metadata]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "example": self.spec.name,
            "spec": self.spec.hyper_parameters(),
            **self.comparison.to_dict(),
            "metrics": {name: dict(outcome.metrics) for name, outcome in self.outcomes.items()},
            "distance_to_float64": self.distances,
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
    progress: Progress = lambda steps: None,
) -> Verification:
    """Trains `spec` in both frameworks and judges every step.

    device: "cpu", "gpu" or "tpu" (PyTorch stays on the CPU beside a TPU)
    devices, precision: how many share each batch, and how they multiply; see `place.Place`
    out: a new folder for both traces; progress: called with the steps done since the last call
    Raises InputError for a device that is not there or a folder that cannot be written.
    """
    start = time.perf_counter()
    place = Place(device, devices, precision)
    spec.refuse_too_large("verifying", COPIES)
    if out is not None:
        for name in launch.FRAMEWORKS:
            refuse_used(files.named("out", out) / name)
    torch_side = launch.recorder("torch", spec, place.for_torch())
    jax_side = launch.recorder("jax", spec, place, noise=True)
    replay = launch.replay(spec, place)
    judge = Judge(spec.dtype)
    tails = {"torch": Tail(), "jax": Tail()}
    referee = Referee(spec, place) if spec.dtype != "float64" else None
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
        distances=referee.params if referee else None,
        costs=referee.costs if referee else None,
        claims=spec.claims(outcomes["jax"], lambda other: outcome_of(other, place)),
        history=judge.history.curves,
        runs={"torch": torch_side.metadata, "jax": jax_side.metadata},
        seconds=time.perf_counter() - start,
    )


def verify_all(
    specs: Sequence[Spec],
    place: Place = CPU,
    *,
    jobs: int = 1,
    threads: int = 1,
    keep_compiled: bool = False,
    out: str | None = None,
    done: Callable[[], None] = lambda: None,
) -> list[Verification]:
    """Verifies many specs, `jobs` at a time, each job a process; results in the specs' order.

    threads: PyTorch's, in each; out: a folder for traces, EXAMPLE/DTYPE/FRAMEWORK
    keep_compiled: keep JAX's compiled programs for the next time, in the user's cache folder
    done: called when one more is finished. Raises InputError as `verify` does.
    """
    folders = [None if out is None else f"{out}/{spec.name}/{spec.dtype}" for spec in specs]
    tasks = [
        (spec, place, threads, keep_compiled, folder)
        for spec, folder in zip(specs, folders, strict=True)
    ]
    # a long run leaves a GiB behind in its process: each gets one that ends with it
    one_each = len(specs) > 1 and all(spec.total_steps > steps_at_once(spec) for spec in specs)
    results = []
    if jobs == 1 and not one_each:
        for task in tasks:
            results.append(_verify_one(*task))
            done()
        return results
    # spawned: a forked child would inherit the frameworks' thread pools in an unknown state
    context = multiprocessing.get_context("spawn")
    workers, most = min(jobs, len(tasks)), 1 if one_each else None
    with ProcessPoolExecutor(workers, context, max_tasks_per_child=most) as pool:
        futures = [pool.submit(_verify_one, *task) for task in tasks]
        for future in futures:
            future.add_done_callback(lambda _: done())
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _verify_one(
    spec: Spec, place: Place, threads: int, keep_compiled: bool, out: str | None
) -> Verification:
    launch.set_threads("torch", threads)
    if keep_compiled:
        launch.keep_compiled("jax")
    return verify(spec, place.device, devices=place.devices, precision=place.precision, out=out)


def compare_stored(
    reference: str | Path, candidate: str | Path, *, steps: int | None = None
) -> Comparison:
    """Judges two saved traces piece by piece, as `compare` judges two in memory.

    Raises InputError for folders that hold no trace, and as `compare` does.
    """
    stored = open_trace(reference), open_trace(candidate)
    a, b = stored
    refuse_other_problem(a.metadata, b.metadata)
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
    for ours, theirs in _aligned(a.chunks(), b.chunks(), count):
        if difference := structure(ours, theirs):
            raise InputError(f"the traces differ: {difference}")
        judge.free(ours, theirs)
    return judge.comparison()


def _aligned(a: Iterator[Trace], b: Iterator[Trace], steps: int) -> Iterator[tuple[Trace, Trace]]:
    """The first `steps` steps of two runs in pairs of pieces of the same steps."""
    ours, theirs = next(a), next(b)
    while True:
        size = min(len(ours), len(theirs), steps - ours.start)
        yield ours.cut(0, size), theirs.cut(0, size)
        if ours.start + size == steps:
            return
        ours = ours.cut(size, len(ours)) if size < len(ours) else next(a)
        theirs = theirs.cut(size, len(theirs)) if size < len(theirs) else next(b)


def outcome_of(spec: Spec, place: Place) -> Outcome:
    """How a training ends, on the JAX side; keeps no trace."""
    tail = Tail()
    for chunk in launch.chunks(spec, "jax", place, noise=False):
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


def _index_chunks(spec: Spec) -> Iterator[Any]:
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
