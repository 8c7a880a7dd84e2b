"""Leaves of every dtype, in memory, saved and streamed: equal, rounding, a fault, another dtype."""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers.storing import bits, reloaded, write
from helpers.synthetic_traces import leaf_of, made, refused, with_field, with_leaf

from twinstep import Comparison, Trace, Verdict, compare
from twinstep.judge import tolerance
from twinstep.runs.verification import compare_stored
from twinstep.trace import dtypes

FLOATS = ("bfloat16", "float16", "complex64", "complex128")
INTEGERS = ("int8", "int32", "int64", "uint8", "bool")
STAGES = ("raw_grads", "grads", "opt_state", "params", "buffers", "activations")


@pytest.fixture(params=["ml_dtypes", "bits"], autouse=True)
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """bfloat16 with ml_dtypes, and without, as where PyTorch alone is installed."""
    if request.param == "bits":
        monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    dtypes.bfloat16.cache_clear()
    yield
    dtypes.bfloat16.cache_clear()


def narrowed(array: np.ndarray, kind: str) -> np.ndarray:
    """Numbers in a dtype; complex ones have an imaginary part too."""
    if kind == "bfloat16":
        high = np.asarray(array.astype(np.float32).view(np.uint32) >> np.uint32(16)).astype(
            np.uint16
        )
        return np.asarray(high).view(dtypes.bfloat16())
    if kind.startswith("complex"):
        both = np.empty(array.shape, kind)
        both.real, both.imag = array, np.roll(array, 1)
        return both
    return array.astype(kind)


def of(kind: str, stage: str) -> Trace:
    """A float32 run whose leaf `weight` of a stage is of the dtype."""
    trace = made(dtype="float32")
    rows = trace.params["weight"][0 if stage in ("params", "buffers") else 1 :]
    if stage == "grads":  # given in a dtype of its own
        return with_field(trace, stage, {**trace.grads, "weight": narrowed(rows, kind)})
    leaf = "weight.exp_avg" if stage == "opt_state" else "weight"
    return with_leaf(trace, stage, leaf, narrowed(rows, kind))


def changed(trace: Trace, stage: str, change: Callable[[np.ndarray], Any]) -> Trace:
    """With one entry of that leaf, at step 3, another."""
    leaf = "weight.exp_avg" if stage == "opt_state" else "weight"
    array = leaf_of(trace, stage, leaf).copy()
    row = array[2 + (stage in ("params", "buffers")), 1, 1:]
    change(row)
    return with_leaf(trace, stage, leaf, array)


def ulp(row: np.ndarray) -> None:
    """One number of the dtype further from 0; of a complex number its real part."""
    real = row.view(row.real.dtype)[:1] if row.dtype.kind == "c" else row
    as_bits = real.view(f"u{real.dtype.itemsize}")
    as_bits += as_bits.dtype.type(1)


def five(row: np.ndarray) -> None:
    """What no rounding makes of a number between 1 and 2."""
    row[...] = narrowed(np.full(1, 5.0), dtypes.name(row.dtype))


def one_more(row: np.ndarray) -> None:
    row[...] = ~row if row.dtype == bool else row + row.dtype.type(1)


class Way(NamedTuple):
    """How two traces are compared."""

    compare: Callable[[Trace, Trace, Path], Comparison]

    def __call__(self, one: Trace, other: Trace, folder: Path) -> Comparison:
        return self.compare(one, other, folder)


def _saved(one: Trace, other: Trace, folder: Path) -> Comparison:
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    return compare(reloaded(one, folder / "a"), reloaded(other, folder / "b"))


def _streamed(one: Trace, other: Trace, folder: Path) -> Comparison:
    whole = ((0, 4), (4, 6))
    return compare_stored(write(folder / "c", one), write(folder / "d", other, whole))


WAYS = {
    "memory": Way(lambda one, other, folder: compare(one, other)),
    "saved": Way(_saved),
    "streamed": Way(_streamed),
}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
each_stage = pytest.mark.parametrize("stage", STAGES)


@each_way
@each_stage
@pytest.mark.parametrize("kind", FLOATS)
def test_a_float_is_equal_rounding_or_a_fault(
    way: Way, stage: str, kind: str, tmp_path: Path
) -> None:
    trace = of(kind, stage)
    for name in ("equal", "ulp", "fault"):
        (tmp_path / name).mkdir()
    assert way(trace, trace, tmp_path / "equal").verdict is Verdict.EQUAL
    found = way(trace, changed(trace, stage, ulp), tmp_path / "ulp")
    assert found.verdict is Verdict.ROUNDING
    assert found.worst["free"][stage].ulps == 1
    found = way(trace, changed(trace, stage, five), tmp_path / "fault")
    assert found.verdict is Verdict.MISMATCH
    assert found.first is not None
    assert (found.first.step, found.first.stage, found.first.index) == (3, stage, (1, 1))
    assert found.to_dict()["first"]["candidate"] == ("(5+5j)" if "complex" in kind else 5.0)


