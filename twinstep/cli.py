"""The command line: twinstep list | run | verify | compare | show.

Each command imports what it needs when it is called; `--help` imports neither framework.
Exit code: 0 the same, 1 not the same, 2 bad usage or bad input (one line on stderr).
"""

import dataclasses
import io
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from twinstep.errors import InputError

USAGE = """\
usage: twinstep COMMAND ...

Does your JAX code train exactly like your PyTorch code, and if not, where does it part?

  list                      the examples: document, model, loss, optimizer, steps
  run EXAMPLE               train it in both frameworks, print the document's own log lines
  verify [EXAMPLE ...]      train in both, judge every step, a verdict a row (default: all)
  compare TRACE_A TRACE_B   judge two saved traces
  show EXAMPLE              the two implementations side by side

twinstep COMMAND --help gives the flags of a command; with an EXAMPLE, its hyper-parameters too.
exit code: 0 the same, 1 not the same, 2 bad usage or bad input"""

Device = Literal["cpu", "gpu", "tpu"]


@dataclass(frozen=True)
class ListOptions:
    """The documents' examples."""

    json: str | None = None
    """Write the list as JSON to this file (-: to stdout, and nothing else)."""


@dataclass(frozen=True)
class RunOptions:
    """Trains an example and prints what its document prints."""

    framework: Literal["both", "jax", "torch"] = "both"
    """Which framework trains."""
    device: Device = "cpu"
    """Where it trains."""
    threads: int = 1
    """PyTorch's threads; small models run steadier on one."""
    out: str | None = None
    """A new folder for the traces, one a framework."""
    json: str | None = None
    """Write losses, parameters and test figures as JSON to this file (-: to stdout)."""


@dataclass(frozen=True)
class VerifyOptions:
    """Trains in both frameworks and judges every step."""

    device: Device = "cpu"
    """Where it trains; beside a TPU, PyTorch stays on the CPU."""
    threads: int = 1
    """PyTorch's threads; small models run steadier on one."""
    jobs: int | None = None
    """Examples verified at a time (default: one a core for several examples, else 1)."""
    out: str | None = None
    """A new folder for all traces: EXAMPLE/DTYPE/FRAMEWORK."""
    json: str | None = None
    """Write all results as JSON to this file (-: to stdout, and nothing else)."""


@dataclass(frozen=True)
class CommonFlags:
    """What every example has."""

    seed: int = 0
    """What torch.manual_seed gets before the document's first draw."""
    dtype: Literal["float32", "float64"] | None = None
    """The type of every parameter (default: float64, the gate, then float32)."""
    steps: int | None = None
    """Updates to make (default: the document's number)."""


@dataclass(frozen=True)
class CompareOptions:
    """Judges two saved traces, from whichever frameworks and machines."""

    steps: int | None = None
    """Compare the first ones only."""
    json: str | None = None
    """Write the comparison as JSON to this file (-: to stdout, and nothing else)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal without Chinese still gets the rest
        sys.stdout.reconfigure(errors="replace")
    command, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if command in ("-h", "--help"):
        print(USAGE)
        return 0
    commands = {"list": _list, "run": _run, "verify": _verify, "compare": _compare, "show": _show}
    try:
        if command == "--version":
            from importlib.metadata import version

            print(f"twinstep {version('twinstep')}")
            return 0
        if command not in commands:
            raise InputError(_unknown("command", command, commands))
        code = commands[command](rest)
        sys.stdout.flush()
        return code
    except InputError as error:
        print(f"twinstep: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader has seen enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("twinstep: interrupted", file=sys.stderr)
        return 130


def _list(arguments: list[str]) -> int:
    from twinstep.report import terminal, write_json
    from twinstep.specs import EXAMPLES

    options = _parse(ListOptions, arguments, "twinstep list")
    if options.json:
        write_json(options.json, [terminal.describe(spec) for spec in EXAMPLES.values()])
    if options.json != "-":
        terminal.print_examples(EXAMPLES.values())
    return 0


def _run(arguments: list[str]) -> int:
    from twinstep import launch
    from twinstep.report import terminal, write_json

    kind, rest = _example("run", arguments)
    options, spec = _parse_with(RunOptions, kind, rest, f"twinstep run {kind.name}")
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
    import contextlib
    from pathlib import Path

    from twinstep import launch
    from twinstep.storage import TraceWriter
    from twinstep.verify import Tail

    launch.set_threads(framework, options.threads)
    keep = options.out is not None
    recorder = launch.recorder(framework, spec, options.device, noise=keep)
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


def _verify(arguments: list[str]) -> int:
    from twinstep.report import terminal, write_json
    from twinstep.verify import verify_all

    names = []
    while arguments and not arguments[0].startswith("-"):
        names.append(arguments.pop(0))
    options, specs = _specs_to_verify(names, arguments)
    jobs = options.jobs
    if jobs is None:
        jobs = 1 if len(names) == 1 else min(len(specs), os.cpu_count() or 1)
    if jobs < 1:
        raise InputError(f"jobs is {jobs}, expected at least 1")
    quiet = options.json == "-"
    with terminal.progress(specs, show=not quiet) as done:
        results = verify_all(
            specs, options.device, jobs=jobs, threads=options.threads, out=options.out, done=done
        )
    same = all(result.comparison.verdict.same for result in results)
    if options.json:
        write_json(
            options.json, {"same": same, "results": [result.to_dict() for result in results]}
        )
    if not quiet:
        terminal.print_verifications(results)
    return 0 if same else 1


def _specs_to_verify(names: list[str], arguments: list[str]) -> tuple[VerifyOptions, list[Any]]:
    """The specs of the named examples, or of all; float64 and float32 unless a dtype is named."""
    from twinstep.specs import EXAMPLES

    both = ("float64", "float32")
    if len(names) == 1:
        kind, _ = _example("verify", names)
        options, spec = _parse_with(VerifyOptions, kind, arguments, f"twinstep verify {kind.name}")
        named = any(argument.split("=")[0] == "--dtype" for argument in arguments)
        dtypes = (spec.dtype,) if named else both
        return options, [dataclasses.replace(spec, dtype=dtype) for dtype in dtypes]
    kinds = [_example("verify", [name])[0] for name in names] or list(EXAMPLES.values())
    options, flags = _parse_with(VerifyOptions, CommonFlags, arguments, "twinstep verify")
    return options, [
        kind(seed=flags.seed, dtype=dtype, steps=flags.steps)
        for dtype in ((flags.dtype,) if flags.dtype else both)
        for kind in kinds
    ]


def _compare(arguments: list[str]) -> int:
    from twinstep.report import terminal, write_json
    from twinstep.verify import compare_stored

    folders = []
    while arguments and not arguments[0].startswith("-"):
        folders.append(arguments.pop(0))
    if len(folders) != 2 and not {"-h", "--help"} & set(arguments):
        raise InputError(f"compare takes two trace folders, {len(folders)} given")
    options = _parse(CompareOptions, arguments, "twinstep compare TRACE_A TRACE_B")
    comparison = compare_stored(folders[0], folders[1], steps=options.steps)
    if options.json:
        write_json(options.json, comparison.to_dict())
    if options.json != "-":
        terminal.print_comparison(comparison)
    return 0 if comparison.verdict.same else 1


def _show(arguments: list[str]) -> int:
    from twinstep.report import show

    kind, rest = _example("show", arguments)
    if rest:
        raise InputError(f"show takes one example; unexpected: {' '.join(rest)}")
    show.print_twins(kind)
    return 0


def parse_spec(name: str, arguments: list[str], prog: str) -> Any:
    """An example's spec from flags. Raises InputError for an unknown example or a bad flag."""
    kind, rest = _example("run", [name, *arguments])
    return _parse(kind, rest, prog)


