"""What a leaf can be by its layer: a bias goes where the weight beside it goes.

For leaves that no value tells, such as the bias of attention's keys, which begins at 0 and whose
gradient is rounding alone.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from twinstep.port.mapping import Mapping as LeafMapping
from twinstep.port.pieces import Piece, whole, whole_piece
from twinstep.port.pools import Pool
from twinstep.port.strides import pieces_of


def along(
    leaf: str,
    shape: tuple[int, ...],
    found: Mapping[str, tuple[Piece, ...]],
    shapes: Mapping[str, tuple[int, ...]],
    free: Mapping[str, np.ndarray],
    may_be_of: Callable[[str], bool],
) -> list[Piece] | None:
    """The one thing that the layer leaves for a leaf; None where it is none, or several.

    found: what the leaves are that are known; shapes: of PyTorch's tensors; free: which of their
    entries are in no leaf yet; may_be_of: whether a tensor has such entries
    """
    layer = _layer(leaf)
    beside = [name for name in found if _layer(name) == layer]
    options: list[list[Piece]] = []
    for weight in beside:
        option = _as_rows(shape, found[weight], shapes, free)
        if option and option not in options:
            options.append(option)
    if not options:
        owners = {_layer(piece.of) for name in beside for piece in found[name]}
        rest = [n for n, open_ in free.items() if _layer(n) in owners and open_.any()]
        rest = [n for n in rest if free[n].sum() >= math.prod(shape) and may_be_of(n)]
        as_they_are = all(_as_it_is(found[name], shapes) for name in beside)
        if len(rest) == 1 and as_they_are and free[rest[0]].all():
            options += [[piece] for piece in _by_shape(rest[0], shapes[rest[0]], shape)]
    return options[0] if len(options) == 1 else None


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _as_it_is(pieces: tuple[Piece, ...], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a leaf is a whole tensor whose entries along each axis keep their order."""
    (piece, *others) = pieces
    straight = piece.view == shapes[piece.of] and not piece.flip
    return not others and straight and piece.take == whole(piece.view)


def _by_shape(name: str, shape: tuple[int, ...], own: tuple[int, ...]) -> list[Piece]:
    """A whole tensor as a leaf, where the shapes tell the order of axes."""
    if math.prod(shape) != math.prod(own):
        return []
    if len(shape) <= 1 or len(own) <= 1:
        return [whole_piece(name, shape, own, range(len(shape)))]
    if len(set(shape)) == len(shape) and sorted(shape) == sorted(own):
        return [whole_piece(name, shape, own, [shape.index(size) for size in own])]
    return []


def _as_rows(
    shape: tuple[int, ...],
    weight: tuple[Piece, ...],
    shapes: Mapping[str, tuple[int, ...]],
    free: Mapping[str, np.ndarray],
) -> list[Piece] | None:
    """The entries of biases that stand beside the rows of which a weight is made."""
    owners = list(dict.fromkeys(piece.of for piece in weight))
    if any(len(shapes[of]) < 2 for of in owners):
        return None
    rows, columns = dict[str, np.ndarray](), dict[str, np.ndarray]()
    biases, start = dict[str, np.ndarray](), 0
    for of in owners:
        bias = [
            name
            for name, open_ in free.items()
            if _layer(name) == _layer(of) and shapes[name] == shapes[of][:1] and open_.any()
        ]
        if len(bias) != 1:
            return None
        count, size = shapes[of][0], math.prod(shapes[of][1:])
        numbers = np.arange(start, start + count)
        rows[of] = np.repeat(numbers, size).reshape(shapes[of])
        columns[of] = np.tile(np.arange(size), count).reshape(shapes[of])
        biases[bias[0]] = numbers
        start += count
    own = _extent(weight)
    layout = LeafMapping({"weight": weight}, {"weight": own}, shapes)
    of_leaf = layout.to_jax(rows)["weight"][layout.to_jax(columns)["weight"] == 0]
    if of_leaf.size != math.prod(shape):
        return None
    pool = Pool({name: shapes[name] for name in biases}, biases)
    pieces = pieces_of(of_leaf.reshape(shape), pool)
    if pieces is None:
        return None
    for piece in pieces:
        take = tuple(slice(*run) for run in piece.take)
        if not free[piece.of].reshape(piece.view)[take].all():
            return None
    return pieces


def _extent(pieces: tuple[Piece, ...]) -> tuple[int, ...]:
    """The shape of a leaf, from its pieces."""
    return tuple(max(piece.at[i][1] for piece in pieces) for i in range(len(pieces[0].at)))
