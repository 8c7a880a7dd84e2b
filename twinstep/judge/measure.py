"""One number a step: how far apart two leaves are, and what is worst about them."""

import math
from collections.abc import Iterator, Mapping

import numpy as np

from twinstep.judge.findings import Finding
from twinstep.trace import dtypes
from twinstep.trace.ledger import Leaves


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
    if dtypes.name(a.dtype) not in dtypes.PRECISIONS:  # fingerprints, counters
        return np.where((a != b).any(axis=tuple(range(1, a.ndim))), np.inf, 0.0)
    result = np.empty(len(a))
    # inf - inf is nan by intent, and a difference that overflows is inf
    with np.errstate(invalid="ignore", over="ignore"):
        for rows in _blocks(a):
            gap = (dtypes.numbers(a[rows]) - dtypes.numbers(b[rows])).reshape(len(a[rows]), -1)
            gap = np.abs(gap, out=gap if gap.dtype.kind == "f" else None)  # complex: the modulus
            result[rows] = gap.max(axis=1, initial=0)
    for row in np.flatnonzero(np.isinf(result)):
        if not all(np.isfinite(dtypes.numbers(array[row])).all() for array in (a, b)):
            result[row] = np.nan
    return result


def largest(array: np.ndarray) -> np.ndarray:
    """(T,) the largest absolute entry of each step."""
    flat = dtypes.numbers(array).reshape(len(array), -1)
    if flat.dtype.kind == "c":
        return np.abs(flat).max(axis=1, initial=0).astype(float)
    flat = flat.astype(float) if flat.dtype.kind in "bu" else flat  # whose negatives are none
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
    if dtypes.name(a.dtype) not in dtypes.PRECISIONS:
        return True
    a, b = dtypes.numbers(a), dtypes.numbers(b)
    return all(
        np.array_equal(np.signbit(x), np.signbit(y))
        for x, y in zip(_parts(a), _parts(b), strict=True)
    )


def _parts(array: np.ndarray) -> tuple[np.ndarray, ...]:
    """The real numbers that it is made of."""
    return (array.real, array.imag) if array.dtype.kind == "c" else (array,)


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
    kind = dtypes.name(np.asarray(a).dtype)
    a, b = dtypes.numbers(np.asarray(a)), dtypes.numbers(np.asarray(b))
    if a.size == 0:
        return Finding(step, stage, leaf, (), 0.0, 0.0, 0.0, float(limit), 0.0, sides)
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(np.subtract(a, b, dtype=complex if a.dtype.kind == "c" else float))
    # a nan is the worst entry there is (argmax agrees), and worse on one side than on both
    one_sided = np.isfinite(a) != np.isfinite(b)
    badness = one_sided if one_sided.any() else gap
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
        ulps=_ulps(x, y, kind),
        sides=sides,
    )


def of_evaluations(
    step: int,
    one: Leaves,
    other: Leaves,
    figures: Mapping[str, tuple[float, float]],
    limit: float,
    sides: tuple[str, str],
) -> list[Finding]:
    """How far apart two evaluations are.

    figures: {name: both sides' numbers of samples}; limit: how far rounding may move an output.
    Two outputs that are closer than twice that may be named in either order, and as many samples
    rightly or wrongly.
    """
    outputs, theirs = one["outputs"], other["outputs"]
    named, other_named = one["predictions"], other["predictions"]
    differ = np.flatnonzero(named != other_named)
    with np.errstate(invalid="ignore", over="ignore"):
        ahead = np.abs(outputs[differ, named[differ]] - outputs[differ, other_named[differ]])
    gap = float(differences(outputs[None], theirs[None])[0])
    found = [finding(step, "evaluation", "outputs", outputs, theirs, gap, limit, sides)]
    if len(differ):
        worst = int(np.argmax(ahead))
        x, y = (a[differ[worst]].item() for a in (named, other_named))
        leaf = f"predictions[{differ[worst]}]"
        swap, ulps = float(ahead[worst]), math.inf
        found.append(
            Finding(step, "evaluation", leaf, (), x, y, swap, 2 * limit, ulps, sides=sides)
        )
    for name, (a, b) in figures.items():
        allowed = float(len(differ))
        apart = float(abs(a - b))
        found.append(Finding(step, "evaluation", name, (), a, b, apart, allowed, 0.0, sides=sides))
    return found


def _ulps(x: np.generic, y: np.generic, dtype: str) -> float:
    """How many numbers of the dtype lie between two; the bits, as integers, count them.

    Of complex numbers, in the part in which that is more.
    """
    if np.iscomplexobj(x):
        return max(_ulps(x.real, y.real, ""), _ulps(x.imag, y.imag, ""))
    if not np.issubdtype(x.dtype, np.floating):
        return 0.0 if x == y else math.inf
    if not (np.isfinite(x) and np.isfinite(y)):
        return math.inf
    if dtype == "float16":
        x, y = np.float16(x), np.float16(y)
    kind = f"i{x.dtype.itemsize}"
    between = 1 << 16 if dtype == "bfloat16" else 1  # of float32's, in which they are given

    def ordered(value: np.generic) -> int:
        bits = int(np.asarray(value).view(kind))
        return bits if bits >= 0 else -(bits & np.iinfo(kind).max)

    return float(abs(ordered(x) - ordered(y)) // between)
