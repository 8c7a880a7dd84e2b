"""Which of PyTorch's entries each leaf of a port is made of: there and back, and as a small file.

Neither framework is needed: arrays of either, or NumPy's, go through it as they are.
"""

from collections.abc import Mapping as Named
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from twinstep.errors import InputError
from twinstep.port import mapping_file
from twinstep.port.pieces import Box, Piece, assembled, put, slices, used, whole, zeros

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Mapping:
    """How a port's leaves go by PyTorch's names, in PyTorch's layout.

    Attributes:
        leaves: {the port's name: what its leaf is made of}.
        shapes: {the port's name: its shape}.
        torch_shapes: {PyTorch's name: its shape}.

    Example:
        >>> import numpy as np
        >>> from twinstep.port.mapping import Mapping, Piece
        >>> piece = Piece("fc.weight", (2, 3), ((0, 2), (0, 3)), (1, 0), ((0, 3), (0, 2)))
        >>> mapping = Mapping({"kernel": (piece,)}, {"kernel": (3, 2)}, {"fc.weight": (2, 3)})
        >>> theirs = {"fc.weight": np.arange(6.0).reshape(2, 3)}
        >>> mapping.to_jax(theirs)["kernel"].shape
        (3, 2)
        >>> mapping.to_torch(mapping.to_jax(theirs))["fc.weight"]
        array([[0., 1., 2.],
               [3., 4., 5.]])

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html
    """

    leaves: Named[str, tuple[Piece, ...]]
    shapes: Named[str, Shape]
    torch_shapes: Named[str, Shape] = field(default_factory=dict)

    def to_jax(
        self, named: Named[str, Any], *, lead: int = 0, gradients: bool = False
    ) -> dict[str, Any]:
        """PyTorch's arrays as the port's leaves.

        Of what the port adds up to one leaf, its gradient is that of either.

        Args:
            named: {PyTorch's name: array}; names that are in no leaf are passed by.
            lead: How many axes stand before the parameter's own, such as steps.
            gradients: Whether they are gradients.

        Returns:
            {the port's name: array}, of the leaves all of whose names are given.

        Raises:
            InputError: For an array of another shape, and where none of the leaves is given.
        """
        self._check(named, self.torch_shapes, lead)
        found = {}
        for name, pieces in self.leaves.items():
            if all(piece.of in named for piece in pieces):
                if gradients:
                    pieces = tuple({piece.at: piece for piece in reversed(pieces)}.values())
                parts = [(piece.at, piece.cut(named[piece.of], lead)) for piece in pieces]
                found[name] = assembled(parts, self.shapes[name], lead)
        if not found:
            raise InputError("the mapping has none of the given names of PyTorch's")
        return found

    def to_torch(
        self, leaves: Named[str, Any], *, lead: int = 0, gradients: bool = False
    ) -> dict[str, Any]:
        """The port's leaves by PyTorch's names, in its layout.

        Of what the port adds up, the first of PyTorch's has it all, or each the gradient; of what
        it holds twice, the first is taken, or the gradients' sum.

        Args:
            leaves: {the port's name: array}, or nested dicts of them; others are passed by.
            lead: How many axes stand before the parameter's own.
            gradients: Whether they are gradients.

        Returns:
            {PyTorch's name: array}, of the names all of whose entries are given.

        Raises:
            InputError: For an array of another shape, and where none of the leaves is given.
        """
        return self._to_torch(flat(leaves), lead, each=gradients, add=gradients)

    def _to_torch(
        self, leaves: Named[str, Any], lead: int, *, each: bool, add: bool
    ) -> dict[str, Any]:
        """each: of what is added in a leaf, all have it; add: what is held twice is added"""
        self._check(leaves, self.shapes, lead)
        parts: dict[str, list[tuple[Piece, Any]]] = {}
        short = set()
        for name, pieces in self.leaves.items():
            boxes = set()
            for piece in pieces:
                if name not in leaves:
                    short.add(piece.of)
                    continue
                array = piece.uncut(leaves[name][(..., *slices(piece.at))], lead)
                if not each and piece.at in boxes:
                    array = zeros(array, tuple(array.shape))
                boxes.add(piece.at)
                parts.setdefault(piece.of, []).append((piece, array))
        found = {}
        for of, given in parts.items():
            if of in short:
                continue
            joined, complete = _joined(given, self.torch_shapes[of], lead, add)
            if complete:
                found[of] = joined
        if not found:
            raise InputError("the given leaves are all of none of PyTorch's tensors")
        return found

    def opt_state_to_jax(self, named: Named[str, Any], *, lead: int = 0) -> dict[str, Any]:
        """An optimizer's state by the port's leaves, such as optax's `mu` and `nu` need.

        Args:
            named: {PyTorch's name and the kind, as "fc.weight.exp_avg": array}, as a trace has it;
                numbers such as "fc.weight.step" are passed by.
            lead: How many axes stand before the parameter's own.

        Returns:
            {the kind: {the port's name: array}}.

        Raises:
            InputError: For a state of another shape than its parameter's, and for none at all.

        Example:
            >>> import numpy as np
            >>> from twinstep.port.mapping import Mapping, Piece
            >>> piece = Piece("fc.weight", (2, 3), ((0, 2), (0, 3)), (1, 0), ((0, 3), (0, 2)))
            >>> mapping = Mapping({"kernel": (piece,)}, {"kernel": (3, 2)}, {"fc.weight": (2, 3)})
            >>> state = {"fc.weight.exp_avg": np.ones((2, 3)), "fc.weight.step": np.array(1.0)}
            >>> mapping.opt_state_to_jax(state)["exp_avg"]["kernel"].shape
            (3, 2)
        """
        kinds: dict[str, dict[str, Any]] = {}
        for key, array in named.items():
            of, _, kind = key.rpartition(".")
            counted = len(array.shape) == lead and len(self.torch_shapes.get(of, ())) > 0
            if of in self.torch_shapes and not counted:
                kinds.setdefault(kind, {})[of] = array
        if not kinds:
            raise InputError("the mapping has none of the given optimizer state's names")
        return {
            kind: self.to_jax(arrays, lead=lead, gradients=True) for kind, arrays in kinds.items()
        }

    def opt_state_to_torch(self, kinds: Named[str, Any], *, lead: int = 0) -> dict[str, Any]:
        """An optimizer's state by PyTorch's names.

        What the port adds up has the state of either; what it holds twice, the first's.

        Args:
            kinds: {PyTorch's name of the kind, as "exp_avg": {the port's name: array}, or nested
                dicts of them, as optax's `mu` is}.
            lead: How many axes stand before the parameter's own.

        Returns:
            {PyTorch's name and the kind, as "fc.weight.exp_avg": array}.

        Raises:
            InputError: For an array of another shape, and where none of the leaves is given.
        """
        return {
            f"{of}.{kind}": array
            for kind, leaves in kinds.items()
            for of, array in self._to_torch(flat(leaves), lead, each=True, add=False).items()
        }

    def with_buffers(
        self, torch: Any, jax: Any, pieces: Named[str, tuple[Piece, ...]]
    ) -> "Mapping":
        """The same with buffers, of two recordings.

        Args:
            torch, jax: Their traces.
            pieces: {the port's name: what its buffer is made of}.

        Returns:
            The mapping of parameters and buffers.
        """
        theirs = {piece.of for found in pieces.values() for piece in found}
        return Mapping(
            {**self.leaves, **pieces},
            {**self.shapes, **{name: jax.buffers[name].shape[1:] for name in pieces}},
            {**self.torch_shapes, **{name: torch.buffers[name].shape[1:] for name in theirs}},
        )

    def _check(self, named: Named[str, Any], shapes: Named[str, Shape], lead: int) -> None:
        for name, array in named.items():
            if name in shapes and tuple(array.shape[lead:]) != tuple(shapes[name]):
                raise InputError(
                    f"{name} has shape {tuple(array.shape[lead:])}, the mapping has "
                    f"{tuple(shapes[name])}"
                )

    @property
    def twice(self) -> dict[str, list[str]]:
        """What the port holds more than once.

        Returns:
            {PyTorch's name: the port's leaves that are all of it}.
        """
        held: dict[tuple[str, Any, Box], list[str]] = {}
        for name, pieces in self.leaves.items():
            for piece in pieces:
                held.setdefault((piece.of, piece.view, piece.take), []).append(name)
        return {key[0]: names for key, names in held.items() if len(set(names)) > 1}

    @property
    def summed(self) -> dict[str, list[str]]:
        """What the port adds up to one leaf.

        Returns:
            {the port's name: PyTorch's names that are added in it}.
        """
        found = {}
        for name, pieces in self.leaves.items():
            boxes: dict[Box, list[str]] = {}
            for piece in pieces:
                boxes.setdefault(piece.at, []).append(piece.of)
            if several := [of for ofs in boxes.values() if len(ofs) > 1 for of in ofs]:
                found[name] = list(dict.fromkeys(several))
        return found

    @property
    def unused(self) -> dict[str, int]:
        """What of PyTorch's the port does not have.

        Returns:
            {PyTorch's name: how many of its entries are in no leaf}.
        """
        counts = {n: int((~held).sum()) for n, held in used(self.leaves, self.torch_shapes).items()}
        return {name: count for name, count in counts.items() if count}

    def save(self, path: "str | Path") -> None:
        """Writes the mapping as JSON, a leaf a line.

        Args:
            path: The file, which is written anew.

        Raises:
            InputError: Where it cannot be written.
        """
        mapping_file.write(path, self.leaves, self.shapes, self.torch_shapes)


