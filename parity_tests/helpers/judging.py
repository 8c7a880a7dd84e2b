"""Ways to judge two synthetic traces, and where a finding is."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers.synthetic_traces import LEAVES, Change, entry, made, with_fault, with_field
from hypothesis import settings

from twinstep import Comparison, Finding, Trace, compare
from twinstep.judge.judge import Judge

SEARCH = settings(max_examples=150, deadline=None, derandomize=True)
EPS = 2.0**-52
TINY = 2.0**-1022
VALUES = ("loss", "raw_grads", "grads", "opt_state", "params")  # those judged by an allowance
JUDGED = [(stage, leaf) for stage in VALUES for leaf in LEAVES[stage] if "none" not in leaf]
PLACES = [("batch", "x"), ("batch", "y"), *JUDGED]


def judged(
    reference: Trace,
    free: Trace | None = None,
    replayed: Trace | None = None,
    cuts: Sequence[int] = (),
) -> Judge:
    """What `verify` does with a run, at once or in pieces; what is None is left out of it.

    Of the steps that are made again, what losses and gradients are made of has size 1.
    """
    judge = Judge(reference.metadata.dtype)
    for low, high in pairwise(cuts or (0, len(reference))):
        piece = reference.slice(low, high)
        if replayed is not None:
            judge.gate(piece, replayed.slice(low, high), sizes(piece))
        if free is not None:
            judge.free(piece, free.slice(low, high))
    return judge


def gate(reference: Trace, candidate: Trace) -> Comparison:
    """Judges each step alone."""
    return judged(reference, replayed=candidate).comparison()


def sizes(trace: Trace, size: float = 1.0) -> dict[str, np.ndarray]:
    keys = [f"{stage}/{leaf}" for stage in ("loss", "raw_grads") for leaf in LEAVES[stage]]
    eps = np.finfo(trace.metadata.dtype).eps
    return {key: np.full(len(trace), size * eps) for key in keys}


class Mode(NamedTuple):
    """How two traces are judged, and the rounding noise that they bring, in eps."""

    judge: Callable[[Trace, Trace], Comparison]
    rounding_noise: float | None

    def __call__(self, reference: Trace, candidate: Trace) -> Comparison:
        return self.judge(reference, candidate)

    def trace(self, dtype: str = "float64") -> Trace:
        noise = self.rounding_noise and self.rounding_noise * float(np.finfo(dtype).eps)
        return made(dtype=dtype, rounding_noise=noise)


MODES = {"gate": Mode(gate, None), "plain": Mode(compare, None), "measured": Mode(compare, 3)}
each_mode = pytest.mark.parametrize("judge", MODES.values(), ids=MODES.keys())
each_free_mode = pytest.mark.parametrize("judge", [MODES["plain"], MODES["measured"]])
each_leaf = pytest.mark.parametrize(("stage", "leaf"), JUDGED, ids=["/".join(p) for p in JUDGED])


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


def off_by(trace: Trace, stage: str, leaf: str, step: int, amount: float) -> Trace:
    """The same trace with one entry so much larger."""
    return with_fault(trace, stage, leaf, step, entry(trace, stage, leaf, step) + amount)


def ulps_off(trace: Trace, stage: str, leaf: str, step: int, ulps: int = 1) -> Trace:
    """The same trace with one entry so many numbers further from 0."""
    value = perturbed(entry(trace, stage, leaf, step), ulps, trace.metadata.dtype)
    return with_fault(trace, stage, leaf, step, value)


def with_rounding_noise(trace: Trace, key: str, values: Any) -> Trace:
    """The same trace with the rounding noise of one leaf replaced, where it has any."""
    rounding_noise = {**(trace.rounding_noise or {}), key: np.asarray(values, trace.metadata.dtype)}
    return dataclasses.replace(trace, rounding_noise=rounding_noise)


def without(stage: str, *leaves: str) -> Change:
    def change(trace: Trace) -> Trace:
        kept = {k: v for k, v in getattr(trace, stage).items() if k not in leaves}
        return with_field(trace, stage, kept)

    return change


def strict(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON gives it back; no number in it that JSON lacks."""
    plain = comparison.to_dict()
    text = json.dumps(plain, allow_nan=False)
    assert json.loads(text) == plain
    return plain
