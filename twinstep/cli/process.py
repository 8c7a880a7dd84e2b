"""One of several processes that share each batch.

`python -m twinstep.cli.process jax EXAMPLE` or `... torch EXAMPLE`. Something else starts them, and
gives each the same words: torchrun does PyTorch's (as a Driver asks it to, with `--task FOLDER`
for the words), a cluster or a person JAX's. The first writes the trace.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from twinstep.cli.parsing import DeviceOptions, example, parse_with
from twinstep.device_config import DeviceConfig, Precision
from twinstep.errors import InputError, unknown
from twinstep.runs import launch
from twinstep.workers import PROCESS_ERROR

NAME = "twinstep.cli.process"


@dataclass(frozen=True)
class TorchOptions:
    """Trains as one of the processes that torchrun started."""

    device: Literal["cpu", "gpu"] = "cpu"
    """Where it trains: on the CPU, or each process on a GPU of its own."""
    precision: Precision = "highest"
    """Of float32 matrix products: highest, or what PyTorch does for speed (TF32)."""
    out: str | None = None
    """A new folder for the trace, which the first process writes."""


@dataclass(frozen=True)
class JaxOptions(DeviceOptions):
    """Trains as one of several processes; each gets the same flags but --process."""

    coordinator: str | None = None
    """HOST:PORT at which process 0 can be reached (default: what the cluster says)."""
    processes: int | None = None
    """How many processes there are (default: what the cluster says)."""
    process: int | None = None
    """This one's number, from 0 (default: what the cluster says)."""
    out: str | None = None
    """A new folder for the trace, which process 0 writes."""


def main(arguments: Sequence[str]) -> int:
    """One process's part: the exit code, as twinstep's. Errors are one line."""
    framework, *rest = [*arguments] or [""]
    try:
        if framework not in launch.FRAMEWORKS:
            raise InputError(unknown("framework", framework, launch.FRAMEWORKS))
        if framework == "jax":
            _jax(rest)
        elif rest[:1] == ["--task"]:
            launch.parallel("torch").serve(Path(rest[1]), lambda s: launch.example("torch", s))
        else:
            _torch(rest)
    except InputError as error:
        print(f"{PROCESS_ERROR}{error}", file=sys.stderr)
        return 2
    except Exception as error:
        if framework == "jax":
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        said = " ".join(f"{type(error).__name__}: {error}".split())
        where = f"{frame.filename}:{frame.lineno}"
        rank = os.environ.get("RANK")
        print(f"{PROCESS_ERROR}PyTorch's process {rank}: {said} ({where})", file=sys.stderr)
        return 1
    return 0


def _jax(arguments: Sequence[str]) -> None:
    """Trains the example as JAX's process of the number that is given."""
    from twinstep.runs import training

    words = f"{NAME} jax"
    kind, rest = example(words, list(arguments))
    options, spec = parse_with(JaxOptions, kind, rest, words)
    first = launch.parallel("jax").initialize(
        options.device, options.devices, options.coordinator, options.processes, options.process
    )
    if options.compilation_cache:
        launch.enable_cache("jax")
    driver = launch.driver(
        "jax", spec, options.device_config, rounding_noise=options.out is not None
    )
    out, say = (options.out, print) if first else (None, lambda line: None)
    training.train(driver, spec, out, say)


def _torch(arguments: Sequence[str]) -> None:
    """Trains the example that a person named to torchrun; the first process says how it goes."""
    # not for a task: it takes longer to load than a short training takes
    from twinstep.runs import training

    words = f"{NAME} torch"
    kind, rest = example(words, list(arguments))
    options, spec = parse_with(TorchOptions, kind, rest, words)
    parallel = launch.parallel("torch")
    with parallel.group(options.device) as (number, processes):
        device_config = DeviceConfig(options.device, processes, options.precision)
        rank = parallel.Rank(launch.example("torch", spec), spec, device_config)
        out, say = (options.out, print) if number == 0 else (None, lambda line: None)
        training.train(rank, spec, out, say)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
