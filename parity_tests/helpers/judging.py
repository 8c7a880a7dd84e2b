"""Ways to judge two synthetic traces, and where a finding is."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers.synthetic_traces import (
    LEAVES,
    STEPS,
    made,
)
from hypothesis import settings

from twinstep import Comparison, Finding, Trace, compare
from twinstep.judge.judge import Judge

SEARCH = settings(max_examples=150, deadline=None, derandomize=True)
EPS = 2.0**-52
TINY = 2.0**-1022
VALUES = ("loss", "raw_grads", "grads", "opt_state", "params")  # those judged by an allowance
JUDGED = [(stage, leaf) for stage in VALUES for leaf in LEAVES[stage] if "none" not in leaf]
PLACES = [("batch", "x"), ("batch", "y"), *JUDGED]

Change = Callable[[Trace], Trace]
Mode = Callable[[Trace, Trace], Comparison]


def gate(reference: Trace, candidate: Trace) -> Comparison:
    """Judges each step alone; what losses and gradients are made of has size 1."""
    judge = Judge(reference.metadata.dtype)
    judge.gate(reference, candidate, sizes(reference))
    return judge.comparison()


def sizes(trace: Trace, size: float = 1.0) -> dict[str, np.ndarray]:
    keys = [f"{stage}/{leaf}" for stage in ("loss", "raw_grads") for leaf in LEAVES[stage]]
    eps = np.finfo(trace.metadata.dtype).eps
    return {key: np.full(len(trace), size * eps) for key in keys}


# how two traces are judged, and the rounding noise that they bring, in eps
MODES: dict[str, tuple[Mode, float | None]] = {
    "gate": (gate, None),
    "plain": (compare, None),
    "measured": (compare, 3),
}
each_mode = pytest.mark.parametrize(("judge", "rounding_noise"), MODES.values(), ids=MODES.keys())
each_leaf = pytest.mark.parametrize(("stage", "leaf"), JUDGED, ids=["/".join(p) for p in JUDGED])


def base(rounding_noise: float | None, dtype: str = "float64", steps: int = STEPS) -> Trace:
    eps = float(np.finfo(dtype).eps)
    return made(
        steps, dtype=dtype, rounding_noise=None if rounding_noise is None else rounding_noise * eps
    )


def where(finding: Finding | None) -> tuple[int, str, str]:
    assert finding is not None
    return finding.step, finding.stage, finding.leaf


def worst(comparison: Comparison, stage: str) -> Finding:
    (stages,) = comparison.worst.values()
    return stages[stage]


def perturbed(value: float, ulps: int, dtype: str = "float64") -> float:
    """So many numbers of the dtype further from 0."""
    number = np.asarray(value, dtype)
    for _ in range(ulps):
        number = np.nextafter(number, np.copysign(np.asarray(np.inf, dtype), number))
    return float(number)


def without(stage: str, *leaves: str) -> Change:
    def change(trace: Trace) -> Trace:
        kept = {k: v for k, v in getattr(trace, stage).items() if k not in leaves}
        fields: dict[str, Any] = {stage: kept}
        return dataclasses.replace(trace, **fields)

    return change


def strict(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON gives it back; no number in it that JSON lacks."""
    plain = comparison.to_dict()
    text = json.dumps(plain, allow_nan=False)
    assert json.loads(text) == plain
    return plain
