"""Which of PyTorch's entries each leaf of a port is made of: there and back, and as a small file.

Neither framework is needed: arrays of either, or NumPy's, go through it as they are.
"""

import json
import math
from collections.abc import Mapping as Named
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twinstep import files
from twinstep.errors import InputError

FORMAT = 1
MAX_FILE = 64 << 20  # bytes: of a model of a hundred thousand leaves
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
        front = array.shape[:lead]
        seen = self._flipped(array.reshape(front + self.view)[(..., *_slices(self.take))])
        order = (*range(lead), *(lead + axis for axis in self.axes))
        return seen.transpose(order).reshape(front + _shape(self.at))

    def uncut(self, box: Any, lead: int) -> Any:
        """The leaf's box in the shape of `take`: the way back."""
        back = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        taken = _shape(self.take)
        seen = box.reshape(box.shape[:lead] + tuple(taken[axis] for axis in self.axes))
        return self._flipped(seen.transpose((*range(lead), *(lead + axis for axis in back))))

    def _flipped(self, seen: Any) -> Any:
        if not self.flip:
            return seen
        way = (slice(None, None, -1 if axis in self.flip else 1) for axis in range(len(self.view)))
        return seen[(..., *way)]


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
    shapes: Named[str, tuple[int, ...]]
    torch_shapes: Named[str, tuple[int, ...]] = field(default_factory=dict)

    def to_jax(self, named: Named[str, Any], *, lead: int = 0) -> dict[str, Any]:
        """PyTorch's arrays as the port's leaves.

        Args:
            named: {PyTorch's name: array}; names that are in no leaf are passed by.
            lead: How many axes stand before the parameter's own, such as steps.

        Returns:
            {the port's name: array}, of the leaves all of whose names are given.

        Raises:
            InputError: For an array of another shape, and where none of the leaves is given.
        """
        self._check(named, self.torch_shapes, lead)
        found = {}
        for name, pieces in self.leaves.items():
            if all(piece.of in named for piece in pieces):
                parts = [(piece.at, piece.cut(named[piece.of], lead)) for piece in pieces]
                found[name] = _assembled(parts, self.shapes[name], lead)
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
        leaves = flat(leaves)
        self._check(leaves, self.shapes, lead)
        parts: dict[str, list[tuple[Piece, Any]]] = {}
        seen: dict[str, set[tuple[Any, Box]]] = {}
        short = set()
        for name, pieces in self.leaves.items():
            boxes = set()
            for piece in pieces:
                if name not in leaves:
                    short.add(piece.of)
                    continue
                key, known = (piece.view, piece.take), seen.setdefault(piece.of, set())
                array = piece.uncut(leaves[name][(..., *_slices(piece.at))], lead)
                if not gradients and piece.at in boxes:
                    array = array * 0
                if key in known and not gradients:
                    continue
                boxes.add(piece.at)
                known.add(key)
                parts.setdefault(piece.of, []).append((piece, array))
        found = {}
        for of, given in parts.items():
            if of not in short:
                views = {piece.view for piece, _ in given}
                shape = self.torch_shapes[of]
                if len(views) == 1:
                    boxes_of = [(piece.take, array) for piece, array in given]
                    whole = _assembled(boxes_of, next(iter(views)), lead)
                    found[of] = whole.reshape(whole.shape[:lead] + shape)
                else:  # each in a view of its own: one after the other
                    found[of] = _in_views(given, shape, lead)
        if not found:
            raise InputError("the mapping has none of the given names of the port's")
        return found

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

    def _check(
        self, named: Named[str, Any], shapes: Named[str, tuple[int, ...]], lead: int
    ) -> None:
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

    def save(self, path: "str | Path") -> None:
        """Writes the mapping as JSON, a leaf a line.

        Args:
            path: The file, which is written anew.

        Raises:
            InputError: Where it cannot be written.
        """
        lines = [f'  "torch": {_rows(self.torch_shapes)}']
        made = {
            name: {"shape": list(self.shapes[name]), "from": [self._plain(p, name) for p in pieces]}
            for name, pieces in self.leaves.items()
        }
        lines.append(f'  "leaves": {_rows(made)}')
        text = "{\n" + ",\n".join([f'  "format": {FORMAT}', *lines]) + "\n}\n"
        files.replace(files.checked_path("map", path), text.encode())

    def _plain(self, piece: Piece, name: str) -> dict[str, Any]:
        """A piece as JSON; what is as one expects is left out."""
        plain: dict[str, Any] = {"of": piece.of}
        if piece.view != tuple(self.torch_shapes[piece.of]):
            plain["view"] = list(piece.view)
        if piece.take != whole(piece.view):
            plain["take"] = [list(run) for run in piece.take]
        if piece.axes != tuple(range(len(piece.axes))):
            plain["axes"] = list(piece.axes)
        if piece.flip:
            plain["flip"] = list(piece.flip)
        if piece.at != whole(self.shapes[name]):
            plain["at"] = [list(run) for run in piece.at]
        return plain


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
    where = files.checked_path("map", path)
    try:
        plain = json.loads(files.read(where, MAX_FILE).decode())
    except OSError as error:
        raise InputError(f"map {where} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise InputError(f"map {where} is damaged: it is not JSON") from None
    form = plain.get("format") if isinstance(plain, dict) else None
    if form != FORMAT:
        raise InputError(f"map {where} has format {form!r}, expected {FORMAT}")
    try:
        torch_shapes = {str(n): _whole_numbers(s) for n, s in plain["torch"].items()}
        shapes = {str(n): _whole_numbers(leaf["shape"]) for n, leaf in plain["leaves"].items()}
        leaves = {
            name: tuple(_piece(name, p, torch_shapes, shapes[name]) for p in leaf["from"])
            for name, leaf in plain["leaves"].items()
        }
    except InputError as error:
        raise InputError(f"map {where}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"map {where} is damaged: {type(error).__name__}: {error}") from None
    mapping = Mapping(leaves, shapes, torch_shapes)
    for name in leaves:
        _check_covered(f"map {where}: leaf {name!r}", shapes[name], [p.at for p in leaves[name]])
    return mapping


def whole(shape: Sequence[int]) -> Box:
    """All of an array of that shape."""
    return tuple((0, size) for size in shape)


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, by dotted names."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, Named) else {name: value}
    return found


def _piece(
    leaf: str, plain: Any, torch_shapes: Named[str, tuple[int, ...]], shape: tuple[int, ...]
) -> Piece:
    of = plain["of"]
    if odd := plain.keys() - {"of", "view", "take", "axes", "flip", "at"}:
        expected = "of, view, take, axes, flip or at"
        raise InputError(f"leaf {leaf!r} has {min(odd)!r}, expected {expected}")
    if of not in torch_shapes:
        raise InputError(f"leaf {leaf!r} is made of {of!r}, which stands not under torch")
    view = _whole_numbers(plain.get("view", torch_shapes[of]))
    take = _box(plain.get("take", whole(view)))
    axes = _whole_numbers(plain.get("axes", range(len(view))))
    at = _box(plain.get("at", whole(shape)))
    if math.prod(view) != math.prod(torch_shapes[of]):
        raise InputError(f"leaf {leaf!r}: {of!r} has shape {torch_shapes[of]}, its view is {view}")
    for box, inside in ((take, view), (at, shape)):
        fits = len(box) == len(inside)
        if not fits or not all(0 <= a < b <= n for (a, b), n in zip(box, inside, strict=True)):
            raise InputError(f"leaf {leaf!r}: {box} is no box of shape {inside}")
    if sorted(axes) != list(range(len(view))):
        raise InputError(f"leaf {leaf!r}: axes {axes} are no order of {len(view)}")
    if math.prod(_shape(take)) != math.prod(_shape(at)):
        raise InputError(f"leaf {leaf!r}: {take} of {of!r} has not as many entries as {at}")
    flip = _whole_numbers(plain.get("flip", ()))
    if set(flip) - set(axes):
        raise InputError(f"leaf {leaf!r}: flip {flip} are no axes of {len(view)}")
    return Piece(of, view, take, axes, at, flip)


def _check_covered(what: str, shape: tuple[int, ...], boxes: Sequence[Box]) -> None:
    """InputError where boxes leave a gap; of those that are there twice, what is added."""
    entries = sum(math.prod(_shape(box)) for box in set(boxes))
    if entries != math.prod(shape):
        raise InputError(f"{what} has {math.prod(shape)} entries, its pieces make {entries}")


def _whole_numbers(values: Any) -> tuple[int, ...]:
    found = tuple(values)
    if not all(type(value) is int for value in found):
        raise ValueError(f"{list(found)} are no whole numbers")
    return found


def _box(runs: Any) -> Box:
    return tuple((a, b) for a, b in map(_whole_numbers, runs))


def _rows(values: Named[str, Any]) -> str:
    rows = [f"    {json.dumps(name)}: {json.dumps(value)}" for name, value in values.items()]
    return "{\n" + ",\n".join(rows) + "\n  }"


def _slices(box: Box) -> tuple[slice, ...]:
    return tuple(slice(*run) for run in box)


def _shape(box: Box) -> tuple[int, ...]:
    return tuple(stop - start for start, stop in box)


def _assembled(parts: Sequence[tuple[Box, Any]], shape: tuple[int, ...], lead: int) -> Any:
    """Boxes in their places; of one box, added."""
    (box, first), *more = parts
    if not more and box == whole(shape):
        return first
    array = _zeros(first, first.shape[:lead] + tuple(shape))
    known: set[Box] = set()
    for at, part in parts:
        array = _put(array, (..., *_slices(at)), part, add=at in known)
        known.add(at)
    return array


def _in_views(given: Sequence[tuple[Piece, Any]], shape: tuple[int, ...], lead: int) -> Any:
    """The same of boxes of several views of one array."""
    first = given[0][1]
    array = _zeros(first, first.shape[:lead] + tuple(shape))
    known: set[tuple[Any, Box]] = set()
    for piece, part in given:
        seen = array.reshape(array.shape[:lead] + piece.view)
        key = piece.view, piece.take
        seen = _put(seen, (..., *_slices(piece.take)), part, add=key in known)
        known.add(key)
        array = seen.reshape(array.shape)
    return array


def _zeros(like: Any, shape: tuple[int, ...]) -> Any:
    if hasattr(like, "at"):
        return like.__array_namespace__().zeros(shape, like.dtype)
    import numpy as np

    return np.zeros(shape, like.dtype)


def _put(array: Any, index: Any, part: Any, *, add: bool) -> Any:
    if hasattr(array, "at"):  # JAX's, which do not change
        return array.at[index].add(part) if add else array.at[index].set(part)
    array[index] = array[index] + part if add else part
    return array
