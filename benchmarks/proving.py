"""What matching and proving a large port takes: seconds, and memory above what is there before.

Two recordings of 1e8 parameters, two updates of SGD, the port's matrices turned; each part
 in a process of its own: `python benchmarks/proving.py [--parameters 100000000]`
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from twinstep.trace.ledger import Metadata, Trace

STEPS, WIDTH, RATE = 2, 2048, 0.01
PARTS = ("write", "match", "prove")


def recorded(framework: str, leaves: int) -> Trace:
    """A recording of some square matrices that SGD updates."""
    draws = np.random.default_rng(0)
    params, grads = {}, {}
    for number in range(leaves):
        start = draws.standard_normal((WIDTH, WIDTH), np.float32)
        gradient = draws.standard_normal((STEPS, WIDTH, WIDTH), np.float32)
        rows = [start]
        for step in range(STEPS):
            rows.append(rows[-1] - np.float32(RATE) * gradient[step])
        array = np.stack(rows)
        name = f"layers.{number}.weight"
        if framework == "jax":
            name, array = f"layer_{number}.kernel", array.transpose(0, 2, 1)
            gradient = gradient.transpose(0, 2, 1)
        params[name], grads[name] = np.ascontiguousarray(array), np.ascontiguousarray(gradient)
    metadata = Metadata(None, None, framework, "float32", "cpu", "highest", {})
    losses = np.linspace(2, 1, STEPS).astype(np.float32)
    group = {"class": "SGD", "settings": {}, "groups": [[*params]]}
    program: dict[str, Any] = {"optimizers": {"optimizer": group}} if framework == "torch" else {}
    numbers = {"lr": RATE, "momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": 0}
    settings = {f"0.{key}": np.full(STEPS, float(value)) for key, value in numbers.items()}
    return Trace(
        metadata,
        losses,
        {"x": np.arange(STEPS).astype(np.uint32)},
        grads,
        grads,
        {},
        params,
        hyper_parameters=settings if framework == "torch" else {},
        update={"optimizer": 1 + np.arange(STEPS)},
        program=program,
    )


def write(folder: Path, leaves: int) -> str:
    """Both recordings, in a process of its own: its peak is not that of those that come after."""
    for side in ("torch", "jax"):
        recorded(side, leaves).save(folder / side)
    return f"{leaves} leaves, {leaves * WIDTH**2:,} parameters, {STEPS} updates"


def measured(part: str, folder: Path) -> str:
    """One part, in this process."""
    from twinstep.port.matching import match
    from twinstep.port.proving import prove
    from twinstep.runs import launch
    from twinstep.trace.lazy import lazy_trace

    launch.rules()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    torch, jax = (lazy_trace(folder / side) for side in ("torch", "jax"))
    found: Any = match(torch, jax)
    if part == "prove":
        found = prove(torch, jax, mapping=found.mapping)
    seconds = time.perf_counter() - start
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e9
    said = found.lines()[0] if part == "match" else str(found)
    return f"{part}: {size:.2f} GB, {seconds:.1f} s, peak {peak:.0f} MB above before: {said}"


def main() -> None:
    """Writes both recordings, and measures each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=int, default=10**8)
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    leaves = max(1, round(options.parameters / WIDTH**2))
    if options.part:
        folder = options.folder
        print(write(folder, leaves) if options.part == "write" else measured(options.part, folder))
        return
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            words = ["--part", part, "--folder", folder, "--parameters", str(options.parameters)]
            subprocess.run([sys.executable, __file__, *words], check=True)


if __name__ == "__main__":
    main()
