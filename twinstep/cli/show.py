"""`twinstep show`: the two implementations side by side."""

from dataclasses import dataclass

from twinstep.cli.parsing import example, parse
from twinstep.report.show import print_twins


@dataclass(frozen=True)
class ShowOptions:
    """The two implementations of an example side by side, mirrored lines level."""

    diff: bool = False
    """Only what differs, with line numbers; stretches that are the same are one line."""


def command(arguments: list[str]) -> int:
    """Runs `twinstep show`."""
    kind, rest = example("show", arguments)
    options = parse(ShowOptions, rest, f"twinstep show {kind.name}")
    print_twins(kind, diff=options.diff)
    return 0
