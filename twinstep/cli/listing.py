"""`twinstep list`: the documents' examples."""

from dataclasses import dataclass

from twinstep.cli.parsing import parse
from twinstep.report import refuse_outputs, terminal, write_json
from twinstep.specs import EXAMPLES, SETS


@dataclass(frozen=True)
class ListOptions:
    """The documents' examples."""

    json: str | None = None
    """Write the list as JSON to this file (-: to stdout, and nothing else)."""


def command(arguments: list[str]) -> int:
    """Runs `twinstep list`."""
    options = parse(ListOptions, arguments, "twinstep list")
    refuse_outputs({"json": options.json})
    rows = [terminal.describe(spec) for spec in EXAMPLES.values()]
    rows += [terminal.describe_set(name, make()) for name, make in SETS.items()]
    if options.json != "-":
        terminal.print_examples(rows)
    if options.json is not None:
        write_json(options.json, rows)
    return 0
