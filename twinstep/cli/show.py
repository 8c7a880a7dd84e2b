"""`twinstep show`: the two implementations side by side."""

from twinstep.cli.parsing import example
from twinstep.errors import InputError
from twinstep.report import show


def command(arguments: list[str]) -> int:
    """Runs `twinstep show`."""
    kind, rest = example("show", arguments)
    if rest:
        raise InputError(f"show takes one example; unexpected: {' '.join(rest)}")
    show.print_twins(kind)
    return 0
