"""What it takes to read a trace leaf by leaf: 1e8 parameters in float32, an update of Adam's.

`python benchmarks/lazy.py [FOLDER]` writes 2 GB there, or in a temporary folder, each of four
ranks' parts as a shard; each figure is of a process of its own, for its peak of memory.
"""

import dataclasses
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from twinstep import lazy_trace, load_trace
from twinstep.trace.ledger import Metadata, Trace
from twinstep.trace.ranks import folder_of
from twinstep.trace.writing import TraceWriter

RANKS, LEAVES, SHAPE = 4, 100, (1000, 1000)
METADATA = Metadata(None, None, "torch", "float32", "cpu", "highest", {})
STAGES = "raw_grads", "grads", "opt_state", "params"


def part_of(rank: int) -> Trace:
    """A rank's rows of every leaf."""
    draw, rows = np.random.default_rng(rank), SHAPE[0] // RANKS

    def drawn(steps: int) -> np.ndarray:
        return draw.uniform(-1, 1, (steps, rows, SHAPE[1])).astype("float32")

    names = [f"layers.{i}.weight" for i in range(LEAVES)]
    grads = {name: drawn(1) for name in names}
    trace = Trace(
        metadata=METADATA,
        losses=np.ones(1, "float32"),
        batch={},
        raw_grads=grads,
        grads=dict(grads),
        opt_state={f"{n}.{key}": drawn(1) for n in names for key in ("exp_avg", "exp_avg_sq")},
        params={name: drawn(2) for name in names},
    )
    place = {"shape": [*SHAPE], "at": [rows * rank, 0]}
    shards = {f"{stage}/{leaf}": place for stage in STAGES for leaf in getattr(trace, stage)}
    return dataclasses.replace(trace, program={"shards": shards})


def write(folder: Path) -> int:
    """Saves the trace, a shard at a time; its bytes."""
    for rank in range(RANKS):
        with TraceWriter(folder / folder_of(rank, RANKS), METADATA) as writer:
            writer.write(part_of(rank))
            writer.finish({})
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def open_lazily(folder: Path) -> int:
    """Opens it, which sums each shard up; the bytes of all its files."""
    lazy_trace(folder)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def read_lazily(folder: Path) -> int:
    """Opens it and reads every leaf once; their bytes."""
    trace = lazy_trace(folder)
    return sum(array.nbytes for stage in STAGES for array in getattr(trace, stage).values())


def load(folder: Path) -> int:
    """Loads it; the same bytes."""
    trace = load_trace(folder)
    return sum(array.nbytes for stage in STAGES for array in getattr(trace, stage).values())


def _told(work: Callable[[Path], int], folder: Path, queue: Any) -> None:
    before, start = _peak(), time.perf_counter()
    count = work(folder)
    queue.put((count, time.perf_counter() - start, _peak() - before))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def taken(work: Callable[[Path], int], folder: Path) -> None:
    """Does something in a process of its own and prints what it took."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_told, args=(work, folder, queue))
    process.start()
    count, seconds, peak = queue.get()
    process.join()
    print(
        f"{work.__name__}: {count / 1e9:.2f} GB in {seconds:.2f} s, {count / seconds / 1e6:.0f} "
        f"MB/s, peak {peak / 1e6:.0f} MB above what it began with"
    )


def main() -> int:
    """Takes the figures one after the other."""
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else None) as name:
        folder = Path(name) / "trace"
        for work in (write, open_lazily, read_lazily, load):
            taken(work, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
