"""Two recordings in one set of names: PyTorch's, leaf by leaf.

Rows are lined up by leaf, never by optimizer: one Adam over two networks is two of a port's.
"""

from collections.abc import Mapping as Named
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from twinstep.errors import InputError
from twinstep.port.mapping import Mapping
from twinstep.port.pieces import Piece
from twinstep.trace import dtypes
from twinstep.trace.ledger import Trace


@dataclass(frozen=True)
class Rows:
    """A leaf's rows: at which steps (from 0), and what it is there, with the initial one first."""

    steps: np.ndarray
    array: np.ndarray


@dataclass(frozen=True)
class Side:
    """A recording whose leaves are asked for by PyTorch's names; mapping None: they have them."""

    trace: Trace
    mapping: Mapping | None = None

    @cached_property
    def _parts(self) -> dict[str, Mapping]:
        """{PyTorch's name: the mapping of the leaves that have something of it}"""
        assert self.mapping is not None
        found: dict[str, dict[str, tuple[Piece, ...]]] = {}
        for name, pieces in self.mapping.leaves.items():
            for piece in pieces:
                found.setdefault(piece.of, {})[name] = pieces
        return {
            of: Mapping(leaves, self.mapping.shapes, self.mapping.torch_shapes)
            for of, leaves in found.items()
        }

    def own(self, leaf: str) -> list[str]:
        """The recording's own names of what one of PyTorch's leaves is there."""
        if self.mapping is None:
            return [leaf]
        return list(self._parts[leaf].leaves) if leaf in self._parts else []

    def steps(self, stage: str, leaf: str) -> np.ndarray | None:
        """At which steps a leaf has rows; None where the recording has none.

        InputError where the leaves that are parts of it have not as many.
        """
        held: Named[str, np.ndarray] = getattr(self.trace, stage)
        names = self.own(leaf)
        if not names or any(name not in held for name in names):
            return None
        steps = [self.trace.steps_of(stage, name) for name in names]
        for name, of_one in zip(names, steps, strict=True):
            if not np.array_equal(of_one, steps[0]):
                raise InputError(
                    f"{stage}, {leaf}: {names[0]} has {len(steps[0])} rows, {name} {len(of_one)}"
                )
        return steps[0]

    def rows(self, stage: str, leaf: str) -> Rows | None:
        """A leaf's rows; None where the recording has none."""
        steps = self.steps(stage, leaf)
        if steps is None:
            return None
        held: Named[str, np.ndarray] = getattr(self.trace, stage)
        if self.mapping is None:
            return Rows(steps, held[leaf])
        arrays = {name: held[name] for name in self.own(leaf)}
        made = self._parts[leaf].to_torch(arrays, lead=1, gradients="grads" in stage)
        return Rows(steps, made[leaf])

    def laid_out(self, leaf: str, arrays: Named[str, np.ndarray]) -> np.ndarray:
        """One of PyTorch's leaves, of arrays by the recording's own names of what it is made of."""
        if self.mapping is None:
            return arrays[leaf]
        made: np.ndarray = self._parts[leaf].to_torch(arrays)[leaf]
        return made


def lined_up(torch: Trace, jax: Trace, mapping: Mapping | None) -> tuple[Side, Side]:
    """Both recordings by PyTorch's names. InputError where they cannot be compared.

    mapping: None: the port's leaves bear PyTorch's names and shapes
    """
    for which, trace in (("PyTorch's", torch), ("the port's", jax)):
        if not len(trace):
            raise InputError(f"{which} trace has no steps")
        if not trace.raw_grads:
            raise InputError(f"{which} trace has no raw gradients, expected them of every step")
    if torch.metadata.dtype != jax.metadata.dtype:
        raise InputError(
            f"PyTorch's trace is in {torch.metadata.dtype}, the port's in {jax.metadata.dtype}: "
            "record both in one dtype"
        )
    if torch.metadata.precision != jax.metadata.precision:
        raise InputError(
            f"PyTorch's trace has products of precision {torch.metadata.precision}, the port's of "
            f"{jax.metadata.precision}: record both in one"
        )
    if mapping is not None:
        check_fits(torch, jax, mapping)
    one, other = Side(torch), Side(jax, mapping)
    for leaf in torch.params:
        _check_rows(one, other, leaf)
    return one, other


def identity(torch: Trace, jax: Trace) -> bool:
    """Whether the port's leaves bear PyTorch's names and shapes."""
    return {n: a.shape[1:] for n, a in torch.params.items()} == {
        n: a.shape[1:] for n, a in jax.params.items()
    }


def check_fits(torch: Trace, jax: Trace, mapping: Mapping) -> None:
    """InputError for a map that leaves something out, or is of other leaves."""
    for of, shapes, trace, stages in (
        ("PyTorch's", mapping.torch_shapes, torch, ("params", "buffers")),
        ("the port's", mapping.shapes, jax, ("params", "buffers")),
    ):
        known = {n: a.shape[1:] for stage in stages for n, a in getattr(trace, stage).items()}
        for name, shape in shapes.items():
            if name not in known:
                raise InputError(f"the map names {name!r}, which {of} trace does not have")
            if known[name] != tuple(shape):
                raise InputError(
                    f"the map has {name!r} of shape {tuple(shape)}, {of} trace of {known[name]}"
                )
    if left := [name for name in jax.params if name not in mapping.leaves]:
        raise InputError(f"the map leaves out {left[0]!r} of the port")
    used = {piece.of for pieces in mapping.leaves.values() for piece in pieces}
    if left := [name for name in torch.params if name not in used]:
        raise InputError(f"the map leaves out {left[0]!r} of PyTorch's")
    for name, entries in mapping.unused.items():
        if name in torch.params:
            raise InputError(f"the map leaves out {entries} entries of {name!r} of PyTorch's")


def _check_rows(one: Side, other: Side, leaf: str) -> None:
    """InputError where a leaf has not as many updates on both sides, or another dtype."""
    mine, theirs = one.steps("params", leaf), other.steps("params", leaf)
    assert mine is not None
    own = " and ".join(other.own(leaf))
    if theirs is None:
        raise InputError(f"params, {leaf}: the port's trace has no rows of {own}")
    if len(mine) != len(theirs):
        raise InputError(
            f"params, {leaf}: {len(mine)} updates in PyTorch's trace, {len(theirs)} of {own} in "
            "the port's: record as many of both"
        )
    kinds = [
        {dtypes.name(side.trace.params[name].dtype) for name in side.own(leaf)}
        for side in (one, other)
    ]
    if kinds[0] != kinds[1]:
        said = [" and ".join(sorted(found)) for found in kinds]
        raise InputError(
            f"params, {leaf}: {said[0]} in PyTorch's trace, {own} {said[1]} in the port's"
        )
