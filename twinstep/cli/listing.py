"""`twinstep list`: the documents' examples."""

from dataclasses import dataclass

from twinstep.cli.parsing import parse
from twinstep.problems import EXAMPLES, SETS
from twinstep.report import check_outputs, terminal, write_json


@dataclass(frozen=True)
class ListOptions:
    """The documents' examples."""

    json: str | None = None
    """Write the list as JSON to this file (-: to stdout, and nothing else)."""


def command(arguments: list[str]) -> int:
    """Runs `twinstep list`."""
    options = parse(ListOptions, arguments, "twinstep list")
    check_outputs({"json": options.json})
    examples = [terminal.describe(spec) for spec in EXAMPLES.values()]
    sets = [terminal.describe_set(name, make()) for name, make in SETS.items()]
    if options.json != "-":
        terminal.print_examples(examples, sets)
    if options.json is not None:
        write_json(options.json, {"examples": examples, "sets": sets})
    return 0
