"""Sums with a term more or less: a residual that is missing, a bias or a penalty too many."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

from twinstep.jax.rewriting.program import Atom, Program, Read, Replacement
from twinstep.jax.rewriting.sites import Change, changes

_SUMS = {"add", "sub", "add_any"}
_ENDS = {"add", "sub", "dot_general", "conv_general_dilated", "gather", "mul", "div"}


def fewer_terms(program: Program, dependent: Sequence[bool]) -> Iterator[Change]:
    """Each sum of two arrays without its first or its second."""
    for position, says in enumerate(("first", "second")):
        able: dict[int, Replacement] = {}
        for number, operation in enumerate(program.operations):
            if operation.name in _SUMS and len(operation.takes) == 2:
                left = operation.takes[1 - position]
                made = operation.gives[0]
                alike = isinstance(left, int) and program.shapes[left] == program.shapes[made]
                if alike and dependent[made]:
                    able[number] = functools.partial(_alone, left)
        yield from changes(program, able, f"nothing in place of the {says} of what is added")


MOST = 400
"""Terms that are tried."""


def more_terms(program: Program, dependent: Sequence[bool]) -> Iterator[Change]:
    """Each array with an earlier one added, as many operations before it in all blocks.

    The nearest ones first: the further back, the less a residual it is.
    """
    operations, shapes = program.operations, program.shapes
    ends = [
        number
        for number, operation in enumerate(operations)
        if operation.name in _ENDS and dependent[operation.gives[0]]
    ]
    able: dict[int, dict[int, Replacement]] = {}
    for number in ends:
        shape = shapes[operations[number].gives[0]]
        for earlier in ends:
            (term,) = operations[earlier].gives
            if earlier < number and shape.shape and shapes[term] == shape:
                added = functools.partial(_more, program, number, term)
                able.setdefault(number - earlier, {})[number] = added
    for back, of in sorted(able.items()):
        for change in changes(program, of, ""):
            first = min(change.edit)
            line, own = (operations[n].line for n in (first - back, first))
            yield Change(f"what is made at {line} added to what is at {own}", change.edit)


def _alone(left: Atom, read: Read) -> Sequence[Any]:
    return [read(left)]


def _more(program: Program, number: int, term: int, read: Read) -> Sequence[Any]:
    (made,) = program.again(number, read)
    return [made + read(term)]
