"""Which of PyTorch's entries each leaf of a port is, found by what they are.

By the initial values; where these are alike, by the raw gradients of the first update; and what
neither tells by what is left, where that is one thing. What could be several is never chosen.
"""

import dataclasses
import functools
from collections.abc import Mapping as Named
from dataclasses import dataclass

import numpy as np

from twinstep.errors import InputError
from twinstep.port import buffers, by_values, neighbours
from twinstep.port.by_gradients import GRADIENTS, Gradients
from twinstep.port.by_values import MOST, VALUES
from twinstep.port.mapping import Mapping
from twinstep.port.pieces import Piece, slices
from twinstep.port.starts import Search, Start, said
from twinstep.trace.ledger import Trace

LEFT = "what is left"


@dataclass(frozen=True)
class Match:
    """What was found.

    Attributes:
        mapping: Of all that is certain.
        by: {the port's name: what tells it: "values", "gradients", "most values" where the
            start is not quite PyTorch's, or "what is left"}.
        open: {the port's name: the candidates, in words}; none where nothing is like it.
        unused: {PyTorch's name: how many of its entries are in no leaf}.
        twice, summed: As of the mapping.

    Example:
        >>> import twinstep
        >>> trace = twinstep.run(twinstep.examples()["zero_grad"](steps=2), framework="torch")
        >>> found = twinstep.match(trace, trace)
        >>> found.complete, found.by["0.weight"]
        (True, 'values')
    """

    mapping: Mapping
    by: Named[str, str]
    open: Named[str, list[str]]
    unused: Named[str, int]

    @property
    def complete(self) -> bool:
        """Whether every leaf has its entries, and every entry a leaf."""
        return not self.open and not self.unused

    def lines(self) -> list[str]:
        """It for people.

        Returns:
            How many are told by what, and a line for all that is no leaf of one tensor.
        """
        told_by = VALUES, GRADIENTS, MOST, LEFT
        counts = [(how, list(self.by.values()).count(how)) for how in told_by]
        told = ", ".join(f"{count} by {how}" for how, count in counts if count)
        said = f"{len(self.by)} of {len(self.by) + len(self.open)} leaves matched"
        lines = [f"{said}: {told}" if told else said]
        lines += [f"{leaf}: by {how}" for leaf, how in self.by.items() if how in (MOST, LEFT)]
        for of, leaves in self.mapping.twice.items():
            lines.append(f"{of}: held {len(leaves)} times, as {' and '.join(leaves)}")
        for leaf, names in self.mapping.summed.items():
            lines.append(f"{leaf}: the sum of {' and '.join(names)}")
        for leaf, candidates in self.open.items():
            may = f"may be {' or '.join(candidates)}" if candidates else "is like nothing there"
            lines.append(f"open: {leaf} {may}")
        for name, entries in self.unused.items():
            lines.append(f"open: {name} of PyTorch's: {entries} entries are in no leaf")
        return lines


def match(torch: Trace | Named[str, np.ndarray], jax: Trace | Named[str, np.ndarray]) -> Match:
    """Finds for every leaf of a port which of PyTorch's entries it is made of.

    Args:
        torch: What was recorded of the PyTorch program; or a state_dict of arrays, such as `probe`
            makes.
        jax: What was recorded of the port, from the same initial parameters; or what its converter
            makes of the state_dict, {the port's name: array}.

    Returns:
        The mapping of what is certain, and what is open, with its candidates.

    Raises:
        InputError: For a trace without parameters.

    Example:
        >>> import twinstep
        >>> trace = twinstep.run(twinstep.examples()["zero_grad"](steps=2), framework="torch")
        >>> print(twinstep.match(trace, trace).lines()[0])
        4 of 4 leaves matched: 4 by values
    """
    for which, given in (("PyTorch's", torch), ("the port's", jax)):
        if not (given.params if isinstance(given, Trace) else given):
            raise InputError(f"{which} trace has no parameters: there is nothing to match")
    found = _told(Search(Start.of(torch), Start.of(jax)))
    if not isinstance(torch, Trace) or not isinstance(jax, Trace):
        return found
    more = buffers.matched(torch, jax, found.mapping.leaves)
    return dataclasses.replace(found, mapping=found.mapping.with_buffers(torch, jax, more))


def _told(search: Search) -> Match:
    """All that can be found, from the surest on."""
    by_values.tell_whole(search)
    by_values.tell_parts(search)
    by_values.tell_single(search, drawn=True)
    by_values.tell_empty(search)
    gradients = Gradients(search)
    gradients.tell_ambiguous()
    gradients.tell_whole()
    gradients.tell_parts()
    by_values.tell_single(search)
    by_values.tell_most(search)
    _tell_left(search)
    mapping = Mapping(
        {name: search.found[name] for name in search.ours.values if name in search.found},
        search.ours.shapes,
        search.shapes,
    )
    candidates = {**search.holders, **search.candidates}
    open_ = {name: candidates.get(name, []) for name in search.left()}
    return Match(mapping, search.by, open_, mapping.unused)


def _tell_left(search: Search) -> None:
    """Leaves that nothing tells, where their layer leaves but one thing that they can be."""
    while search.left():
        free = {name: ~used for name, used in search.used().items()}
        wanted = {name: np.zeros(shape, int) for name, shape in search.shapes.items()}
        offers: dict[str, list[Piece]] = {}
        for leaf in search.left():
            shape = search.ours.shapes[leaf]
            begins = functools.partial(search.may_be_of, leaf)
            pieces = neighbours.along(leaf, shape, search.found, search.shapes, free, begins)
            if pieces and search.begins_as(leaf, pieces):
                offers[leaf] = pieces
                for piece in pieces:
                    wanted[piece.of].reshape(piece.view)[slices(piece.take)] += 1
        news = False
        for leaf, pieces in offers.items():
            once = all(
                (wanted[piece.of].reshape(piece.view)[slices(piece.take)] == 1).all()
                for piece in pieces
            )
            if once:
                search.take(leaf, pieces, LEFT)
                news = True
            else:  # another leaf of the layer may be it just as well
                search.candidates[leaf] = [said(piece) for piece in pieces]
        if not news:
            return
