"""What it costs, as ratios taken in one run on one core: `python benchmarks/run.py`.

Every row interleaves what it compares, so that a busy machine slows both sides alike, and gives
medians of the repeats with their quartiles. Nothing here is asserted: see benchmarks/README.md.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

if hasattr(os, "sched_setaffinity"):  # before anything starts its threads
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import tyro

from twinstep import examples, launch
from twinstep.chunking import steps_at_once
from twinstep.judge import Judge
from twinstep.specs.base import Spec
from twinstep.specs.batches import IndexChunk

TRAININGS = [
    ("linear_regression", 100),
    ("linear_regression", 2000),
    ("zero_grad", 5),
    ("zero_grad", 100),
    ("zero_grad", 2000),
    ("backpropagation", 1),
    ("backpropagation", 100),
    ("backpropagation", 2000),
    ("parameter_groups", 50),
    ("mnist_rnn", 23),
]
GATES = [
    ("linear_regression", 2000),
    ("zero_grad", 2000),
    ("backpropagation", 2000),
    ("parameter_groups", 200),
    ("mnist_rnn", 92),
]


TURN = 0.05  # seconds


@dataclass(frozen=True)
class Options:
    """Which figures to take."""

    repeats: int = 15
    """Times that each side is timed, in turn."""
    out: str = "results/benchmarks.json"
    """Where the figures go."""
    memory: str | None = None
    """A folder with MNIST: also verify its ten epochs and give the peak memory (takes minutes)."""


def main(options: Options) -> None:
    """Takes the figures, prints them and writes them."""
    launch.set_threads("torch", 1)
    rows = [training_row(name, steps, options.repeats) for name, steps in TRAININGS]
    rows += [gate_row(name, steps, max(5, options.repeats // 3)) for name, steps in GATES]
    rows.append(start_row(options.repeats))
    if options.memory:
        rows.append(memory_row(options.memory))
    path = Path(options.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1) + "\n")


def training_row(name: str, steps: int, repeats: int) -> dict[str, Any]:
    """PyTorch's plain loop against JAX with loss, grads and params of every step recorded."""
    spec = examples()[name](steps=steps)
    chunk = next(spec.batches().chunks(steps))
    assert chunk.steps == steps, "one chunk, so that a call is the whole run"
    torch = launch.recorder("torch", spec).plain(chunk)
    jax = launch.recorder("jax", spec).compiled(chunk)
    times = interleaved({"torch": torch, "jax": jax}, repeats)
    ratios = [a / b for a, b in zip(times["torch"], times["jax"], strict=True)]
    row = {
        "what": "training, torch / jax",
        "example": name,
        "steps": steps,
        "torch_us_a_step": 1e6 * statistics.median(times["torch"]) / steps,
        "jax_us_a_step": 1e6 * statistics.median(times["jax"]) / steps,
        **spread(ratios),
    }
    print(
        f"training  {name:18} {steps:5} steps  torch {row['torch_us_a_step']:8.1f} us a step, "
        f"jax {row['jax_us_a_step']:8.2f}: {show(row)} times as fast",
        flush=True,
    )
    return row


def gate_row(name: str, steps: int, repeats: int) -> dict[str, Any]:
    """The gate (PyTorch recorded, JAX's replay, the comparison) against both trainings alone."""
    spec = examples()[name](steps=steps, dtype="float64")
    chunks = list(spec.batches().chunks(steps_at_once(spec)))
    replay, recorder = launch.replay(spec), launch.recorder("torch", spec)
    sides = {
        "gate": lambda: gate(spec, replay, recorder),
        "torch": several(launch.recorder("torch", spec).plain, chunks),
        "jax": several(launch.recorder("jax", spec).compiled, chunks),
    }
    times = interleaved(sides, repeats)
    ratios = [
        gate / (torch + jax)
        for gate, torch, jax in zip(times["gate"], times["torch"], times["jax"], strict=True)
    ]
    row = {"what": "gate / trainings", "example": name, "steps": steps, **spread(ratios)}
    print(f"gate      {name:18} {steps:5} steps  {show(row)} times both trainings", flush=True)
    return row


def gate(spec: Spec, replay: Any, recorder: Any) -> None:
    """What `verify` does before the free run: trains in PyTorch and judges every step."""
    judge = Judge(spec.dtype)
    chunks = spec.batches().chunks(steps_at_once(spec))
    fresh = replace(recorder)  # its state is new, its example and settings the same
    for recorded, chunk in zip(fresh.chunks(), chunks, strict=True):
        replayed, scales = replay(recorded, chunk)
        judge.gate(recorded, replayed, scales, replay.remeasure)
    assert judge.comparison().verdict.same, "a figure is only worth something for a true run"


def several(make: Callable[[IndexChunk], Callable[[], Any]], chunks: list[IndexChunk]) -> Any:
    """One call that makes the calls for all chunks."""
    calls = [make(chunk) for chunk in chunks]
    return lambda: [call() for call in calls]


def start_row(repeats: int) -> dict[str, Any]:
    """`twinstep --help`, in seconds."""
    command = [sys.executable, "-m", "twinstep", "--help"]

    def call() -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    times = interleaved({"help": call}, repeats)["help"]
    row = {"what": "seconds of twinstep --help", **spread(times)}
    print(f"start     twinstep --help  {show(row)} s", flush=True)
    return row


def memory_row(data_dir: str) -> dict[str, Any]:
    """Peak memory of verifying ten epochs of mnist_rnn on MNIST, in float64, in a process."""
    command = [sys.executable, "-m", "twinstep", "verify", "mnist_rnn", "--data", "mnist"]
    command += ["--data-dir", data_dir, "--dtype", "float64"]
    start = time.perf_counter()
    subprocess.run(command, check=True)
    import resource

    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # GiB, of KiB
    seconds = time.perf_counter() - start
    print(f"memory    mnist_rnn on MNIST, 10 epochs: {peak:.2f} GiB, {seconds:.0f} s", flush=True)
    return {"what": "GiB to verify mnist_rnn on MNIST", "median": peak, "seconds": seconds}


def interleaved(sides: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of a call of each side, in turn, the sides warm: each turn is the median of some
    calls, as many as fill TURN, after two that are not counted.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    for call in sides.values():
        call()
    calls = {name: max(1, min(100, int(TURN / timed(call)))) for name, call in sides.items()}
    for _ in range(repeats):
        for name, call in sides.items():
            for _ in range(2 if calls[name] > 1 else 0):
                call()
            turn = [timed(call) for _ in range(calls[name])]
            times[name].append(statistics.median(turn))
    return times


def timed(call: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": middle, "low": low, "high": high}


def show(row: dict[str, Any]) -> str:
    """A median with its quartiles."""
    return f"{row['median']:.4g} ({row['low']:.4g} to {row['high']:.4g})"


if __name__ == "__main__":
    main(tyro.cli(Options))
