"""What PyTorch did to its gradients between backward and the optimizer, read off a recording."""

from collections.abc import Collection, Mapping
from functools import partial

import numpy as np

from twinstep.port.updates import Clipping
from twinstep.trace import dtypes
from twinstep.trace.leaves import ReadLeaves
from twinstep.trace.ledger import Trace

UNKNOWN = "unknown"
"""Gradients were changed, by neither of `torch.nn.utils.clip_grad_*_`."""
_ADDED = 1e-6  # by PyTorch, to the norm that it divides by
_NORMS = (2.0, np.inf, 1.0)


def norms(
    grads: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray], steps: int, norm_type: float
) -> np.ndarray:
    """(T,) of some leaves' gradients, in all; 0 at a step without any.

    rows: {leaf: (n,)}, at which of the steps it has a gradient
    """
    of_leaf = np.zeros((len(grads), steps))
    for number, (leaf, array) in enumerate(grads.items()):
        flat = dtypes.numbers(array).reshape(len(array), -1).astype(float)
        of_leaf[number, rows[leaf]] = [np.linalg.norm(row, norm_type) for row in flat]
    found: np.ndarray = np.linalg.norm(of_leaf, norm_type, axis=0)
    return found


def coefficients(clipping: Clipping, norm: np.ndarray) -> np.ndarray:
    """(T,) by what `clip_grad_norm_` multiplies gradients of such norms."""
    return np.minimum(1.0, clipping.limit / (norm + _ADDED))


def seen(trace: Trace, leaves: Collection[str]) -> Clipping | str | None:
    """How gradients were clipped; None: they were not; UNKNOWN: changed in another way."""
    changed = [leaf for leaf in leaves if leaf in trace.grads and not trace.held_once(leaf)]
    changed = [leaf for leaf in changed if leaf in trace.raw_grads and _differs(trace, leaf)]
    if not changed:
        return None
    return _by_value(trace, changed) or _by_norm(trace, leaves, changed) or UNKNOWN


def _differs(trace: Trace, leaf: str) -> bool:
    raw, given = trace.raw_grads[leaf], trace.grads[leaf]
    return raw.shape != given.shape or not np.array_equal(raw, given)


def _by_value(trace: Trace, changed: Collection[str]) -> Clipping | None:
    limit = max(float(np.abs(dtypes.numbers(trace.grads[leaf])).max()) for leaf in changed)
    for leaf in changed:
        raw, given = dtypes.numbers(trace.raw_grads[leaf]), dtypes.numbers(trace.grads[leaf])
        if raw.shape != given.shape or not np.array_equal(np.clip(raw, -limit, limit), given):
            return None
    return Clipping("value", plainest(limit, 0.0))


def _by_norm(trace: Trace, leaves: Collection[str], changed: Collection[str]) -> Clipping | None:
    factors = np.ones(len(trace))
    spread = 64 * max(
        dtypes.precision(dtypes.name(trace.grads[leaf].dtype)).eps for leaf in changed
    )
    for leaf in changed:
        raw, given = dtypes.numbers(trace.raw_grads[leaf]), dtypes.numbers(trace.grads[leaf])
        steps = trace.steps_of("raw_grads", leaf)
        if not np.array_equal(steps, trace.steps_of("grads", leaf)):
            return None
        for row, one, other in zip(steps - trace.start, raw, given, strict=True):
            one, other = one.reshape(-1).astype(float), other.reshape(-1).astype(float)
            size = float(one @ one)
            factor = float(one @ other) / size if size else 1.0
            if np.abs(other - factor * one).max(initial=0) > spread * np.abs(one).max(initial=0):
                return None
            if factors[row] == 1:
                factors[row] = factor
            elif size and abs(factor - factors[row]) > spread * factors[row]:
                return None
    clipped = factors < 1 - spread
    if (factors > 1 + spread).any() or not clipped.any():
        return None
    known = [leaf for leaf in leaves if leaf in trace.raw_grads]
    grads = ReadLeaves({leaf: partial(trace.raw_grads.__getitem__, leaf) for leaf in known})
    rows = {leaf: trace.steps_of("raw_grads", leaf) - trace.start for leaf in known}
    for kind in _NORMS:
        limits = (factors * (norms(grads, rows, len(trace), kind) + _ADDED))[clipped]
        limit = float(np.median(limits))
        if np.abs(limits - limit).max() <= 16 * spread * limit:
            return Clipping("norm", plainest(limit, 4 * spread), kind)
    return None


def plainest(value: float, tolerance: float) -> float:
    """The shortest decimal within a part of a number."""
    for digits in range(1, 17):
        short = float(f"{value:.{digits}g}")
        if abs(short - value) <= tolerance * abs(value):
            return short
    return value
