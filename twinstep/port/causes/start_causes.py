"""Why a port starts from other parameters than PyTorch: how it laid them out, or what it put there.

Each is held against all entries, and is exact but where it says that it scales.
"""

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from twinstep.port.causes import rounded
from twinstep.port.causes.rearrangements import Names, fitting, names_of
from twinstep.port.sides import Side
from twinstep.port.updates import Cause
from twinstep.trace import dtypes

Pair = tuple[np.ndarray, np.ndarray]

_SCALED = 4.0  # eps: a product is rounded once, its factor was solved for from rounded numbers
_PARTS = (2, 3, 4)
_LISTED = 4
_FEW = 16  # entries: of fewer nothing is known of what they have in common
_SIGMAS = 4.0
_UNLIKE = 0.35  # correlation
_SAME_DISTRIBUTION = 1.63  # of Kolmogorov and Smirnov's, which one in a hundred exceeds by chance
_IN_COMMON = 0.5  # of the entries: in float32 two large draws share many by chance
_SAME_DRAW = 0.05
"""Of two draws the sorted entries are apart by .3 or more of what their mean is uncertain by."""


@dataclass(frozen=True)
class _Explained:
    """What a leaf is instead of PyTorch's.

    where: the rows that it is said of; "": all
    measured: what is another number for each leaf
    """

    kind: str
    says: str
    where: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    ratio: float = 0.0
    measured: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.kind, self.says, self.where


def causes_of_start(torch: Side, jax: Side, stage: str, leaf: str) -> list[Cause]:
    """What one leaf that starts otherwise is, and which others are so too.

    Args:
        torch, jax: Two recordings, lined up.
        stage: "params" or "buffers".
        leaf: PyTorch's name of it.

    Returns:
        The causes that explain most leaves; several, if these are as many.
    """
    pairs = _pairs(torch, jax, stage)
    if leaf not in pairs:
        return []
    start = _Start(pairs, torch.trace.program.get("modules", {}))
    if leaf not in start.off:
        return []
    explained = {name: start.explained(name) for name in start.off}
    counts = {
        one.key: [n for n in start.off if one.key in {o.key for o in explained[n]}]
        for one in explained[leaf]
    }
    most = max(map(len, counts.values()), default=0)
    found = []
    for one in explained[leaf]:
        leaves = counts[one.key]
        if len(leaves) == most:
            ratios = [o.ratio for n in leaves for o in explained[n] if o.key == one.key]
            measured = [o.measured for n in leaves for o in explained[n] if o.key == one.key]
            found.append(_cause(one, leaves, max(ratios), start.off, measured))
    return found


def _pairs(torch: Side, jax: Side, stage: str) -> dict[str, Pair]:
    """{leaf: PyTorch's and the port's start}, but of what the port adds up."""
    summed = jax.mapping.summed.values() if jax.mapping is not None else ()
    skipped = {name for names in summed for name in names}
    found = {}
    for leaf in getattr(torch.trace, stage):
        mine, theirs = torch.rows(stage, leaf), jax.rows(stage, leaf)
        if leaf not in skipped and mine is not None and theirs is not None:
            arrays = dtypes.numbers(mine.array[:1])[0], dtypes.numbers(theirs.array[:1])[0]
            if arrays[0].dtype.kind == "f" and arrays[0].shape == arrays[1].shape:
                found[leaf] = arrays
    return found


