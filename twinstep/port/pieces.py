"""Boxes of leaves and where PyTorch has their entries: the part of a mapping that moves numbers.

Arrays of NumPy's, of JAX (and what `jax.jit` traces) and of PyTorch go through as they are.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Box = tuple[tuple[int, int], ...]
"""[start, stop) along each axis."""


@dataclass(frozen=True)
class Piece:
    """A box of a leaf, and where PyTorch has its entries.

    Attributes:
        of: PyTorch's name.
        view: The shape in which PyTorch's array is looked at, as `reshape` takes it.
        take: The box of that view which the entries are.
        axes: The order of the view's axes in the leaf, as `transpose` takes it.
        at: The box of the leaf; several pieces of one box are added.
        flip: The axes of the view along which the leaf has them the other way round.
    """

    of: str
    view: tuple[int, ...]
    take: Box
    axes: tuple[int, ...]
    at: Box
    flip: tuple[int, ...] = ()

    def cut(self, array: Any, lead: int) -> Any:
        """The entries of PyTorch's array, in the shape of the leaf's box."""
        front = tuple(array.shape[:lead])
        seen = array.reshape(front + self.view)[(..., *slices(self.take))]
        order = (*range(lead), *(lead + axis for axis in self.axes))
        return _permuted(self._flipped(seen, lead), order).reshape(front + extent(self.at))

    def uncut(self, box: Any, lead: int) -> Any:
        """The leaf's box in the shape of `take`: the way back."""
        back = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        taken = extent(self.take)
        seen = box.reshape(tuple(box.shape[:lead]) + tuple(taken[axis] for axis in self.axes))
        order = (*range(lead), *(lead + axis for axis in back))
        return self._flipped(_permuted(seen, order), lead)

    def _flipped(self, seen: Any, lead: int) -> Any:
        if not self.flip:
            return seen
        if _of_torch(seen):  # whose slices go one way only
            return seen.flip([lead + axis for axis in self.flip])
        way = (slice(None, None, -1 if axis in self.flip else 1) for axis in range(len(self.view)))
        return seen[(..., *way)]


def whole_piece(of: str, shape: Sequence[int], own: Sequence[int], axes: Sequence[int]) -> Piece:
    """All of a tensor as all of a leaf of shape `own`, in an order of axes."""
    return Piece(of, tuple(shape), whole(shape), tuple(axes), whole(own))


def whole(shape: Sequence[int]) -> Box:
    """All of an array of that shape."""
    return tuple((0, size) for size in shape)


def slices(box: Box) -> tuple[slice, ...]:
    """A box as an index."""
    return tuple(slice(*run) for run in box)


def extent(box: Box) -> tuple[int, ...]:
    """The shape of a box."""
    return tuple(stop - start for start, stop in box)


def volume(box: Box) -> int:
    """How many entries a box has."""
    return math.prod(extent(box))


def used(
    leaves: Mapping[str, Sequence[Piece]], shapes: Mapping[str, Sequence[int]]
) -> dict[str, np.ndarray]:
    """{PyTorch's name: which of its entries are in a leaf}

    leaves: what they are made of; shapes: of PyTorch's tensors
    """
    found = {name: np.zeros(shape, bool) for name, shape in shapes.items()}
    for pieces in leaves.values():
        for piece in pieces:
            found[piece.of].reshape(piece.view)[slices(piece.take)] = True
    return found


def assembled(parts: Sequence[tuple[Box, Any]], shape: tuple[int, ...], lead: int) -> Any:
    """Boxes in their places; of one box, added."""
    (box, first), *more = parts
    if not more and box == whole(shape):
        return first
    array = zeros(first, tuple(first.shape[:lead]) + tuple(shape))
    known: set[Box] = set()
    for at, part in parts:
        array = put(array, (..., *slices(at)), part, add=at in known)
        known.add(at)
    return array


def zeros(like: Any, shape: tuple[int, ...]) -> Any:
    """An array of nothing, of the kind and dtype of another."""
    if hasattr(like, "at"):
        return like.__array_namespace__().zeros(shape, like.dtype)
    if _of_torch(like):
        return like.new_zeros(shape)
    return np.zeros(shape, like.dtype)


def put(array: Any, index: Any, part: Any, *, add: bool) -> Any:
    """The array with a part set, or added; NumPy's and PyTorch's are changed themselves."""
    if hasattr(array, "at"):  # JAX's, which do not change
        return array.at[index].add(part) if add else array.at[index].set(part)
    array[index] = array[index] + part if add else part
    return array


def _permuted(array: Any, order: tuple[int, ...]) -> Any:
    return array.permute(order) if _of_torch(array) else array.transpose(order)


def _of_torch(array: Any) -> bool:
    return hasattr(array, "permute")
