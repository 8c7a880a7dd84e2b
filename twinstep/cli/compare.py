"""`twinstep compare`: judges two saved traces."""

from dataclasses import dataclass

from twinstep import extras
from twinstep.cli.parsing import leading_words, parse
from twinstep.device_config import check_in_range
from twinstep.errors import InputError
from twinstep.problems.base import MAX_STEPS
from twinstep.report import check_outputs, terminal, write_json
from twinstep.runs.verification import judge_stored


@dataclass(frozen=True)
class CompareOptions:
    """Judges two saved traces, from whichever frameworks and machines."""

    steps: int | None = None
    """Compare the first ones only."""
    plot: str | None = None
    """Draw each stage's difference over the steps beside what is allowed, as .svg or .png."""
    json: str | None = None
    """Write the comparison as JSON to this file (-: to stdout, and nothing else)."""


def command(arguments: list[str]) -> int:
    """Runs `twinstep compare`."""
    folders, flags = leading_words(arguments)
    if len(folders) != 2 and not {"-h", "--help"} & set(flags):
        raise InputError(f"compare takes two trace folders, {len(folders)} given")
    options = parse(CompareOptions, flags, "twinstep compare TRACE_A TRACE_B")
    if options.steps is not None:
        check_in_range("steps", options.steps, 1, MAX_STEPS)
    check_outputs({"json": options.json, "plot": options.plot}, inputs=folders)
    if options.plot is not None:
        extras.check_installed("report", "--plot")
    judge = judge_stored(folders[0], folders[1], steps=options.steps)
    comparison = judge.comparison()
    if options.json != "-":
        terminal.print_comparison(comparison)
    if options.json is not None:
        write_json(options.json, comparison.to_dict())
    if options.plot is not None:
        from twinstep.report.plots import differences_figure, save

        save(
            differences_figure(comparison, judge.history.curves, judge.dtype, ["free"]),
            options.plot,
        )
    return 0 if comparison.verdict.same else 1