class _Start:
    """All leaves at the start; those of them that are off."""

    def __init__(self, pairs: Mapping[str, Pair], modules: Mapping[str, Any]) -> None:
        self.pairs, self.modules = pairs, modules
        self.off = [n for n, (a, b) in pairs.items() if not np.array_equal(a, b, equal_nan=True)]
        self.shapes = {name: a.shape for name, (a, _) in pairs.items()}

    @cached_property
    def contents(self) -> dict[bytes, list[str]]:
        """{entries' hash: where PyTorch has them}, of leaves and parts that are not alike."""
        found: dict[bytes, list[str]] = {}
        for name, (array, _) in self.pairs.items():
            parts = itertools.chain.from_iterable(_parts(array, count) for count in _PARTS)
            for where, part in [("", array), *parts]:
                if not _alike(part):
                    found.setdefault(_content(part), []).append(name + where)
        return found

    def explained(self, leaf: str) -> list[_Explained]:
        """All that a leaf may be; what fits whole before what fits in parts, or loosely."""
        one, other = self.pairs[leaf]
        if not np.isfinite(other).all():
            return []
        names = names_of(leaf, self.shapes, self.modules)
        whole = [*self._of_two(leaf), *self._whole(leaf, "", one, other, names)]
        return whole or self._in_parts(leaf) or list(_loosely(one, other))

    def _whole(
        self, leaf: str, where: str, one: np.ndarray, other: np.ndarray, names: Names
    ) -> Iterator[_Explained]:
        """Of a leaf, or of some of its rows."""
        if _alike(other):
            value = float(other.flat[0])
            yield _Explained("constant", f"{value:g} everywhere", where, {"value": value})
            return
        if kind := rounded.to(one, other):
            yield _Explained("rounded", f"PyTorch's rounded to {kind}", where)
            return
        for order, _ in fitting(one, other, _equal, names):
            yield _Explained(order.kind, order.says, where)
        for name in self.contents.get(_content(other), []):
            if name != leaf + where:
                yield _Explained("another's copy", f"PyTorch's {name}", where)
        yield from _scaled(one, other, where)

    def _of_two(self, leaf: str) -> Iterator[_Explained]:
        """Two leaves that stand for each other, or that are added up in one."""
        one, other = self.pairs[leaf]
        for name in self.off:
            theirs, ours = self.pairs[name]
            if name == leaf or theirs.shape != one.shape:
                continue
            near = name.rpartition(".")[0] == leaf.rpartition(".")[0]
            both = " and ".join(n for n in self.off if n in (leaf, name))
            if (near or not _alike(one)) and _equal(theirs, other) == _equal(one, ours) == 0:
                yield _Explained("swapped", f"{both} stand for each other")
            elif near and (_merged(one, theirs, other, ours) or _merged(theirs, one, ours, other)):
                says = f"{both} are added up in one, which then moves at half their speed"
                yield _Explained("biases merged", says)

    def _in_parts(self, leaf: str) -> list[_Explained]:
        """Where only some parts of its rows are off, and all of these alike."""
        one, other = self.pairs[leaf]
        names = Names(channels=names_of(leaf, self.shapes, self.modules).channels)
        for count in _PARTS:
            pairs = zip(_parts(one, count), _parts(other, count), strict=True)
            parts = [(where, a, b) for (where, a), (_, b) in pairs]
            off = [part for part in parts if not np.array_equal(*part[1:])]
            if len(off) == len(parts):
                continue
            fits = [[*self._whole(leaf, *part, names)] for part in off]
            where = ", ".join(part[0].strip("[]") for part in off)
            common = [
                replace(each, where=f"[{where}]")
                for each in fits[0]
                if all((each.kind, each.says) in {(o.kind, o.says) for o in fit} for fit in fits)
            ]
            if common:
                return common
        return []


def _parts(array: np.ndarray, count: int) -> list[tuple[str, np.ndarray]]:
    """(which rows, the array there), of so many parts of one size; none where it has not such."""
    if not array.ndim or len(array) % count or len(array) <= count:
        return []
    size = len(array) // count
    return [(f"[{i}:{i + size}]", array[i : i + size]) for i in range(0, len(array), size)]


def _scaled(one: np.ndarray, other: np.ndarray, where: str) -> Iterator[_Explained]:
    """By a factor, or by a number that is added."""
    eps = np.finfo(other.dtype).eps
    a, b = one.astype(float), other.astype(float)
    size = float((a * a).sum())
    if one.size < 3 or not size or _alike(one):
        return
    factor = float((a * b).sum()) / size
    gap, allowed = np.abs(b - factor * a).max(), _SCALED * eps * np.abs(b).max()
    if gap <= allowed:
        kind = "negative" if abs(factor + 1) <= _SCALED * eps else "scaled"
        says = "PyTorch's by -1" if kind == "negative" else f"PyTorch's times {factor:.7g}"
        yield _Explained(kind, says, where, {"factor": factor}, float(gap / allowed))
    added = float((b - a).mean())
    gap = np.abs(b - a - added).max()
    allowed = _SCALED * eps * max(np.abs(b).max(), np.abs(a).max())
    if gap <= allowed and abs(added) > 16 * allowed:
        says = f"PyTorch's plus {added:.7g}"
        yield _Explained("shifted", says, where, {"added": added}, float(gap / allowed))


def _loosely(one: np.ndarray, other: np.ndarray) -> Iterator[_Explained]:
    """What is known where no order, factor or part of all its entries is."""
    if rows := [*_rows(one, other)]:
        yield from rows
        return
    if one.ndim and len(one) > 1:
        same = (one.reshape(len(one), -1) == other.reshape(len(one), -1)).all(1)
        if same.any():
            off = np.flatnonzero(~same)
            what = f"{len(off)} of {len(one)} {'rows' if one.ndim > 1 else 'entries'}"
            if _alike(other[off]):
                value = float(other[off].flat[0])
                says = f"{value:g} in {what}: {_numbers(off)}"
                yield _Explained("constant", says, "", {"value": value})
            else:
                yield _Explained("some rows", f"PyTorch's but in {what}: {_numbers(off)}")
            return
    if np.array_equal(np.sort(one, axis=None), np.sort(other, axis=None)):
        yield _Explained("another order", "PyTorch's entries in another order")
    else:
        yield from _drawn(one, other)


