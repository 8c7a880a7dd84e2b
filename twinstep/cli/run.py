"""`twinstep run`: trains an example and prints what its document prints."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from twinstep import launch
from twinstep.cli.parsing import PlaceOptions, example, parse_with
from twinstep.report import terminal, write_json
from twinstep.storage import TraceWriter
from twinstep.verify import Tail


@dataclass(frozen=True)
class RunOptions(PlaceOptions):
    """Trains an example and prints what its document prints."""

    framework: Literal["both", "jax", "torch"] = "both"
    """Which framework trains."""
    out: str | None = None
    """A new folder for the traces, one a framework."""
    json: str | None = None
    """Write losses, parameters and test figures as JSON to this file (-: to stdout)."""


def command(arguments: list[str]) -> int:
    """Runs `twinstep run`."""
    kind, rest = example("run", arguments)
    options, spec = parse_with(RunOptions, kind, rest, f"twinstep run {kind.name}")
    frameworks = launch.FRAMEWORKS if options.framework == "both" else (options.framework,)
    quiet = options.json == "-"
    results, finite = {}, True
    for framework in frameworks:
        outcome = _train(framework, spec, options, terminal.nothing if quiet else print)
        results[framework] = terminal.outcome_values(outcome)
        finite = terminal.report_finite(outcome) and finite
    if options.json:
        write_json(options.json, {"example": spec.name, "spec": spec.hyper_parameters(), **results})
    return 0 if finite else 1


def _train(framework: str, spec: Any, options: RunOptions, say: Any) -> Any:
    """Trains and prints chunk by chunk; keeps a trace only in the folder that was asked for."""
    launch.set_threads(framework, options.threads)
    keep = options.out is not None
    recorder = launch.recorder(framework, spec, options.place, noise=keep)
    say(f"== {framework}: {spec.name}, {spec.dtype}, seed {spec.seed}")
    tail = Tail()
    with contextlib.ExitStack() as stack:
        writer = None
        if options.out is not None:
            folder = Path(options.out) / framework
            writer = stack.enter_context(TraceWriter(folder, recorder.metadata))
        for chunk in recorder.chunks():
            tail.add(chunk)
            if writer:
                writer.write(chunk)
            for i, loss in enumerate(chunk.losses):
                if line := spec.log_line(chunk.start + i, loss.item()):
                    say(line)
        outcome = tail.outcome()
        if writer:
            writer.finish(outcome.metrics)
    for line in spec.final_lines(outcome):
        say(line)
    return outcome