def load_mapping(path: "str | Path") -> Mapping:
    """Reads a mapping that `Mapping.save` or `twinstep match` wrote, or a person.

    Args:
        path: The file.

    Returns:
        The mapping.

    Raises:
        InputError: For what is no such file, and for pieces that do not fit their shapes.

    Example:
        >>> import tempfile, pathlib
        >>> from twinstep.port.mapping import Mapping, Piece, load_mapping
        >>> piece = Piece("fc.weight", (2, 3), ((0, 2), (0, 3)), (1, 0), ((0, 3), (0, 2)))
        >>> mapping = Mapping({"kernel": (piece,)}, {"kernel": (3, 2)}, {"fc.weight": (2, 3)})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     mapping.save(pathlib.Path(folder, "map.json"))
        ...     load_mapping(pathlib.Path(folder, "map.json")) == mapping
        True

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html
    """
    return Mapping(*mapping_file.read(path))


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, by dotted names."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, Named) else {name: value}
    return found


def _joined(
    given: Sequence[tuple[Piece, Any]], shape: Shape, lead: int, add: bool
) -> tuple[Any, bool]:
    """A tensor of what leaves have of it, and whether they have it all.

    add: of entries that are there several times, the sum; else the first
    """
    piece, first = given[0]
    if len(given) == 1 and piece.take == whole(piece.view):
        return first.reshape(tuple(first.shape[:lead]) + shape), True
    array = zeros(first, tuple(first.shape[:lead]) + shape)
    known = np.zeros(shape, bool)
    for piece, part in given:
        index = slices(piece.take)
        held = known.reshape(piece.view)[index]
        if not add and held.all() and held.size:
            continue
        seen = array.reshape(tuple(array.shape[:lead]) + piece.view)
        array = put(seen, (..., *index), part, add=add and bool(held.any())).reshape(array.shape)
        known.reshape(piece.view)[index] = True
    return array, bool(known.all())
