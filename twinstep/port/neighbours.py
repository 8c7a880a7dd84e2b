"""What a leaf can be by its layer: a bias goes where the weight beside it goes.

For leaves that no value tells, such as the bias of attention's keys, which begins at 0 and whose
gradient is rounding alone.
"""

import math
from collections.abc import Mapping

import numpy as np

from twinstep.port.mapping import Mapping as LeafMapping
from twinstep.port.pieces import Piece, whole
from twinstep.port.pools import Pool
from twinstep.port.strides import pieces_of


def along(
    leaf: str,
    shape: tuple[int, ...],
    found: Mapping[str, tuple[Piece, ...]],
    shapes: Mapping[str, tuple[int, ...]],
    free: Mapping[str, np.ndarray],
) -> list[Piece] | None:
    """The one thing that the layer leaves for a leaf; None where it is none, or several.

    found: what the leaves are that are known; shapes: of PyTorch's tensors; free: which of their
    entries are in no leaf yet
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
        rest = [n for n, open_ in free.items() if _layer(n) in owners and open_.all()]
        rest = [n for n in rest if math.prod(shapes[n]) == math.prod(shape)]
        for name in rest:
            if (piece := _by_shape(name, shapes[name], shape)) is not None:
                options.append([piece])
        if len(rest) > len(options):  # one of several orders
            return None
    return options[0] if len(options) == 1 else None


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _by_shape(name: str, shape: tuple[int, ...], own: tuple[int, ...]) -> Piece | None:
    """A whole tensor as a leaf, where the shapes tell the order of axes."""
    if len(shape) <= 1 or len(own) <= 1:
        return Piece(name, shape, whole(shape), tuple(range(len(shape))), whole(own))
    if len(set(shape)) == len(shape) and sorted(shape) == sorted(own):
        axes = tuple(shape.index(size) for size in own)
        return Piece(name, shape, whole(shape), axes, whole(own))
    return None


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
