"""Which of PyTorch's buffers each of a port's is: by its layer, else by what the first step makes.

A layer's buffers are told apart by what they begin with: a running mean is 0, a variance 1.
"""

from collections.abc import Mapping

import numpy as np

from twinstep.port.pieces import Piece, whole
from twinstep.trace import dtypes
from twinstep.trace.ledger import Trace

_SAME = 1e-3
"""Of what two buffers are after the first step: so far apart, in all, may one and the same be."""
_CLEARLY = 10.0


def matched(
    torch: Trace, jax: Trace, found: Mapping[str, tuple[Piece, ...]]
) -> dict[str, tuple[Piece, ...]]:
    """{the port's name: what its buffer is}, of those that are certain.

    found: what its parameters are
    """
    theirs = {name: array for name, array in torch.buffers.items() if _moves(array)}
    ours = {name: array for name, array in jax.buffers.items() if _moves(array)}
    taken: dict[str, str] = {}
    for layers in (True, False):
        for name, array in ours.items():
            if name in taken:
                continue
            free = {n: a for n, a in theirs.items() if n not in taken.values()}
            free = {n: a for n, a in free.items() if a[0].size == array[0].size}
            if layers:
                of = _layers(name, found)
                chosen = _by_start(array, {n: a for n, a in free.items() if _layer(n) in of})
            else:
                chosen = _by_step(array, free)
            if chosen is not None:
                taken[name] = chosen
    return {
        name: (_whole(of, theirs[of].shape[1:], ours[name].shape[1:]),)
        for name, of in taken.items()
    }


def _moves(array: np.ndarray) -> bool:
    """Whether a buffer is of numbers that a training changes; a count of batches is none."""
    return dtypes.name(array.dtype) in dtypes.PRECISIONS and len(array) > 0


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _layers(name: str, found: Mapping[str, tuple[Piece, ...]]) -> set[str]:
    """PyTorch's layers whose parameters are those of a buffer's layer, however collections name it.

    Flax's linen has "params.bn.scale" beside "batch_stats.bn.mean".
    """
    layer = _layer(name)
    exact = {_layer(p.of) for n, pieces in found.items() if _layer(n) == layer for p in pieces}
    if exact:
        return exact
    inner = layer.partition(".")[2]
    return {
        _layer(p.of)
        for n, pieces in found.items()
        if inner and _layer(n).partition(".")[2] == inner
        for p in pieces
    }


def _by_start(array: np.ndarray, free: Mapping[str, np.ndarray]) -> str | None:
    """The only one of a layer's that begins as it does; or the only one."""
    same = [n for n, a in free.items() if np.array_equal(a[0].reshape(-1), array[0].reshape(-1))]
    if len(same) == 1:
        return same[0]
    return next(iter(free)) if len(free) == 1 else None


def _by_step(array: np.ndarray, free: Mapping[str, np.ndarray]) -> str | None:
    """The one that the first step leaves nearest, clearly; or the only one."""
    if len(free) == 1:
        return next(iter(free))
    if len(array) < 2:
        return None
    after = array[1].reshape(-1).astype(float)
    size = float(np.linalg.norm(after)) or 1.0
    gaps = sorted(
        (float(np.linalg.norm(other[1].reshape(-1) - after)) / size, name)
        for name, other in free.items()
        if len(other) > 1
    )
    if not gaps or gaps[0][0] > _SAME:
        return None
    return gaps[0][1] if len(gaps) == 1 or gaps[1][0] > _CLEARLY * max(gaps[0][0], _SAME) else None


def _whole(of: str, shape: tuple[int, ...], own: tuple[int, ...]) -> Piece:
    return Piece(of, shape, whole(shape), tuple(range(len(shape))), whole(own))
