"""Tasks for processes that work for another one. It imports little, so that they start soon."""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from twinstep.errors import InputError

Say = Any


def doubled(number: int, say: Say) -> int:
    """Says its number and the double, which it gives."""
    say(number)
    say(2 * number)
    return 2 * number


def number_of_process(say: Say) -> int:
    """In which process it is done."""
    return os.getpid()


def ends(how: str, say: Say) -> str:
    """Dies of a signal of that name or with an exit code, raises, or is bad input."""
    if how == "fine":
        return how
    if how == "bad input":
        raise InputError("seed is 'x', expected a number")
    if how == "exception":
        raise ValueError("planted\nfault")
    if how.isdigit():
        os._exit(int(how))
    os.kill(os.getpid(), getattr(signal, how))
    raise AssertionError("it lives")


def waits(folder: str, say: Say, *, holding: bool = False) -> None:
    """Leaves its number in a folder, says it, and stays.

    holding: so that no other thread of its can run
    """
    Path(folder, str(os.getpid())).touch()
    say(os.getpid())
    if holding:
        ctypes.PyDLL(None).sleep(600)
    time.sleep(600)


def either(given: str, say: Say) -> None:
    """`waits` in a folder; or is bad input, when another one waits."""
    if given == "bad input":
        time.sleep(0.5)
        ends(given, say)
    waits(given, say)


def serves(there: Any, setting: Any) -> None:
    """What stands for a process of the bench: `setting` is the folder."""
    waits(setting, print)


def hangs(there: Any, setting: Any) -> None:
    """A process of the bench that never answers."""
    time.sleep(600)


def dies(there: Any, setting: Any) -> None:
    """One that ends when it gets something to do."""
    there.recv()


def fails(there: Any, setting: Any) -> None:
    """One that meets what nobody thought of."""
    while True:
        there.recv()
        there.send("TypeError: planted")


def verified(spec: Any, *rest: Any) -> Any:
    """What stands for a verification: one of linear_regression dies, the others end at once."""
    say = rest[-1]
    say(("start", 0, spec.total_steps))
    if spec.name == "linear_regression":
        os.kill(os.getpid(), signal.SIGKILL)
    if spec.name == "zero_grad":
        raise ValueError("planted")
    return spec.name


if __name__ == "__main__":
    waits(sys.argv[1], print)
