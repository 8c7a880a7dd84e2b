"""What keeps arrays from being a trace: T steps of leaves whose dtypes are judged."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from twinstep.trace import dtypes, evaluation
from twinstep.trace.stages import STEPS, Stage

Trace = Any  # `ledger.Trace`, whose `validation_error` this is


def error(trace: Trace) -> str | None:
    """It in a few words; None: nothing does."""
    if problem := _no_array(trace):
        return problem
    dtype, losses = trace.metadata.dtype, trace.losses
    known = {f"{stage.name}/{leaf}" for stage in STEPS for leaf in trace.leaves(stage)}
    if odd := [key for key in trace.rows if key not in known]:
        return f"rows names {odd[0]!r}, which is none of its leaves"
    if losses.ndim != 1:
        return f"loss has shape {losses.shape}, expected one number a step"
    if problem := evaluation.validation_error(trace.evaluation, dtype):
        return f"evaluation, {problem}"
    for stage in STEPS:
        for leaf, array in trace.leaves(stage).items():
            what, key = f"{stage.name}, {leaf}", f"{stage.name}/{leaf}"
            steps = trace.steps_of(stage.name, leaf)
            rows = len(trace) if stage.name == "loss" else len(steps) + stage.initial
            if array.shape[:1] != (rows,):
                return f"{what} has shape {array.shape}, expected {rows} rows"
            if problem := _no_steps(steps, trace.start, trace.start + len(trace)):
                return f"{what}: {problem}"
            if not may_be(stage, array.dtype, dtype):
                return f"{what} is {dtypes.name(array.dtype)}, expected {expected(stage, dtype)}"
            measured = [trace.rounding_noise] if stage.noisy else []
            measured += [trace.rounding_scale] if stage.name in ("loss", "raw_grads") else []
            for sizes in measured:
                size = None if sizes is None else sizes.get(key)
                if sizes is not None and (size is None or size.shape != (len(steps),)):
                    return f"{what}: what rounding does to it is not known for every step"
    return None


def _no_steps(steps: np.ndarray, start: int, end: int) -> str | None:
    """What keeps numbers from being those of a leaf's steps, in their order."""
    if not isinstance(steps, np.ndarray) or steps.ndim != 1 or steps.dtype.kind not in "iu":
        return "the steps of its rows are no whole numbers, one a row"
    if np.any(steps[1:] < steps[:-1]) or (len(steps) and not start <= steps[0] <= steps[-1] < end):
        return f"its rows are of steps {steps.tolist()}, expected an order within {start} to {end}"
    return None


def may_be(stage: Stage, dtype: np.dtype, run: str) -> bool:
    """Whether a leaf of a run of that dtype may have this one."""
    if stage.name == "loss" or dtypes.name(dtype) in dtypes.WIDE:
        return not stage.numbers or dtypes.name(dtype) == run
    return dtypes.judged(dtype)


def expected(stage: Stage, run: str) -> str:
    """What it may be, for people."""
    if stage.name == "loss":
        return run
    wide = f"{run} as the run is" if stage.numbers else " or ".join(dtypes.WIDE)
    return f"{wide}, {', '.join(dtypes.OWN)} or integers"


def _no_array(trace: Trace) -> str | None:
    """The first leaf that is no array of NumPy."""
    measured = {n: getattr(trace, n) or {} for n in ("rounding_noise", "rounding_scale")}
    held = {stage.name: trace.leaves(stage) for stage in STEPS} | measured
    for what, leaves in (held | {"evaluation": trace.evaluation}).items():
        if not isinstance(leaves, Mapping):
            return f"{what} is a {_kind(leaves)}, expected {{name: NumPy array}}"
        for leaf, array in leaves.items():
            if not isinstance(array, np.ndarray):
                return f"{what}, {leaf} is a {_kind(array)}, expected a NumPy array"
    return None


def _kind(value: object) -> str:
    """The name of a value's class, with its module where that is not Python's."""
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
