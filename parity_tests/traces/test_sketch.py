"""A leaf by a few numbers a row: what they are, what they see, and what they cannot see."""

import dataclasses
import doctest
import math
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.storing import write
from helpers.synthetic_traces import full, made, refused

from twinstep import lazy_trace
from twinstep.trace import dtypes
from twinstep.trace import sketch as module
from twinstep.trace.fingerprint import fingerprint
from twinstep.trace.leaves import ReadLeaves
from twinstep.trace.sketch import CHECKSUM, LINEAR, MAXIMUM, NORM, signs, sketch, sketched

EPS = float(np.finfo("float64").eps)


def drawn(*shape: int, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# What it is


@pytest.mark.parametrize("shape", [(2, 7), (2, 1), (3, 40, 5), (2, 300, 301), (1, 2**15), (4,)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "bool"])
def test_it_is_what_it_says(shape: tuple[int, ...], dtype: str) -> None:
    array = (3 * drawn(*shape)).astype(dtype)
    found = sketch(array, 3)
    assert found.shape == (shape[0], 6)
    assert found.dtype == np.float64
    for row, numbers in zip(found, array, strict=True):
        entries = numbers.reshape(-1).astype("float64")
        # a sum by halves of n numbers is off by at most log2(n) eps of that of their sizes
        rounding = 20 * EPS * np.abs(entries).sum()
        for i, sign in enumerate(signs(0, len(entries), 3)):
            assert abs(row[LINEAR][i] - math.fsum(sign * entries)) <= rounding
        assert row[NORM] == pytest.approx(np.linalg.norm(entries), rel=20 * EPS)
        assert row[MAXIMUM] == np.abs(entries).max()
        assert row[CHECKSUM] == fingerprint(numbers), "bits, and where they stand"


def test_it_is_the_same_on_every_machine() -> None:
    """To the bit: nothing in it is left to a processor's own order of sums."""
    assert signs(0, 16, 2).tolist() == SIGNS
    array = (np.arange(1, 50_001, dtype=np.float32) / 7).reshape(1, 500, 100)
    assert [value.hex() for value in sketch(array)[0].tolist()] == BITS


def test_a_row_is_sketched_by_itself_and_a_projection_too() -> None:
    array = drawn(5, 33, 9)
    whole = sketch(array)
    for i in range(5):
        assert sketch(array[i : i + 1]).tobytes() == whole[i].tobytes()
    assert np.array_equal(sketch(array, 8)[:, 2:6], whole[:, LINEAR]), "more leave these"


def test_other_dtypes_and_numbers() -> None:
    real = drawn(2, 6)
    half = (real.view(np.uint32) >> 16).astype(np.uint16).view(dtypes.bfloat16())
    assert np.array_equal(sketch(half)[:, :CHECKSUM], sketch(dtypes.numbers(half))[:, :CHECKSUM])
    pairs = real.reshape(2, 3, 2)
    assert np.array_equal(sketch(pairs.copy().view("complex64")), sketch(pairs))
    huge = sketch(np.array([[3e300, 4e300]]))[0]
    assert huge[NORM] == pytest.approx(5e300)
    assert sketch(np.zeros((2, 0))).tolist() == [[0.0] * 7] * 2
    assert sketch(np.zeros((0, 3))).shape == (0, 7)
    assert sketch(np.zeros((1, 3)))[0, :CHECKSUM].tolist() == [0.0] * 6
    for odd in (np.nan, np.inf):
        row = sketch(np.array([[1.0, odd, 2.0]]))[0]
        assert not np.isfinite(row[NORM])
        assert not np.isfinite(row[LINEAR]).any()
        assert np.isnan(row[MAXIMUM]) == np.isnan(odd)


def test_a_difference_is_the_difference_of_projections() -> None:
    """As a perturbed rerun needs it; in float64, in which that of float32 numbers is exact here."""
    one = drawn(3, 200, 30)
    other = one + np.float32(1e-3) * drawn(3, 200, 30, seed=1)
    between = sketch(one)[:, LINEAR] - sketch(other)[:, LINEAR]
    direct = sketch(one.astype("float64") - other.astype("float64"))[:, LINEAR]
    assert np.abs(between - direct).max() <= 20 * EPS * np.abs(one).sum(axis=(1, 2)).max()
    assert np.abs(direct).min() > 1e6 * np.abs(between - direct).max(), "no small matter"


def test_the_signs_are_fair() -> None:
    """As many of each, in every projection; none follows another, or those a few places on."""
    count = 2**20
    drawn_signs = signs(0, count, 32).astype("float32")
    limit = 5 / math.sqrt(count)  # standard deviations of what independent signs do
    assert np.abs(drawn_signs.mean(axis=1)).max() < limit
    together = drawn_signs @ drawn_signs.T / count
    assert np.abs(together - np.eye(32)).max() < limit
    for apart in (1, 2, 3, 64, 320, 1280):
        assert abs(np.mean(drawn_signs[0, apart:] * drawn_signs[0, :-apart])) < limit
    assert np.array_equal(signs(1000, 50), signs(0, 1050)[:, 1000:]), "by place alone"
    assert not np.array_equal(signs(2**32, 1000), signs(0, 1000)), "nor do they begin again"


# What it sees


def smallest_seen(*shape: int, seed: int = 0) -> float:
    """From how many r on one wrong entry is seen, in 99 of 100 cases, where each rounds by about r.

    Seen is what is above all of 400 honest pairs.
    """
    draw, size = np.random.default_rng(seed), math.prod(shape)
    of_entry = signs(0, size).astype("float32")
    honest = np.abs(of_entry @ draw.standard_normal((size, 400), dtype="float32")).max()
    rounding = of_entry @ draw.standard_normal((size, 1000), dtype="float32")
    at = of_entry[:, draw.integers(size, size=1000)]
    faults = np.arange(0, 10 * math.sqrt(size), math.sqrt(size) / 50)
    seen = [np.mean(np.abs(rounding + fault * at).max(axis=0) > honest) for fault in faults]
    return float(faults[np.argmax(np.array(seen) >= 0.99)])


@pytest.mark.parametrize("shape", [(16, 16), (64, 64), (160, 100)])
def test_one_wrong_entry_is_seen_from_some_roots_on(shape: tuple[int, ...]) -> None:
    """What 4 sums of n roundings reach by chance, 3.5 to 4 deviations, and half a one above."""
    assert 3.5 < smallest_seen(*shape) / math.sqrt(math.prod(shape)) < 5


def test_a_transpose_is_seen_where_norm_and_maximum_are_blind() -> None:
    weight = drawn(1, 64, 64)
    one, other = sketch(weight)[0], sketch(weight.transpose(0, 2, 1))[0]
    assert one[NORM] == pytest.approx(other[NORM], rel=20 * EPS)
    assert one[MAXIMUM] == other[MAXIMUM]
    assert np.abs(one[LINEAR] - other[LINEAR]).max() > 1e3 * 64 * float(np.finfo("float32").eps)


def test_the_checksum_sees_a_bit() -> None:
    one = drawn(1, 300, 200)
    other = one.copy()
    other[0, -1, -1] = np.nextafter(other[0, -1, -1], np.float32(9))
    assert sketch(one)[0, CHECKSUM] != sketch(other)[0, CHECKSUM]


# What it cannot see


def test_a_smaller_fault_is_lost_in_rounding() -> None:
    """Of half the size fewer than every other is above what honest pairs do."""
    draw, size = np.random.default_rng(0), 64 * 64
    of_entry = signs(0, size).astype("float32")
    honest = np.abs(of_entry @ draw.standard_normal((size, 400), dtype="float32")).max()
    rounding = of_entry @ draw.standard_normal((size, 1000), dtype="float32")
    at = of_entry[:, draw.integers(size, size=1000)]
    assert np.mean(np.abs(rounding + smallest_seen(64, 64) / 2 * at).max(axis=0) > honest) < 0.5


def test_two_faults_may_cancel_in_every_projection() -> None:
    """In one case of 16; more projections take it to one in 2**projections."""
    of_entry = signs(0, 400)
    agree = (of_entry[:, :, None] == of_entry[:, None, :]).all(axis=0)
    pairs = np.argwhere(np.triu(agree, 1))
    assert 1 / 20 < len(pairs) / (400 * 399 / 2) < 1 / 13
    i, j = pairs[0]
    one = drawn(1, 400, dtype="float64").round(3) * 1024  # whole, so that no sum rounds
    one = one.round()
    other = one.copy()
    other[0, i] += 512
    other[0, j] -= 512
    assert np.array_equal(sketch(one)[:, LINEAR], sketch(other)[:, LINEAR])
    assert not np.array_equal(sketch(one, 32)[:, LINEAR], sketch(other, 32)[:, LINEAR])
    assert sketch(one)[0, CHECKSUM] != sketch(other)[0, CHECKSUM], "bits are not the same"


# Of a trace


def test_of_a_trace(tmp_path: Path) -> None:
    trace = full()
    found = sketched(trace)
    assert found["params/weight"].shape == (7, 7)
    assert found["grads/bias"].tobytes() == sketch(trace.grads["bias"]).tobytes()
    assert {key.partition("/")[0] for key in found} == {
        "raw_grads", "grads", "opt_state", "params", "buffers",
    }  # fmt: skip
    assert [*sketched(trace, ["update"], 2)] == ["update/optimizer"]
    lazy = sketched(lazy_trace(write(tmp_path / "trace", trace)))
    assert lazy.keys() == found.keys()
    assert all(lazy[key].tobytes() == found[key].tobytes() for key in found)


def test_of_pieces_it_is_the_pieces_of_it() -> None:
    whole = sketched(made(), ["raw_grads"])
    pieces = [sketched(made().slice(low, low + 2), ["raw_grads"]) for low in (0, 2, 4)]
    for key, rows in whole.items():
        assert np.concatenate([piece[key] for piece in pieces]).tobytes() == rows.tobytes()


def test_gradients_that_are_held_once_are_read_once(tmp_path: Path) -> None:
    lazy = lazy_trace(write(tmp_path / "trace", made()))
    read: list[str] = []

    def counted(name: str) -> np.ndarray:
        read.append(name)
        return lazy.raw_grads[name]

    raw = ReadLeaves({name: partial(counted, name) for name in lazy.raw_grads})
    grads = ReadLeaves({name: partial(counted, name) for name in raw}, [*raw], raw)
    trace = dataclasses.replace(lazy, raw_grads=raw, grads=grads)
    found = sketched(trace, ["raw_grads", "grads"])
    assert read == [*made().grads]
    assert found["grads/weight"] is found["raw_grads/weight"]
    assert [*sketched(trace, ["grads"])] == [f"grads/{name}" for name in made().grads]


def test_it_takes_no_memory_of_a_rows_size() -> None:
    row = drawn(1, 5_000_000)
    tracemalloc.start()
    try:
        sketch(row)
        assert tracemalloc.get_traced_memory()[1] < 0.1 * row.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("projections", [0, 33, 2.0, True, None])
def test_bad_input_is_refused(projections: Any) -> None:
    refused(lambda: sketch(drawn(1, 2), projections), "projections is", "expected 1 to 32")
    refused(lambda: sketched(made(), ["grad"]), "unknown stage 'grad': did you mean", "grads")


def test_its_examples_run() -> None:
    found = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert (found.failed, found.attempted > 5) == (0, True)


SIGNS = [
    [int(f"{s}1") for s in "++---+-++---+-+-"],
    [int(f"{s}1") for s in "+++++-----+-++--"],
]
BITS = [
    "0x1.c245172b37eaap+19",
    "0x1.be6db60000000p+12",
    "0x1.20d72da75c040p+20",
    "-0x1.fea8eba954300p+18",
    "-0x1.80eee271d8000p+11",
    "-0x1.135d9ad225580p+19",
    "0x1.c3a9e31000000p+28",
]
