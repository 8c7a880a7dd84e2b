"""`twinstep bench`: what each way to train costs, as ratios."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from twinstep import extras
from twinstep.bench import process, rows, table
from twinstep.bench.process import Task
from twinstep.bench.rows import Found
from twinstep.cli.parsing import example, leading_words, parse_with
from twinstep.device_config import Device, Dtype, check_in_range
from twinstep.errors import InputError
from twinstep.problems.base import Spec
from twinstep.report import check_outputs, write_json
from twinstep.runs import launch

MAX_REPEATS = 10**6
MAX_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True)
class BenchOptions:
    """What each way to train costs, as ratios; only of runs that train the same."""

    cores: Literal["one", "all", "both"] = "both"
    """How many cores it may use; each number has a process of its own."""
    repeats: int = 15
    """Turns that each way gets."""
    limit: float = 60.0
    """Seconds after which no more turns begin, for each run."""
    compile: bool = False
    """Also torch.compile, which takes a minute to compile."""
    gate: bool = False
    """Also what proving costs (with no EXAMPLE, always)."""
    device: Device = "cpu"
    """Where it trains; beside a TPU, PyTorch stays on the CPU."""
    json: str | None = None
    """Write all figures as JSON to this file (-: to stdout, and nothing else)."""
    plot: str | None = None
    """Draw the ratios in this file, .svg or .png."""


@dataclass(frozen=True)
class BenchFlags:
    """Flags of every example; behind one EXAMPLE, --help shows its own too."""

    seed: int = 0
    """What torch.manual_seed gets before the document's first draw."""
    dtype: Dtype = "float32"
    """The type of every parameter."""
    steps: int | None = None
    """Updates to make (default: the document's number, and a long run)."""


def command(arguments: list[str]) -> int:
    """Runs `twinstep bench`."""
    names, flags = leading_words(arguments)
    options, specs = _specs(names, flags)
    quiet = options.json == "-"
    settings, notes = process.settings(
        options.cores,
        repeats=options.repeats,
        limit=options.limit,
        compiled=options.compile,
        device=options.device,
    )
    found: list[Found] = []
    for number, setting in enumerate(settings):
        proof = proofs(specs) if not number and (options.gate or not names) else []
        start = [Task("start")] if not number and not names else []
        tasks = [Task("training", spec) for spec in specs] + proof + start
        for results in process.measured(tasks, setting):
            found += results
            if not quiet:
                print("\n".join(table.lines(results)), flush=True)
    if not quiet:
        print("\n" + "\n".join([table.FOOT, *notes]))
    if options.json is not None:
        write_json(options.json, rows.report(found, notes))
    if options.plot is not None:
        from twinstep.bench.plot import ratios_figure
        from twinstep.report.plots import save

        save(ratios_figure(found), options.plot)
    return 0 if all(one.same for one in found) else 1


def proofs(specs: list[Spec]) -> list[Task]:
    """The gates to time: one an example, in float64, long enough to tell."""
    last = {spec.name: spec for spec in specs}
    return [
        Task("gate", replace(spec, dtype="float64", steps=rows.GATES.get(name, spec.total_steps)))
        for name, spec in last.items()
    ]


def _specs(names: list[str], arguments: list[str]) -> tuple[BenchOptions, list[Spec]]:
    """The runs of the named examples, or of those that stand for all; drawn, so that data is there.

    One example's own hyper-parameters are flags too.
    """
    made: list[Any]
    if len(names) == 1:
        kind, _ = example("bench", names)
        options, spec = parse_with(BenchOptions, kind, arguments, f"twinstep bench {kind.name}")
        made = [spec]
    else:
        kinds = [example("bench", [name])[0] for name in names] or rows.representative()
        options, flags = parse_with(
            BenchOptions, BenchFlags, arguments, "twinstep bench [EXAMPLE ...]"
        )
        made = [kind(seed=flags.seed, dtype=flags.dtype, steps=flags.steps) for kind in kinds]
    _refuse(options)
    launch.check(made)
    launch.check_installed(*launch.FRAMEWORKS)
    if options.plot is not None:
        extras.check_installed("report", "--plot")
    return options, [replace(spec, steps=steps) for spec in made for steps in rows.runs(spec)]


def _refuse(options: BenchOptions) -> None:
    """InputError for what could not be done in the end, before anything is timed."""
    check_in_range("repeats", options.repeats, 1, MAX_REPEATS)
    if not 0 < options.limit <= MAX_SECONDS:
        expected = f"seconds above 0, at most {MAX_SECONDS} (a week)"
        raise InputError(f"limit is {options.limit}, expected {expected}")
    check_outputs({"json": options.json, "plot": options.plot})
