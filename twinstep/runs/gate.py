"""The gate: each recorded step made again by the other side from the same state, and judged alone.

What a float64 step may be off is measured by the program that makes it again. A float32 program
must not set its own allowance: a fault that it has in float32 alone would excuse itself. So its
steps are measured by the float64 program, which answers for rounding to float32, after that has
passed a gate of its own on this very problem.
"""

import dataclasses
from functools import cached_property, partial
from typing import Any

import numpy as np

from twinstep.device_config import CPU, DeviceConfig
from twinstep.judge import measure, tolerance
from twinstep.judge.judge import Judge
from twinstep.judge.structure import structure
from twinstep.problems.base import Spec
from twinstep.problems.batches import IndexChunk
from twinstep.runs import launch
from twinstep.trace import dtypes
from twinstep.trace.ledger import Leaves, Trace
from twinstep.trace.stages import STAGES


class Gate:
    """Judges recordings of `spec`, chunk after chunk, from the first step on."""

    def __init__(self, spec: Spec, device_config: DeviceConfig = CPU) -> None:
        self._spec, self._device_config = spec, device_config
        self._replay = launch.replay(spec, device_config)

    def __call__(self, judge: Judge, recorded: Trace, chunk: IndexChunk) -> None:
        """Judges the next steps. chunk: which samples they took."""
        replayed, scale = self._replay(recorded, chunk)
        if self._spec.dtype == "float64":
            judge.gate(recorded, replayed, scale, self._replay.measure_rounding_scale)
            return
        if structure(recorded, replayed):
            judge.gate(recorded, replayed, {})  # which says so
            return
        reference = self._reference
        judge.note(reference.says)
        reference.load(recorded, chunk)
        measure_rounding_scale = partial(reference.measure_rounding_scale, recorded, replayed)
        if recorded.evaluation:
            replayed = dataclasses.replace(
                replayed, evaluation=reference.evaluation(recorded, replayed)
            )
        if not reference.cheap:
            judge.gate(recorded, replayed, _apparent(recorded), measure_rounding_scale)
            return
        if self._spec.uses_closure:
            replayed = dataclasses.replace(replayed, rounding_noise=reference.rounding_noise())
        judge.gate(recorded, replayed, measure_rounding_scale(np.arange(len(recorded))))

    @cached_property
    def _reference(self) -> "RoundingReference":
        return RoundingReference(self._spec, self._device_config)


class RoundingReference:
    """The float64 program that says how far rounding may move a float32 run of the same problem.

    JAX's, where that passes its gate over the first steps, else PyTorch's own.
    says: which of them it is, and why
    """

    def __init__(self, spec: Spec, device_config: DeviceConfig) -> None:
        wide, alone = spec.to_float64(), device_config.single_device()
        self._judged = spec.dtype
        self._program = launch.replay(wide, alone)
        self._program.judged, judge = "float64", Judge("float64")
        _first_steps(judge, wide, alone, self._program)
        tried = judge.comparison().steps
        self.says = f"{spec.dtype} is measured by JAX's float64, which passed its gate"
        self.says += f" over the first {tried} steps" if tried < wide.total_steps else ""
        if fault := judge.fault:
            self._program = launch.replay(wide, alone, framework="torch")
            self.says = f"{spec.dtype} is measured by PyTorch's float64, for JAX's failed: {fault}"
        self._program.judged = spec.dtype  # one compiled program serves both

    @property
    def cheap(self) -> bool:
        """Whether every step is to be measured, and not only those that little explains."""
        return bool(self._program.cheap)

    def load(self, recorded: Trace, chunk: IndexChunk) -> None:
        """Takes the states from which the steps of a chunk are made."""
        self._program.load(recorded, chunk)

    def rounding_noise(self) -> Leaves:
        """How far rounding in its evaluations carries what each step results in."""
        rounding_noise: Leaves = self._program.replay_chunk()[0]["rounding_noise"]
        return rounding_noise

    def evaluation(self, recorded: Trace, replayed: Trace) -> Leaves:
        """What the replay's test made, with how far rounding may move it."""
        exact = self._program.evaluated(recorded)[0]
        true = exact["outputs"][None]
        both = [side.evaluation["outputs"][None] for side in (recorded, replayed)]
        return {
            **replayed.evaluation,
            "rounding_scale": exact["rounding_scale"] + self._lost("evaluation", true, *both)[0],
        }

    def measure_rounding_scale(self, recorded: Trace, replayed: Trace, rows: np.ndarray) -> Leaves:
        """{"stage/leaf": (rows,)}: what an eps of their own makes of losses and gradients.

        To what the float64 program says comes the smaller of both sides' distances from it: what
        float32 loses where no perturbation of the parameters shows it. A saturated tanh has a slope
        1 - h**2 that is all rounding.
        """
        program = self._program
        ledger, scale = program.replay_chunk() if program.cheap else program.replay_rows(rows)
        exact = {("loss", "loss"): ledger["loss"]}
        exact |= {("raw_grads", name): array for name, array in ledger["raw_grads"].items()}
        theirs = {(stage, leaf): array for stage, leaf, array in replayed.entries()}
        found = dict(scale)
        for stage, leaf, array in recorded.entries():
            if (stage, leaf) not in exact:
                continue
            both = array[rows], theirs[stage, leaf][rows]
            found[f"{stage}/{leaf}"] += self._lost(stage, exact[stage, leaf], *both)
        return found

    def _lost(self, stage: str, exact: np.ndarray, *both: np.ndarray) -> np.ndarray:
        """(rows,) the smaller of both sides' distances; no more than may be excused by that."""
        far = [measure.differences(side.astype(exact.dtype), exact) for side in both]
        limit = tolerance.max_noise_share(self._judged) / STAGES[stage].one_step
        smaller: np.ndarray = np.minimum(np.fmin(*far), limit * measure.largest(exact))
        return smaller


def _first_steps(judge: Judge, spec: Spec, device_config: DeviceConfig, replay: Any) -> None:
    """The gate over the first block of steps alone."""
    recorded = next(launch.driver("torch", spec, device_config.for_torch()).chunks(replay.block))
    replayed, scale = replay(recorded, next(spec.batches().chunks(replay.block)))
    judge.gate(recorded, replayed, scale, replay.measure_rounding_scale)


def _apparent(recorded: Trace) -> dict[str, np.ndarray]:
    """{"stage/leaf": (T,)}: an eps of the largest entries, which is at least what they round by."""
    eps = tolerance.eps(recorded.metadata.dtype)
    return {
        f"{stage}/{leaf}": eps * measure.largest(array)
        for stage, leaf, array in recorded.entries()
        if stage in ("loss", "raw_grads", "buffers") and tolerance.eps(dtypes.name(array.dtype))
    }