def _example(command: str, arguments: list[str]) -> tuple[Any, list[str]]:
    """The spec's class that the first argument names, and the other arguments."""
    from twinstep.specs import EXAMPLES

    if not arguments or arguments[0].startswith("-"):
        if {"-h", "--help"} & set(arguments):
            print(f"usage: twinstep {command} EXAMPLE [--help | flags]\n")
            print("EXAMPLE is one of: " + ", ".join(EXAMPLES))
            raise SystemExit(0)
        raise InputError(f"{command} takes an example first: one of {', '.join(EXAMPLES)}")
    name, *rest = arguments
    if name not in EXAMPLES:
        raise InputError(_unknown("example", name, EXAMPLES))
    return EXAMPLES[name], rest


def _unknown(kind: str, name: str, known: Any) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
    return f"unknown {kind} {name!r}: {hint}"


def _parse_with(options: Any, other: Any, arguments: list[str], prog: str) -> tuple[Any, Any]:
    """A command's own options and another dataclass's fields, as flags of one command line."""
    from tyro.conf import OmitArgPrefixes

    flat: Any = OmitArgPrefixes  # --seed and not --spec.seed
    both = dataclasses.make_dataclass("Flags", [("options", flat[options]), ("spec", flat[other])])
    both.__doc__ = other.__doc__
    parsed = _parse(both, arguments, prog)
    return parsed.options, parsed.spec


def _parse(kind: Any, arguments: list[str], prog: str) -> Any:
    """A dataclass from flags. InputError in one line, where tyro draws a box of several."""
    import contextlib

    import tyro

    # tyro draws in UTF-8 where stdout says that it is
    help_text, said = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(help_text):
            return tyro.cli(kind, args=arguments, prog=prog)
    except SystemExit as stop:
        code = stop.code
    if not code:
        help_text.seek(0)
        print(help_text.read(), end="")
        raise SystemExit(0)
    said.seek(0)
    raise InputError(f"{_box_to_line(said.read())} (see {prog} --help)")


def _box_to_line(box: str) -> str:
    """What a box says above its first rule, and the flag that it suggests, if any."""
    lines = [line.strip("│ \n") for line in box.splitlines()[1:-1]]
    rule = next((i for i, line in enumerate(lines) if line.startswith("─")), len(lines))
    # a field that the spec itself refuses is no matter of parsing
    text = re.sub(r"^Error parsing (spec|[A-Z]\w*): ", "", " ".join(lines[:rule]))
    hints = [line.split()[0] for line in lines[rule:] if line.startswith("--")]
    if hints and any("Perhaps you meant" in line for line in lines):
        text += f"; did you mean {hints[0]}?"
    return text


if __name__ == "__main__":
    sys.exit(main())
