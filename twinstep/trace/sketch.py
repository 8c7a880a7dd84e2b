"""A few numbers of each row of a leaf, to compare runs by where leaves are too large to be kept.

Of a row: its norm, its largest entry, sums of its entries under random signs (projections), and a
checksum of its bits. Projections are linear: that of a difference is the difference of two. So what
rounding does to them is measured on perturbed runs, as it is on leaves. The signs follow from an
entry's place alone, and all is summed in one order: a row has the same sketch on every machine.

A row is gone through in blocks, and takes no memory of its size.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from twinstep.errors import InputError, unknown
from twinstep.trace import dtypes
from twinstep.trace.fingerprint import PLACE, fingerprint, mixed
from twinstep.trace.ledger import Trace
from twinstep.trace.stages import LEAVES

NORM, MAXIMUM, CHECKSUM = 0, 1, -1
"""Columns of a sketch; between them stand the projections."""
LINEAR = slice(2, -1)
"""Its projections."""
MAX_PROJECTIONS = 32
"""As many as a word has bits."""
_BLOCK = 2**15
_SIGN = np.uint64(2**63)


def sketched(
    trace: Trace,
    stages: Sequence[str] = ("raw_grads", "grads", "opt_state", "params", "buffers"),
    projections: int = 4,
) -> dict[str, np.ndarray]:
    """Sketches every row of every leaf; of a lazy trace a leaf at a time.

    Args:
        trace: Any, `lazy_trace(folder)` too; or a piece of one, as each row is sketched by itself.
        stages: Which, by their names.
        projections: How many random sums, up to 32.

    Returns:
        {"stage/leaf": (rows, 3 + projections)} float64, as `sketch` gives it.

    Raises:
        InputError: For a stage that is none, or another number of projections.

    Example:
        >>> import twinstep
        >>> from twinstep.trace.sketch import LINEAR, sketched
        >>> trace = twinstep.run(twinstep.examples()["zero_grad"](steps=2), framework="torch")
        >>> sketches = sketched(trace, ["params"])
        >>> sketches["params/2.weight"].shape, sketches["params/2.weight"][:, LINEAR].shape
        ((3, 7), (3, 4))
    """
    by_name = {stage.name: stage for stage in LEAVES}
    found: dict[str, np.ndarray] = {}
    for name in stages:
        if name not in by_name:
            raise InputError(unknown("stage", name, by_name))
        for leaf in trace.leaves(by_name[name]):
            raw = f"raw_grads/{leaf}"
            once = name == "grads" and raw in found and trace.held_once(leaf)
            found[f"{name}/{leaf}"] = (
                found[raw] if once else sketch(trace.leaves(by_name[name])[leaf], projections)
            )
    return found


def sketch(array: np.ndarray, projections: int = 4) -> np.ndarray:
    """Sketches each row of a leaf.

    One wrong entry of n that each round by about r is seen by 4 projections from some 4.3 sqrt(n) r
    on: of n = 64 x 64, 320 x 320 and 1280 x 320 from 280, 1300 and 2900 r, where no honest pair of
    some hundred differs as much and 99 of 100 such faults do. A transpose, of which norm and
    largest entry are the same, differs as if every entry were wrong. Not seen is what is smaller,
    and what projections map to 0: two entries that are off by as much cancel in all of 4 in one
    case of 16.

    Args:
        array: (rows, ...) of any dtype of a trace; of a complex number each part is an entry.
        projections: How many random sums, up to 32.

    Returns:
        (rows, 3 + projections) float64: the norm, the largest size of an entry, the projections,
        and the fingerprint of the bits, which tells whether two rows have the same.

    Raises:
        InputError: For another number of projections.

    Example:
        >>> import numpy as np
        >>> from twinstep.trace.sketch import CHECKSUM, LINEAR, NORM, sketch
        >>> (one,) = sketch(np.array([[3.0, 4.0, 0.0]]))
        >>> (other,) = sketch(np.array([[4.0, 3.0, 0.0]]))
        >>> one[NORM], one[NORM] == other[NORM], one[CHECKSUM] == other[CHECKSUM]
        (np.float64(5.0), np.True_, np.False_)
        >>> (difference,) = sketch(np.array([[1.0, -1.0, 0.0]]))
        >>> bool((other[LINEAR] - one[LINEAR] == difference[LINEAR]).all())
        True
    """
    if type(projections) is not int or not 1 <= projections <= MAX_PROJECTIONS:
        raise InputError(f"projections is {projections!r}, expected 1 to {MAX_PROJECTIONS}")
    rows = np.ascontiguousarray(array).reshape(len(array), math.prod(array.shape[1:]))
    if rows.dtype.kind == "c":
        rows = rows.view(rows.real.dtype)
    with np.errstate(invalid="ignore", over="ignore"):  # a run that has diverged
        found = [_of_row(row, projections) for row in rows]
    return np.array(found).reshape(-1, 3 + projections)


def signs(first: int, count: int, projections: int = 4) -> np.ndarray:
    """The signs that entries are summed with.

    Args:
        first: How many entries of the row stand before them.
        count: How many they are.
        projections: How many sums.

    Returns:
        (projections, count) int8 of 1 and -1.
    """
    bits = _words(first, count) >> np.arange(projections, dtype=np.uint32)[:, None]
    return 1 - 2 * (bits & np.uint32(1)).astype(np.int8)


def _words(first: int, count: int) -> np.ndarray:
    """32 random bits for each place, (count,); of places past 2**32 others."""
    key = (first + (first >> 32) * PLACE) % 2**32
    words: np.ndarray = mixed(np.arange(count, dtype=np.uint32) + np.uint32(key))
    return words


def _of_row(row: np.ndarray, projections: int) -> np.ndarray:
    """The sketch of a row, (n,)."""
    found = np.zeros(3 + projections)
    if not row.size:
        return found
    found[MAXIMUM] = np.max([np.max(np.abs(_numbers(block))) for _, block in _blocks(row)])
    # by a power of two, which rounds nothing: squares of large numbers are none
    exponent = int(np.frexp(found[MAXIMUM])[1])
    words_an_entry = row.dtype.itemsize // 4 if row.dtype.kind == "f" else 0
    squares, checksum, sums = 0.0, 0, found[LINEAR]
    for first, block in _blocks(row):
        numbers = _numbers(block)
        squares += _sum(np.square(np.ldexp(numbers, -exponent)))
        checksum += fingerprint(block, first * max(1, words_an_entry) % 2**32)
        words = _words(first, len(block)).astype(np.uint64)
        for i in range(projections):
            negative = (words << np.uint64(63 - i)) & _SIGN
            sums[i] += _sum((numbers.view(np.uint64) ^ negative).view(np.float64))
    found[NORM] = np.ldexp(np.sqrt(squares), exponent)
    found[CHECKSUM] = checksum % 2**32
    return found


def _blocks(row: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Its pieces, each with the number of entries before it."""
    for first in range(0, len(row), _BLOCK):
        yield first, row[first : first + _BLOCK]


def _numbers(block: np.ndarray) -> np.ndarray:
    """Its entries in float64."""
    return dtypes.numbers(block).astype(np.float64)


def _sum(numbers: np.ndarray) -> float:
    """Their sum, halves onto halves: NumPy's own order is another on another processor.

    numbers: is overwritten
    """
    while (count := len(numbers)) > 1:
        half = (count + 1) // 2
        numbers[: count - half] += numbers[half:]
        numbers = numbers[:half]
    return float(numbers[0])
