"""`twinstep list`: the documents' examples."""

from dataclasses import dataclass

from twinstep.cli.parsing import parse
from twinstep.report import terminal, write_json
from twinstep.specs import EXAMPLES


@dataclass(frozen=True)
class ListOptions:
    """The documents' examples."""

    json: str | None = None
    """Write the list as JSON to this file (-: to stdout, and nothing else)."""


def command(arguments: list[str]) -> int:
    """Runs `twinstep list`."""
    options = parse(ListOptions, arguments, "twinstep list")
    if options.json:
        write_json(options.json, [terminal.describe(spec) for spec in EXAMPLES.values()])
    if options.json != "-":
        terminal.print_examples(EXAMPLES.values())
    return 0
