"""A mapping as JSON that a person reads, reviews and writes: a leaf a line, defaults left out.

"torch" has PyTorch's shapes; "leaves" the port's, each with the pieces that it is made of.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from twinstep import files
from twinstep.errors import InputError, unknown
from twinstep.port.pieces import Box, Piece, extent, volume, whole

FORMAT = 1
MAX_FILE = 64 << 20  # bytes: of a model of a hundred thousand leaves
_MAX_PIECES = 4096  # of a leaf: each is held against each
Shapes = Mapping[str, tuple[int, ...]]
Leaves = Mapping[str, tuple[Piece, ...]]


def write(path: "str | Path", leaves: Leaves, shapes: Shapes, torch_shapes: Shapes) -> None:
    """Writes the file anew. InputError where it cannot be written."""
    where = files.checked_path("map", path)
    made = {
        name: {
            "shape": list(shapes[name]),
            "from": [_plain(piece, torch_shapes[piece.of], shapes[name]) for piece in pieces],
        }
        for name, pieces in leaves.items()
    }
    lines = [f'  "format": {FORMAT}']
    lines += [f'  "torch": {_rows({name: list(shape) for name, shape in torch_shapes.items()})}']
    lines += [f'  "leaves": {_rows(made)}']
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    try:
        files.replace(where, text.encode())
    except OSError as error:
        raise InputError(f"map {where} cannot be written: {error.strerror}") from None


def read(
    path: "str | Path",
) -> tuple[dict[str, tuple[Piece, ...]], dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Leaves, their shapes and PyTorch's. InputError for what is no such file, or does not fit."""
    where = files.checked_path("map", path)
    try:
        plain = json.loads(files.read(where, MAX_FILE).decode(), object_pairs_hook=_once)
    except OSError as error:
        raise InputError(f"map {where} cannot be read: {error.strerror}") from None
    except _TwiceError as error:
        raise InputError(f"map {where} has {str(error)!r} twice in one place") from None
    except (ValueError, RecursionError):
        raise InputError(f"map {where} is damaged: it is not JSON") from None
    try:
        return _leaves(plain)
    except InputError as error:
        raise InputError(f"map {where}: {error}") from None


