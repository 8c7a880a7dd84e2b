"""Takes every figure and writes them into benchmarks/README.md: `python benchmarks/run.py`.

The trainings, the gate and the start are those of `twinstep bench`; here torch.compile comes to
them for three examples, and what a whole verification needs of memory, if that is asked for.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twinstep.bench import markdown
from twinstep.cli import main as twinstep
from twinstep.cli.parsing import parse

HERE = Path(__file__).parent
RESULTS = Path("results")
COMPILED = ("linear_regression", "parameter_groups", "mnist_rnn")


@dataclass(frozen=True)
class Options:
    """Which figures to take."""

    repeats: int = 15
    """Turns that each way gets."""
    memory: str | None = None
    """A folder with MNIST: also verify its ten epochs and give the peak memory (takes minutes)."""
    figures: str | None = None
    """A file of figures that were taken before: only write them into the README."""


def main(options: Options) -> int:
    """Takes the figures and writes them; the exit code of `twinstep bench`."""
    if options.figures:
        report = json.loads(Path(options.figures).read_text())
    else:
        RESULTS.mkdir(exist_ok=True)
        report = take(options)
        (RESULTS / "benchmarks.json").write_text(json.dumps(report, indent=1) + "\n")
    readme = HERE / "README.md"
    readme.write_text(markdown.put_in(readme.read_text(), report))
    return 0 if report["same"] else 1


def take(options: Options) -> dict[str, Any]:
    """All figures, as `twinstep bench --json` gives them."""
    repeats = ["--repeats", str(options.repeats)]
    report = bench([*repeats, "--plot", str(HERE / "ratios.svg")])
    compiled = bench([*COMPILED, *repeats, "--compile", "--cores", "one"])
    report["rows"] += [row for row in compiled["rows"] if row["variant"] == "compile"]
    report["same"] = report["same"] and compiled["same"]
    if options.memory:
        report["notes"].append(memory(options.memory))
    return report


def bench(arguments: list[str]) -> dict[str, Any]:
    """What `twinstep bench` gives as JSON; prints its table."""
    path = RESULTS / "bench.json"
    if twinstep(["bench", *arguments, "--json", str(path)]) == 2:
        raise SystemExit(2)
    report: dict[str, Any] = json.loads(path.read_text())
    return report


def memory(data_dir: str) -> str:
    """Peak memory of verifying ten epochs of mnist_rnn on MNIST, in float64, in a process."""
    command = [sys.executable, "-m", "twinstep", "verify", "mnist_rnn", "--data", "mnist"]
    command += ["--data-dir", data_dir, "--dtype", "float64"]
    start = time.perf_counter()
    subprocess.run(command, check=True)
    import resource

    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # GiB, of KiB
    seconds = time.perf_counter() - start
    return f"to verify ten epochs of mnist_rnn on MNIST in float64: {peak:.2f} GiB, {seconds:.0f} s"


if __name__ == "__main__":
    sys.exit(main(parse(Options, sys.argv[1:], "python benchmarks/run.py")))
