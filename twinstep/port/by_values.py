"""Leaves told by their initial values: tensors in another order of axes, parts, several, sums."""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from twinstep.port.pieces import Piece, used, volume, whole_piece
from twinstep.port.pools import Pool, mix
from twinstep.port.starts import Leaves, Search, Start, few, said
from twinstep.port.strides import pieces_of

VALUES, MOST = "values", "most values"
MAX_AXES = 5
_MANY = 4  # entries that a leaf has at least that most can tell
_SAMPLE = 64  # entries that are looked at before all
_NEAR = 1e-2
"""Of a value: what a start that was rounded otherwise may be off; by chance one entry of 100 is."""


def tell_whole(search: Search) -> None:
    """Leaves that are a tensor in another order of axes."""
    by_content: dict[str, dict[tuple[int, int], list[str]]] = {}
    for leaf, array in search.ours.values.items():
        if search.ours.alike(leaf):
            continue
        theirs, kind = search.kept(leaf), search.ours.kinds[leaf]
        if kind not in by_content:
            by_content[kind] = _by_content(theirs)
        names = by_content[kind].get(_content(array), [])
        fits = [piece for n in names for piece in _orders(array, theirs.values[n], n)]
        if len(fits) == 1 and not few(array):
            search.take(leaf, fits, VALUES)
        elif fits:
            search.ambiguous[leaf] = fits


def tell_parts(search: Search) -> None:
    """Leaves that are parts of tensors, or several, or sums of two."""
    open_ = [n for n in search.left() if n not in search.ambiguous]
    open_ = [n for n in open_ if not search.ours.alike(n) and not few(search.ours.values[n])]
    untouched = search.untouched()
    for kind in dict.fromkeys(search.ours.kinds[leaf] for leaf in open_):
        leaves = [leaf for leaf in open_ if search.ours.kinds[leaf] == kind]
        theirs = search.kept(leaves[0])
        names = [n for n in untouched if not theirs.alike(n) or theirs.values[n].size == 1]
        arrays = {name: theirs.values[name] for name in names}
        pool = _pool(arrays)
        for leaf in leaves:
            pieces = pieces_of(search.ours.values[leaf], pool)
            if pieces and _each_once(pieces, pool):
                search.take(leaf, pieces, VALUES)
        for terms in (theirs,) if theirs is search.theirs else (theirs, search.theirs):
            sums = dict(_sums({name: terms.values[name] for name in names}))
            summed = Start(sums, {}, dict.fromkeys(sums, "a sum")).kept_as(kind)
            of_sums = _pool(summed.values)
            for leaf in leaves if sums else ():
                array = search.ours.values[leaf]
                if leaf not in search.found and (pieces := pieces_of(array, of_sums)):
                    search.take(leaf, [p for piece in pieces for p in _terms(piece)], VALUES)
        for leaf in leaves:
            if leaf not in search.found and (names := pool.holding(search.ours.values[leaf])):
                search.holders[leaf] = [f"a part of {name}" for name in names]


def tell_most(search: Search) -> None:
    """Leaves that begin as one tensor in more than half of its entries: their start is not its."""
    untouched = search.untouched()
    for leaf in search.left():
        array = search.ours.values[leaf]
        if array.size < _MANY or few(array) or leaf in search.candidates:
            continue
        theirs = search.kept(leaf).values
        names = [name for name in untouched if theirs[name].size == array.size]
        fits = [
            piece
            for name in names
            for axes in orders_of(theirs[name].shape)
            if _most(theirs[name].transpose(axes), array)
            for piece in [whole_piece(name, theirs[name].shape, array.shape, axes)]
        ]
        if len(fits) == 1:
            search.take(leaf, fits, MOST)
        elif fits:
            search.candidates[leaf] = [said(piece) for piece in fits]


def _most(theirs: np.ndarray, ours: np.ndarray) -> bool:
    """Whether more than half agree, of all and of those that are not the commonest number."""
    places = np.unique(np.linspace(0, ours.size - 1, min(_SAMPLE, ours.size)).astype(int))
    one, other = theirs[np.unravel_index(places, theirs.shape)], ours.reshape(-1)[places]
    if np.count_nonzero(_near(one, other)) * 2 <= len(places):
        return False
    near = _near(theirs.reshape(ours.shape), ours)
    numbers, counts = np.unique(ours, return_counts=True)
    near_of_rare = near[ours != numbers[np.argmax(counts)]]
    enough = bool(np.count_nonzero(near_of_rare) >= _MANY - 1)
    return enough and all(np.count_nonzero(of) * 2 > of.size for of in (near, near_of_rare))


