"""Saved traces to test with: how they are cut, compared and changed."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from helpers.synthetic_traces import refused
from hypothesis import settings

from twinstep import Trace, lazy_trace, load_trace, open_trace
from twinstep.runs.verification import compare_stored
from twinstep.trace.stages import LEAVES
from twinstep.trace.writing import MANIFEST, TraceWriter

HERE = Path(__file__).parents[1]
SHARDS = ((0, 2), (2, 3), (3, 6))  # how the trace of `stored` is cut
FIRST, SECOND, _ = (f"steps-{low:08}-{high:08}.safetensors" for low, high in SHARDS)
WRITES = 8  # of its files: the empty manifest, three times a shard and a manifest, the last one
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
        "rows": {name: steps.tolist() for name, steps in sorted(trace.rows.items())},
        "inputs": {name: leaves(dict(sorted(a.items()))) for name, a in trace.inputs.items()},
        "program": dict(trace.program),
        "metrics": dict(trace.metrics),
        "evaluation": leaves(dict(sorted(trace.evaluation.items()))),
    }


def reloaded(trace: Trace, parent: Path) -> Trace:
    """A trace that was saved in a folder `trace` and loaded: the same, bit for bit."""
    trace.save(parent / "trace")
    loaded = load_trace(parent / "trace")
    assert bits(loaded) == bits(trace)
    return loaded


def check_left(folder: Path, writes: int, whole: Trace, cuts: tuple[tuple[int, int], ...]) -> int:
    """Asserts that a run is readable to where it came; the shards that it left.

    writes: how many it made: an empty manifest, a shard, a manifest with it, ..., the last one
    """
    if not writes:
        refused(lambda: open_trace(folder), str(folder), MANIFEST)
        return 0
    opened, shards = open_trace(folder), min((writes - 1) // 2, len(cuts))
    assert len(opened.shards) == shards
    assert opened.complete is (writes == 2 * len(cuts) + 2)
    if shards:
        expected = bits(whole.slice(0, cuts[shards - 1][1]))
        assert bits(load_trace(folder)) == expected | {"metrics": opened.metrics}
    else:
        refused(lambda: load_trace(folder), str(folder), "no steps")
    return shards


def unreadable(folder: Path, *says: str) -> str:
    """The one line that a damaged trace is refused by, whoever reads it."""
    line = refused(lambda: load_trace(folder), *says)
    assert refused(lambda: compare_stored(folder, folder)) == line
    if "of memory" not in line:  # which a leaf at a time does not take
        assert refused(lambda: lazy_trace(folder)) == line
    return line


def write_pieces(folder: Path, *pieces: Trace, complete: bool = True) -> Path:
    """Saves a trace, each piece in a shard; as a run that was killed, if it isn't complete."""
    with TraceWriter(folder, pieces[0].metadata) as writer:
        for piece in pieces:
            writer.write(piece)
        if complete:
            writer.finish(pieces[-1].metrics)
    return folder


def write(folder: Path, trace: Trace, cuts: tuple[tuple[int, int], ...] = SHARDS) -> Path:
    """Saves a trace in several shards."""
    return write_pieces(folder, *(trace.slice(low, high) for low, high in cuts))