class _TwiceError(Exception):
    """A name that stands twice in one object, of which JSON's readers take the last."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(next(name for name in names if names.count(name) > 1))
    return found


def _plain(piece: Piece, of_torch: Sequence[int], own: Sequence[int]) -> dict[str, Any]:
    """A piece as JSON; what is as one expects is left out."""
    plain: dict[str, Any] = {"of": piece.of}
    if piece.view != tuple(of_torch):
        plain["view"] = list(piece.view)
    if piece.take != whole(piece.view):
        plain["take"] = [list(run) for run in piece.take]
    if piece.axes != tuple(range(len(piece.axes))):
        plain["axes"] = list(piece.axes)
    if piece.flip:
        plain["flip"] = list(piece.flip)
    if piece.at != whole(own):
        plain["at"] = [list(run) for run in piece.at]
    return plain


def _rows(values: Mapping[str, Any]) -> str:
    if not values:
        return "{}"
    rows = [f"    {json.dumps(name)}: {json.dumps(value)}" for name, value in values.items()]
    return "{\n" + ",\n".join(rows) + "\n  }"


def _leaves(
    plain: Any,
) -> tuple[dict[str, tuple[Piece, ...]], dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    form = plain.get("format") if isinstance(plain, dict) else None
    if form != FORMAT or isinstance(form, bool):
        raise InputError(f"format is {form!r}, expected {FORMAT}")
    _check_keys("the file", plain, {"format", "torch", "leaves"})
    torch = _object("torch", plain.get("torch"))
    torch_shapes = {name: _numbers(f"torch {name!r}", shape) for name, shape in torch.items()}
    leaves, shapes = {}, {}
    for name, leaf in _object("leaves", plain.get("leaves")).items():
        what = f"leaf {name!r}"
        _check_keys(what, _object(what, leaf), {"shape", "from"})
        shapes[name] = _numbers(f"{what}: shape", leaf.get("shape"))
        pieces = leaf.get("from")
        if not isinstance(pieces, list) or not 0 < len(pieces) <= _MAX_PIECES:
            raise InputError(f"{what}: from is {_short(pieces)}, expected a list of pieces")
        leaves[name] = tuple(_piece(what, piece, torch_shapes, shapes[name]) for piece in pieces)
        _check_covered(what, shapes[name], [piece.at for piece in leaves[name]])
    return leaves, shapes, torch_shapes


def _piece(leaf: str, plain: Any, torch_shapes: Shapes, shape: tuple[int, ...]) -> Piece:
    _check_keys(leaf, _object(leaf, plain), {"of", "view", "take", "axes", "flip", "at"})
    of = plain.get("of")
    if not isinstance(of, str):
        raise InputError(f"{leaf}: of is {_short(of)}, expected a name that stands under torch")
    if of not in torch_shapes:
        raise InputError(f"{leaf}: {unknown('tensor of PyTorch', of, torch_shapes)}")
    leaf = f"{leaf}, {of!r}"
    view = _numbers(f"{leaf}: view", plain.get("view", torch_shapes[of]))
    take = _box(f"{leaf}: take", plain.get("take", whole(view)), view)
    axes = _numbers(f"{leaf}: axes", plain.get("axes", range(len(view))))
    at = _box(f"{leaf}: at", plain.get("at", whole(shape)), shape)
    flip = _numbers(f"{leaf}: flip", plain.get("flip", ()))
    if math.prod(view) != math.prod(torch_shapes[of]):
        raise InputError(f"{leaf}: the view is {view}, the tensor's shape {torch_shapes[of]}")
    if sorted(axes) != list(range(len(view))):
        raise InputError(f"{leaf}: axes {axes} are no order of {len(view)}")
    if len({*flip}) < len(flip) or {*flip} - {*axes}:
        raise InputError(f"{leaf}: flip {flip} are no axes of {len(view)}")
    if volume(take) != volume(at):
        raise InputError(
            f"{leaf}: take has {volume(take)} entries, of shape {extent(take)}, at has "
            f"{volume(at)}, of shape {extent(at)}"
        )
    return Piece(of, view, take, axes, at, flip)


def _check_covered(what: str, shape: tuple[int, ...], given: Sequence[Box]) -> None:
    """InputError where boxes leave a gap or overlap; what is there twice is added."""
    boxes = list(dict.fromkeys(given))
    if len(boxes) > 1:
        edges = np.array(boxes).reshape(len(boxes), -1, 2)
        lows, highs = edges[..., 0], edges[..., 1]
        meet = ((lows[:, None] < highs) & (lows < highs[:, None])).all(-1)
        first, second = np.nonzero(np.triu(meet, 1))
        if len(first):
            raise InputError(f"{what}: {boxes[first[0]]} and {boxes[second[0]]} overlap")
    entries = sum(map(volume, boxes))
    if entries != math.prod(shape):
        raise InputError(f"{what} has {math.prod(shape)} entries, its pieces make {entries}")


def _check_keys(what: str, plain: dict[str, Any], known: set[str]) -> None:
    if odd := plain.keys() - known:
        raise InputError(f"{what} has {min(odd)!r}, expected {', '.join(sorted(known))}")


def _object(what: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{what} is {_short(value)}, expected an object")
    return value


def _numbers(what: str, values: Any) -> tuple[int, ...]:
    fine = isinstance(values, (list, tuple, range))
    if not fine or not all(type(value) is int and value >= 0 for value in values):
        raise InputError(f"{what} is {_short(values)}, expected a list of whole numbers")
    return tuple(values)


def _box(what: str, runs: Any, inside: tuple[int, ...]) -> Box:
    """A box of an array of that shape; only where an axis has nothing may it have nothing."""
    fine = isinstance(runs, (list, tuple)) and len(runs) == len(inside)
    if not fine or not all(_is_run(run, size) for run, size in zip(runs, inside, strict=True)):
        raise InputError(f"{what} is {_short(runs)}, expected a box of shape {inside}")
    return tuple((start, stop) for start, stop in runs)


def _is_run(run: Any, size: int) -> bool:
    if not isinstance(run, (list, tuple)) or len(run) != 2:
        return False
    start, stop = run
    whole_numbers = type(start) is int and type(stop) is int
    return whole_numbers and (0 <= start < stop <= size or start == stop == size == 0)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
