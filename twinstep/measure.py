"""One number a step: how far apart two leaves are, and what is worst about them."""

import math
from collections.abc import Iterator

import numpy as np

from twinstep.findings import Finding
from twinstep.trace import Leaves


def larger(measured: list[Leaves]) -> dict[str, np.ndarray]:
    """{"stage/leaf": (T,)} the larger of what each trace measured."""
    return {
        name: np.max([sizes[name] for sizes in measured], axis=0).astype(float)
        for name in (measured[0] if measured else ())
    }


_BLOCK = 1 << 16  # entries at a time: a block and its difference stay in the cache


def _blocks(array: np.ndarray) -> Iterator[slice]:
    """Slices of steps, of about _BLOCK entries each."""
    rows = max(1, _BLOCK // max(1, math.prod(array.shape[1:])))
    return (slice(low, low + rows) for low in range(0, len(array), rows))


def differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(T,) the largest absolute difference of each step; nan where either has a nan or an inf."""
    if not np.issubdtype(a.dtype, np.floating):  # fingerprints
        return np.where(a == b, 0.0, np.inf)
    result = np.empty(len(a))
    # inf - inf is nan by intent, and a difference that overflows is inf
    with np.errstate(invalid="ignore", over="ignore"):
        for rows in _blocks(a):
            gap = (a[rows] - b[rows]).reshape(len(a[rows]), -1)
            np.abs(gap, out=gap)
            result[rows] = gap.max(axis=1, initial=0)
    for row in np.flatnonzero(np.isinf(result)):
        if not (np.isfinite(a[row]).all() and np.isfinite(b[row]).all()):
            result[row] = np.nan
    return result


def largest(array: np.ndarray) -> np.ndarray:
    """(T,) the largest absolute entry of each step."""
    flat = array.reshape(len(array), -1)
    return np.maximum(flat.max(axis=1, initial=0), -flat.min(axis=1, initial=0)).astype(float)


def ratios(difference: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """(T,) difference / limit; 0 for none, inf where no multiple of the limit would do."""
    proves = (limit > 0) & (limit < np.inf)
    ratio = np.where(difference == 0, 0, np.inf)  # nan too is worse than all
    with np.errstate(over="ignore"):
        np.divide(difference, limit, out=ratio, where=proves & ~np.isnan(difference))
    return ratio


def same_bits(a: np.ndarray, b: np.ndarray, difference: np.ndarray) -> bool:
    """Whether no bit differs; 0 and -0 do, though their difference is 0."""
    if not np.all(difference == 0):
        return False
    if not np.issubdtype(a.dtype, np.floating):
        return True
    return bool(np.array_equal(np.signbit(a), np.signbit(b)))


def finding(
    step: int,
    stage: str,
    leaf: str,
    a: np.ndarray,
    b: np.ndarray,
    difference: float,
    limit: float,
    sides: tuple[str, str] = ("first", "second"),
) -> Finding:
    """The worst entry of one leaf at one step; `sides`: whose `a` and `b` are."""
    a, b = np.asarray(a), np.asarray(b)
    if a.size == 0:
        return Finding(step, stage, leaf, (), 0.0, 0.0, 0.0, float(limit), 0.0, sides)
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(np.subtract(a, b, dtype=float))
    # a nan is the worst entry there is, and worse on one side than on both
    one_sided = np.isfinite(a) != np.isfinite(b)
    badness = one_sided if one_sided.any() else np.where(np.isnan(gap), np.inf, gap)
    index = np.unravel_index(int(np.argmax(badness)), a.shape)
    x, y = a[index], b[index]
    finite = np.isfinite(difference)
    return Finding(
        step=step,
        stage=stage,
        leaf=leaf,
        index=tuple(int(i) for i in index),
        reference=x.item(),
        candidate=y.item(),
        difference=float(difference) if finite else math.inf,
        allowed=float(limit),
        ulps=_ulps(x, y),
        sides=sides,
    )


def _ulps(x: np.floating, y: np.floating) -> float:
    """How many numbers of the dtype lie between two; the bits, as integers, count them."""
    if not np.issubdtype(x.dtype, np.floating):
        return 0.0 if x == y else math.inf
    if not (np.isfinite(x) and np.isfinite(y)):
        return math.inf
    kind = f"i{x.dtype.itemsize}"

    def ordered(value: np.floating) -> int:
        bits = int(np.asarray(value).view(kind))
        return bits if bits >= 0 else -(bits & np.iinfo(kind).max)

    return float(abs(ordered(x) - ordered(y)))
