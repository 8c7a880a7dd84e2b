"""Lays two twin files out so that mirrored lines stand level, read on two halves of a screen.

A sequence alignment by dynamic programming. In this order of weight it levels: definitions of the
same name, identical lines, lines that share words; and it puts what is left over side by side
rather than staggered.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

# Each level outweighs all that the levels below it can add up to in a file of some thousand lines.
_DEFINITION = 10**14
_IDENTICAL = 10**7
_ALIKE = 1000  # a pair of lines that have all their words in common
_BLANK = 100  # two blank lines: paragraphs that end together
_TARGET = 800  # two lines that assign to the same name
_BESIDE = 30  # two lines with no word in common: still better than one below the other

_MIRRORED = {"__call__": "forward"}
_HEADER = re.compile(r"(\s*)(?:async )?(?:def|class) (\w+)")
_ASSIGNS = re.compile(r"\s*([\w., ]+?)(?:: [^=]+)? = ")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


class Pair(NamedTuple):
    """A row: the line of each file that stands in it, from 0; None is blank space on that side.

    same: whether both are there and have the same text
    """

    left: int | None
    right: int | None
    same: bool


def align(left: str, right: str) -> list[Pair]:
    """The rows that two texts make side by side: every line of both once, in order.

    left, right: Python files, whose lines are those of `str.splitlines`; time and memory go by the
        product of their lengths
    """
    a, b = left.splitlines(), right.splitlines()
    scores = _scores(a, b)
    best = _best(scores)
    rows, i, j = [], 0, 0
    while i < len(a) and j < len(b):
        # on equal terms the pair first, and blank space as late as can be
        if best[i][j] == best[i + 1][j + 1] + scores[i][j]:
            rows.append(Pair(i, j, a[i] == b[j]))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i][j + 1]:
            rows.append(Pair(None, j, False))
            j += 1
        else:
            rows.append(Pair(i, None, False))
            i += 1
    rows += [Pair(rest, None, False) for rest in range(i, len(a))]
    rows += [Pair(None, rest, False) for rest in range(j, len(b))]
    return rows


def definitions(lines: Sequence[str]) -> list[str]:
    """For each line the definition that it is in, "RNN.forward", or "" outside of any.

    A definition's own line is in it. Indentation decides; decorators are outside.
    """
    scope: list[tuple[int, str]] = []
    found = []
    for line in lines:
        if line.strip():
            indent = len(line) - len(line.lstrip())
            if line.strip()[0] not in ")]}":  # closes a header of several lines, and is still in it
                scope = [(depth, name) for depth, name in scope if depth < indent]
            if header := _HEADER.match(line):
                scope.append((indent, header[2]))
        found.append(".".join(name for _, name in scope))
    return found


def _scores(a: Sequence[str], b: Sequence[str]) -> list[list[int]]:
    """What each line of the one is worth beside each of the other, (len(a), len(b)), from 0."""
    names, others = _defined(a), _defined(b)
    scores = []
    for line, name in zip(a, names, strict=True):
        row = []
        for other, its_name in zip(b, others, strict=True):
            score = _likeness(line, other)
            if name and name == its_name:
                score += _DEFINITION
            row.append(score)
        scores.append(row)
    return scores


def _best(scores: Sequence[Sequence[int]]) -> list[list[int]]:
    """[i][j]: what the lines from i and from j on are worth at best; blank space is worth 0."""
    width = len(scores[0]) if scores else 0
    best = [[0] * (width + 1)]
    for row in reversed(scores):
        below = best[-1]
        here = [0] * (width + 1)
        for j in range(width - 1, -1, -1):
            here[j] = max(below[j + 1] + row[j], below[j], here[j + 1])
        best.append(here)
    return best[::-1]


def _likeness(line: str, other: str) -> int:
    blank, other_blank = not line.strip(), not other.strip()
    if blank or other_blank:
        return (_BLANK + (line == other)) * (blank and other_blank)
    if line == other:
        return _IDENTICAL
    words, others = _words(line), _words(other)
    total = words.total() + others.total()
    shared = (words & others).total()
    target, its_target = _ASSIGNS.match(line), _ASSIGNS.match(other)
    level = target and its_target and target[1] == its_target[1]
    return _BESIDE + (_TARGET if level else 0) + (2 * shared * _ALIKE // total if total else 0)


@lru_cache(maxsize=4096)
def _words(line: str) -> Counter[str]:
    """The words of a line; `mse_loss` and `MSELoss` both have "mse" and "loss"."""
    text = re.sub(r"\b__call__\b", "forward", line)
    return Counter(word.lower() for word in _WORDS.findall(text))


def _defined(lines: Sequence[str]) -> list[str]:
    """For each line the definition that starts on it, by its full name, or ""."""
    return [
        ".".join(_MIRRORED.get(part, part) for part in name.split("."))
        if _HEADER.match(line)
        else ""
        for line, name in zip(lines, definitions(lines), strict=True)
    ]
