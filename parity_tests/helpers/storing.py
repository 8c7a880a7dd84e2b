"""Saved traces to test with: how they are cut, compared and changed."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from hypothesis import settings

from twinstep import Trace
from twinstep.trace.stages import LEAVES
from twinstep.trace.writing import TraceWriter

HERE = Path(__file__).parents[1]
SHARDS = ((0, 2), (2, 3), (3, 6))  # how the trace of `stored` is cut
SEARCH = settings(max_examples=200, deadline=None, derandomize=True)


def bits(trace: Trace) -> dict[str, Any]:
    """All that a trace says, leaf order and bits included; equal exactly when the traces are."""

    def leaves(arrays: Any) -> Any:
        return [(name, a.dtype.str, a.shape, a.tobytes()) for name, a in arrays.items()]

    return {
        "metadata": json.loads(json.dumps(dataclasses.asdict(trace.metadata))),
        "loss": leaves({"loss": trace.losses}),
        **{stage.name: leaves(trace.leaves(stage)) for stage in LEAVES},
        "held once": [leaf for leaf in trace.grads if trace.held_once(leaf)],
        "rounding_noise": trace.rounding_noise and leaves(trace.rounding_noise),
        "rounding_scale": trace.rounding_scale and leaves(trace.rounding_scale),
        "start": trace.start,
        "appears_at": dict(trace.appears_at),
        "inputs": {name: leaves(dict(sorted(a.items()))) for name, a in trace.inputs.items()},
        "metrics": dict(trace.metrics),
        "evaluation": leaves(dict(sorted(trace.evaluation.items()))),
    }


def write(folder: Path, trace: Trace, cuts: tuple[tuple[int, int], ...] = SHARDS) -> Path:
    """Saves a trace in several shards."""
    with TraceWriter(folder, trace.metadata) as writer:
        for low, high in cuts:
            writer.write(trace.slice(low, high))
        writer.finish(trace.metrics)
    return folder
