"""What twinstep says when it is given something that it cannot work with, or cannot go on."""

from collections.abc import Callable, Iterable
from typing import Any

Check = tuple[Any, str, Callable[[Any], bool]]
"""A value, what is expected of it, and whether it is right."""


class InputError(ValueError):
    """Bad input: one line that names the thing, the value and what was expected.

    The commands print that line and end with exit code 2.

    Example:
        >>> import twinstep
        >>> try:
        ...     twinstep.examples()["zero_grad"](steps=0)
        ... except twinstep.InputError as error:
        ...     print(error)
        zero_grad: steps is 0, expected at least 1
    """


class LostError(RuntimeError):
    """Processes of our own that died or crashed: a line for each that says how; exit code 70.

    Args:
        why: Those lines.
        traceback: Of their exceptions; "" where they could not say any more.
    """

    def __init__(self, why: str, traceback: str = "") -> None:
        super().__init__(why)
        self.traceback = traceback


def check_arguments(what: str, **checks: Check) -> None:
    """Refuses values that are not right, in one line.

    Args:
        what: Whose the values are.
        checks: {name: (value, what is expected, whether it is right)}.

    Raises:
        InputError: For the first value that is not right.
    """
    for name, (value, expected, right) in checks.items():
        try:
            fine = right(value)
        except (TypeError, ValueError, LookupError, OverflowError):
            fine = False
        if not fine:
            raise InputError(f"{what}: {name} is {value!r}, expected {expected}")


def unknown(kind: str, name: object, known: Iterable[str], every: Iterable[str] = ()) -> str:
    """What to say of a name that is not known; see `nearest`."""
    return f"unknown {kind} {name!r}: {nearest(name, known, every)}"


def nearest(name: object, known: Iterable[str], every: Iterable[str] = ()) -> str:
    """The known names that may be meant by one that is not, else all.

    Args:
        name: The one that is not known.
        known: Those that are.
        every: What to say for all, where `known` is too long to be read.

    Returns:
        "did you mean ...?" or "expected one of ...".
    """
    import difflib  # here, because most commands meet no unknown name

    names = {word.casefold(): word for word in known}
    near = difflib.get_close_matches(str(name).casefold(), names, n=3, cutoff=0.6)
    if not near:
        return f"expected one of {', '.join(every or names.values())}"
    *others, last = [names[word] for word in near]
    return f"did you mean {', '.join(others)}{' or ' if others else ''}{last}?"
