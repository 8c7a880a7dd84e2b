"""Lines that programs print, held against each other: the same words, and numbers that are near."""

import re
from collections.abc import Iterable
from itertools import zip_longest

from twinstep.problems import Spec

EXACT = 1e-12
NUMBER = re.compile(r"-?\b\d+\.\d+(?:e[+-]\d+)?|-?\b\d+e[+-]\d+|\bnan\b|-?\binf\b")
_ARRAYS = re.compile(r"OrderedDict|tensor|Array|dtype=\w+|[][(){}',: ]+")


def logged(spec: Spec, losses: Iterable[float]) -> list[str]:
    """The document's log lines of these losses."""
    lines = (spec.log_line(step, loss) for step, loss in enumerate(losses))
    return [line for line in lines if line is not None]


def said_alike(theirs: str, mine: str, relative: float) -> bool:
    """Whether two lines are of the same words, and their numbers the same as far as printed.

    relative: what a number may be off by; one that is rounded to some places, by a unit of the last
    too, unless it has to be exact. An array's brackets are a framework's own, and its places.
    """
    words = [NUMBER.sub("#", _ARRAYS.sub(" ", line)).split() for line in (theirs, mine)]
    if words[0] != words[1]:
        return False
    for one, other in zip(*(NUMBER.findall(line) for line in (theirs, mine)), strict=True):
        places = [len(number.partition(".")[2]) for number in (one, other)]
        allowed = relative * abs(float(one))
        if places[0] != places[1]:  # PyTorch shows four of an array's places, JAX all
            allowed += 0.501 * 10.0 ** -min(places)
        elif places[0] <= 6 and relative > EXACT:
            allowed += 1.001 * 10.0 ** -places[0]
        if not abs(float(one) - float(other)) <= allowed:
            return False
    return True


def unlike(theirs: list[str], mine: list[str], relative: float) -> list[str]:
    """The lines that differ, one above the other; a line that the other side lacks is one too."""
    pairs = zip_longest(theirs, mine, fillvalue="nothing")
    return [f"{one}\n{other}" for one, other in pairs if not said_alike(one, other, relative)]