def _rows(one: np.ndarray, other: np.ndarray) -> Iterator[_Explained]:
    """Whole rows, or columns, in another order."""
    for axis, what in ((0, "rows"), (1, "columns")):
        if one.ndim < 2 or one.shape[axis] < 2 or one.size == one.shape[axis]:
            continue
        a, b = (np.moveaxis(each, axis, 0).reshape(each.shape[axis], -1) for each in (one, other))
        places = {row.tobytes(): i for i, row in enumerate(a)}
        order = [places.get(row.tobytes(), -1) for row in b]
        if len(places) == len(a) and sorted(order) == list(range(len(a))):
            says = f"PyTorch's with its {what} in the order {_numbers(np.array(order))}"
            yield _Explained("rows in another order", says)


def _drawn(one: np.ndarray, other: np.ndarray) -> Iterator[_Explained]:
    """Where two arrays are alike in nothing, and whether they are of one distribution.

    Not even up to an order, a factor and a number that is added: that is a cause, if no known one.
    """
    a, b = one.reshape(-1).astype(float), other.reshape(-1).astype(float)
    if a.size < _FEW or (a == b).any() or not (a.std() and b.std()):
        return
    if np.isin(np.abs(b), np.abs(a)).mean() > _IN_COMMON:
        return
    # rounded after all, perhaps, in an order that is not known
    if any(np.array_equal(rounded.kept(b, kind), b) for kind in ("float16", "bfloat16")):
        return
    correlation = float(np.corrcoef(a, b)[0, 1])
    if abs(correlation) > min(_SIGMAS / np.sqrt(a.size), _UNLIKE):
        return
    sizes = [float(np.sqrt(np.mean(each * each))) for each in (a, b)]
    a, b = np.sort(a), np.sort(b)
    least = _SAME_DRAW * b.std() / np.sqrt(a.size)
    if not all(_line_misses(each, b) > least for each in (a, -a[::-1])):
        return
    alike = _furthest(a, b) <= _SAME_DISTRIBUTION * np.sqrt(2 / a.size)
    how = "but as large" if alike else "and distributed otherwise"
    measured = (
        f"correlation {correlation:.2g} of {a.size} entries, root mean square {sizes[1]:.3g} for "
        f"{sizes[0]:.3g}"
    )
    says, values = f"unlike PyTorch's, {how}: perhaps drawn anew", {"correlation": correlation}
    yield _Explained("another start", says, "", values, 0.0, measured)


def _furthest(a: np.ndarray, b: np.ndarray) -> float:
    """Kolmogorov and Smirnov's distance of two sorted samples."""
    every = np.concatenate([a, b])
    parts = (np.searchsorted(each, every, side="right") / len(each) for each in (a, b))
    return float(np.abs(np.subtract(*parts)).max())


def _line_misses(a: np.ndarray, b: np.ndarray) -> float:
    """By how much a line through the points misses them, on average."""
    slope, added = np.polyfit(a, b, 1)
    return float(np.abs(slope * a + added - b).mean())


def _merged(one: np.ndarray, two: np.ndarray, summed: np.ndarray, left: np.ndarray) -> bool:
    """Whether of two vectors the sum stands in one, 0 in the other, wherever they are not right."""
    off = (summed != one) | (left != two)
    return one.ndim == 1 and bool(
        (summed[off] == one[off] + two[off]).all() and not left[off].any() and two[off].any()
    )


def _alike(array: np.ndarray) -> bool:
    return array.size == 0 or bool((array == array.flat[0]).all())


def _equal(one: np.ndarray, other: np.ndarray) -> float:
    return 0.0 if np.array_equal(one, other) else np.inf


def _content(array: np.ndarray) -> bytes:
    shape = ",".join(map(str, array.shape))
    # 0 and -0 are one
    return hashlib.blake2b(np.ascontiguousarray(array + 0.0).data, key=shape.encode()).digest()


def _numbers(found: np.ndarray) -> str:
    shown = ", ".join(str(i) for i in found[:8].tolist())
    return shown + (", ..." if len(found) > 8 else "")


def listed(names: list[str]) -> str:
    """Names in a sentence, not too many."""
    if len(names) > _LISTED:
        return f"{', '.join(names[:_LISTED])} and {len(names) - _LISTED} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _cause(
    one: _Explained, leaves: list[str], ratio: float, off: list[str], measured: list[str]
) -> Cause:
    if one.kind in ("swapped", "biases merged"):
        says = one.says
    else:
        of = listed([leaf + one.where for leaf in leaves])
        says = f"{of} {'is' if len(leaves) == 1 else 'are'} {one.says}"
    if one.measured:
        says += f" ({'; '.join(measured[:_LISTED])}{'; ...' if len(measured) > _LISTED else ''})"
    if left := [leaf for leaf in off if leaf not in leaves]:
        says += f"; {listed(left)} differ{'s' if len(left) == 1 else ''} otherwise"
    return Cause(one.kind, says, dict(one.values), ratio)