@each_way
@each_stage
@pytest.mark.parametrize("kind", INTEGERS)
def test_integers_are_equal_or_not(way: Way, stage: str, kind: str, tmp_path: Path) -> None:
    trace = of(kind, stage)
    (tmp_path / "equal").mkdir()
    assert way(trace, trace, tmp_path / "equal").verdict is Verdict.EQUAL
    found = way(trace, changed(trace, stage, one_more), tmp_path)
    assert found.verdict is Verdict.MISMATCH
    assert str(found.first).startswith(f"step 3, {stage}, weight")


def test_integers_are_not_excused_by_measured_rounding() -> None:
    trace = made(dtype="float32", rounding_noise=1e-6)
    trace = with_leaf(trace, "params", "weight", np.arange(42).reshape(7, 3, 2))
    assert compare(trace, trace).verdict is Verdict.EQUAL
    assert compare(trace, changed(trace, "params", one_more)).verdict is Verdict.MISMATCH


@each_way
@each_stage
@pytest.mark.parametrize("kind", [*FLOATS, "int32"])
def test_another_dtype_on_one_side_is_named(
    way: Way, stage: str, kind: str, tmp_path: Path
) -> None:
    says = (stage, "weight", kind, "float32")
    refused(lambda: way(of("float32", stage), of(kind, stage), tmp_path), *says)


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("odd", [np.nan, np.inf, -0.0])
def test_odd_numbers_of_every_dtype(kind: str, odd: float) -> None:
    trace = of(kind, "params")
    there = changed(trace, "params", lambda row: row.__setitem__(..., narrowed(row_of(odd), kind)))
    assert compare(trace, there).verdict is Verdict.MISMATCH
    assert compare(there, there).verdict is (Verdict.EQUAL if odd == 0 else Verdict.INVALID)
    zero = changed(trace, "params", lambda row: row.__setitem__(..., narrowed(row_of(0.0), kind)))
    if odd == 0:
        assert compare(zero, there).verdict is Verdict.ROUNDING


def row_of(value: float) -> np.ndarray:
    return np.full(1, value)


def test_a_complex_leaf_is_judged_by_modulus() -> None:
    """A product errs by an eps of its modulus, also in a part that nearly cancels."""
    values = np.full((7, 2), 1e-9 + 1j, np.complex64)
    trace = with_leaf(made(dtype="float32"), "buffers", "b", values)
    other = with_leaf(trace, "buffers", "b", values + np.complex64(1e-7))
    found = compare(trace, other)
    assert found.verdict is Verdict.ROUNDING
    assert found.worst["free"]["buffers"].difference == pytest.approx(1e-7)


@pytest.mark.parametrize(("kind", "share"), [("bfloat16", 0.297), ("float16", 0.177)])
def test_no_number_of_steps_excuses_more_than_three_quarters_of_the_digits(
    kind: str, share: float
) -> None:
    bound = tolerance.plain_bound(np.ones(3), np.array([1, 100, 10**6]), kind)
    assert np.all(np.diff(bound) >= 0)
    assert bound[-1] == pytest.approx(share, rel=1e-2)


def test_the_loss_is_judged_by_the_coarsest_parameter() -> None:
    trace = of("bfloat16", "params")
    other = dataclasses.replace(trace, losses=trace.losses * np.float32(1.01))
    assert compare(trace, other).verdict is Verdict.ROUNDING
    plain = made(dtype="float32")
    assert compare(plain, with_field(plain, "losses", other.losses)).verdict is Verdict.MISMATCH


@pytest.mark.parametrize("kind", [*FLOATS, *INTEGERS])
def test_inputs_of_every_dtype_are_stored(kind: str, tmp_path: Path) -> None:
    trace = made()
    batch = narrowed(np.arange(6.0).reshape(2, 3), kind)
    inputs = {name: {int(n): batch for n in numbers} for name, numbers in trace.batch.items()}
    loaded = reloaded(with_field(trace, "inputs", inputs), tmp_path)
    assert loaded.inputs_of(0)["x"].dtype == batch.dtype


@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
@pytest.mark.parametrize("kind", FLOATS)
def test_bits_are_stored_whatever_they_say(kind: str, shape: tuple[int, ...]) -> None:
    """NaNs with a payload, infinities, -0, numbers below the smallest normal one."""
    like = narrowed(np.zeros(shape, np.float32), kind)
    random = np.random.default_rng(0).bytes(like.nbytes)
    array = np.frombuffer(random, like.dtype).reshape(shape)
    key, kept = dtypes.read(*dtypes.stored("params/w", array))
    assert (key, kept.dtype, kept.shape) == ("params/w", array.dtype, shape)
    assert kept.tobytes() == array.tobytes()
    assert bits(with_leaf(made(), "rng", "k", kept))["rng"][0][3] == array.tobytes()