def _near(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(one - other) <= _NEAR * np.abs(one)


def tell_single(search: Search, *, drawn: bool = False) -> None:
    """Leaves of one number that stands once on either side, if no gradients speak of them.

    drawn: only such as no person writes down, whatever their gradients
    """
    single = [n for n in search.left() if search.ours.values[n].size == 1]
    single = [n for n in single if n not in search.candidates]
    if drawn:
        single = [n for n in single if _drawn(search.ours.values[n])]
    else:
        single = [n for n in single if n not in search.ours.grads]
    numbers = [search.ours.values[leaf].reshape(()).item() for leaf in single]
    untouched = search.untouched() if single else []
    pools = {
        kind: _pool({n: search.theirs.kept_as(kind).values[n] for n in untouched})
        for kind in {search.ours.kinds[leaf] for leaf in single}
    }
    for leaf, number in zip(single, numbers, strict=True):
        pieces = pieces_of(search.ours.values[leaf], pools[search.ours.kinds[leaf]])
        if pieces and numbers.count(number) == 1:
            search.take(leaf, pieces, VALUES)


def _drawn(array: np.ndarray) -> bool:
    """Whether a number is none of four digits, or nothing that float32 tells from one."""
    number = array.reshape(()).item()
    if isinstance(number, complex):
        return True
    return bool(np.float32(float(f"{number:.4g}")) != np.float32(number))


def tell_empty(search: Search) -> None:
    """Leaves without entries, which may be any tensor without: no two of these differ."""
    free = [name for name in search.untouched() if not search.theirs.values[name].size]
    for leaf in search.left():
        array = search.ours.values[leaf]
        fits = [n for n in free if sorted(search.theirs.values[n].shape) == sorted(array.shape)]
        if not array.size and fits:
            shape = search.theirs.values[fits[0]].shape
            piece = whole_piece(fits[0], shape, array.shape, range(len(shape)))
            search.take(leaf, [piece], VALUES)
            free.remove(fits[0])


def orders_of(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The orders of a tensor's axes, as it is first; of more than MAX_AXES this alone.

    Where axes of one entry stand makes no other order.
    """
    axes = tuple(range(len(shape)))
    if len(shape) > MAX_AXES:
        return [axes]
    found: dict[tuple[int, ...], tuple[int, ...]] = {}
    for order in itertools.permutations(axes):
        found.setdefault(tuple(axis for axis in order if shape[axis] > 1), order)
    return list(found.values())


def _by_content(theirs: Start) -> dict[tuple[int, int], list[str]]:
    found: dict[tuple[int, int], list[str]] = {}
    for name, array in theirs.values.items():
        if not theirs.alike(name):
            found.setdefault(_content(array), []).append(name)
    return found


def _content(array: np.ndarray) -> tuple[int, int]:
    """A number that is the same for the same entries in any order."""
    return array.size, int(mix(array).sum(dtype=np.uint64))


def _orders(ours: np.ndarray, theirs: np.ndarray, name: str) -> list[Piece]:
    """The orders of axes in which a tensor is a leaf; else the one piece of it that is."""
    fits: list[Piece] = []
    places = np.unique(np.linspace(0, ours.size - 1, min(_SAMPLE, ours.size)).astype(int))
    sample = ours[np.unravel_index(places, ours.shape)]
    for axes in orders_of(theirs.shape):
        turned = theirs.transpose(axes)
        if not np.array_equal(turned[np.unravel_index(places, turned.shape)], sample):
            continue
        if np.array_equal(turned.reshape(ours.shape), ours):
            fits.append(whole_piece(name, theirs.shape, ours.shape, axes))
    if fits:
        return fits
    pieces = pieces_of(ours, Pool({name: theirs.shape}, {name: theirs}))
    return pieces if pieces and len(pieces) == 1 else []


def _pool(arrays: Leaves) -> Pool:
    return Pool({name: array.shape for name, array in arrays.items()}, arrays)


def _sums(arrays: Leaves) -> Iterator[tuple[str, np.ndarray]]:
    """Of one layer's vectors of one size each two, added."""
    vectors = [(name, array) for name, array in arrays.items() if array.ndim == 1]
    for (one, a), (other, b) in itertools.combinations(vectors, 2):
        if a.shape == b.shape and one.rpartition(".")[0] == other.rpartition(".")[0]:
            yield f"{one} + {other}", a + b


def _each_once(pieces: list[Piece], pool: Pool) -> bool:
    """Whether no entry is in two of them."""
    held = used({"leaf": pieces}, {piece.of: pool.shapes[piece.of] for piece in pieces})
    return sum(int(of_one.sum()) for of_one in held.values()) == sum(volume(p.at) for p in pieces)


def _terms(piece: Piece) -> list[Piece]:
    return [dataclasses.replace(piece, of=of) for of in piece.of.split(" + ")]
