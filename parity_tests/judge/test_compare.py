"""The judge is held to traces whose answer is known: each verdict, each refusal, each figure.

The traces are made by hand, so that a planted fault is all that is in them. What must be found
stands beside what must be let pass.
"""

import math
from pathlib import Path

import numpy as np
import pytest
from helpers.judging import (
    EPS,
    Mode,
    each_free_mode,
    each_leaf,
    each_mode,
    perturbed,
    ulps_off,
    where,
    without,
    worst,
)
from helpers.storing import write_pieces
from helpers.synthetic_traces import (
    LEAVES,
    STEPS,
    Change,
    entry,
    leaf_by,
    leaf_of,
    made,
    refused,
    with_fault,
    with_leaf,
)

from twinstep import Trace, Verdict, compare
from twinstep.judge.judge import Judge
from twinstep.runs.verification import compare_stored

# ----------------------------------------------------------------------------------------- verdicts


@each_mode
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_trace_is_equal_to_itself(judge: Mode, dtype: str) -> None:
    trace = judge.trace(dtype)
    comparison = judge(trace, trace)
    assert (comparison.verdict, comparison.first) == (Verdict.EQUAL, None)
    assert comparison.verdict.same
    assert comparison.steps == STEPS
    assert [comparison.smallest_allowance(mode) for mode in comparison.worst] == [0.0]


@each_mode
@each_leaf
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_one_ulp_is_rounding_and_counted(judge: Mode, stage: str, leaf: str, dtype: str) -> None:
    trace = judge.trace(dtype)
    value = entry(trace, stage, leaf, 3)
    comparison = judge(trace, with_fault(trace, stage, leaf, 3, perturbed(value, 1, dtype)))
    assert (comparison.verdict, comparison.first) == (Verdict.ROUNDING, None)
    found = worst(comparison, stage)
    assert where(found) == (3, stage, leaf)
    assert found.ulps == 1
    assert (found.reference, found.candidate) == (value, perturbed(value, 1, dtype))
    assert found.difference == abs(value - perturbed(value, 1, dtype))
    assert found.index == tuple(n - 1 for n in leaf_of(trace, stage, leaf).shape[1:])


@each_mode
@each_leaf
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, 1e300, 3.0])
def test_a_fault_on_one_side_is_a_mismatch(
    judge: Mode, stage: str, leaf: str, value: float
) -> None:
    trace = judge.trace()
    faulty = with_fault(trace, stage, leaf, 3, value)
    for comparison in (judge(trace, faulty), judge(faulty, trace)):
        assert comparison.verdict is Verdict.MISMATCH
        assert not comparison.verdict.same
        assert where(comparison.first) == (3, stage, leaf)
        assert f"step 3, {stage}, {leaf}" in comparison.reason
        assert where(worst(comparison, stage)) == (3, stage, leaf)


@each_mode
@each_leaf
@pytest.mark.parametrize(("one", "other"), [(np.nan, np.nan), (np.inf, np.inf), (np.nan, -np.inf)])
def test_no_number_on_both_sides_proves_nothing(
    judge: Mode, stage: str, leaf: str, one: float, other: float
) -> None:
    trace = judge.trace()
    pair = with_fault(trace, stage, leaf, 3, one), with_fault(trace, stage, leaf, 3, other)
    comparison = judge(*pair)
    assert comparison.verdict is Verdict.INVALID
    assert where(comparison.first) == (3, stage, leaf)
    for text in ("step 3", stage, leaf, str(one), str(other)):
        assert text in comparison.reason


@each_mode
def test_no_number_on_one_side_is_not_hidden_by_one_on_both(judge: Mode) -> None:
    trace = judge.trace()
    bias = trace.raw_grads["bias"].copy()
    bias[2, 0] = np.nan
    both = with_leaf(trace, "raw_grads", "bias", bias)
    comparison = judge(both, with_fault(both, "raw_grads", "bias", 3, np.nan))
    assert comparison.verdict is Verdict.MISMATCH
    assert comparison.first is not None
    assert comparison.first.index == (2,)


@each_mode
@each_leaf
def test_a_zero_with_a_sign_is_rounding(judge: Mode, stage: str, leaf: str) -> None:
    trace = with_fault(judge.trace(), stage, leaf, 3, 0.0)
    comparison = judge(trace, with_fault(trace, stage, leaf, 3, -0.0))
    assert (comparison.verdict, comparison.first) == (Verdict.ROUNDING, None)
    assert worst(comparison, stage).ulps == 0


@each_mode
@pytest.mark.parametrize("leaf", LEAVES["batch"])
def test_another_batch_is_a_mismatch(judge: Mode, leaf: str) -> None:
    trace = judge.trace()
    flip = leaf_by("batch", leaf, lambda marks: marks ^ (np.arange(STEPS) == 1).astype("uint32"))
    comparison = judge(trace, flip(trace))
    assert comparison.verdict is Verdict.MISMATCH
    assert where(comparison.first) == (2, "batch", leaf)


@each_free_mode
@pytest.mark.parametrize("leaf", ["weight", "bias", "gain"])
def test_runs_start_from_the_very_same_parameters(judge: Mode, leaf: str) -> None:
    trace = judge.trace()
    comparison = compare(trace, ulps_off(trace, "params", leaf, 0))
    assert comparison.verdict is Verdict.MISMATCH
    assert where(comparison.first) == (0, "params", leaf)
    assert comparison.worst["free"]["params"].allowed == 0
    assert comparison.smallest_allowance("free") == math.inf, "no allowance lets it pass"
    zero = with_fault(trace, "params", leaf, 0, 0.0)
    signed = with_fault(trace, "params", leaf, 0, -0.0)
    assert compare(zero, zero).verdict is Verdict.EQUAL
    assert compare(zero, signed).verdict is Verdict.ROUNDING
    nan = with_fault(trace, "params", leaf, 0, np.nan)
    assert compare(nan, nan).verdict is Verdict.INVALID
    assert compare(trace, nan).verdict is Verdict.MISMATCH


def _still(trace: Trace, stage: str, value: float | None) -> Trace:
    """Every leaf of a stage the same at every step: `value`, or what it is at the first."""
    for leaf in LEAVES[stage]:
        array = leaf_of(trace, stage, leaf)
        still = np.repeat(array[:1], len(array), axis=0) if value is None else array * 0 + value
        trace = with_leaf(trace, stage, leaf, still)
    return trace


NOTHING: dict[str, tuple[Change, str]] = {
    "zero gradients": (lambda t: _still(t, "raw_grads", 0), "gradients"),
    "parameters still": (lambda t: _still(t, "params", None), "parameter"),
    "loss still": (lambda t: _still(t, "loss", 1), "loss"),
}


@each_mode
@pytest.mark.parametrize(("change", "says"), NOTHING.values(), ids=NOTHING.keys())
def test_where_nothing_happens_nothing_is_proved(judge: Mode, change: Change, says: str) -> None:
    trace = change(judge.trace())
    comparison = judge(trace, trace)
    assert comparison.verdict is Verdict.INVALID
    assert says in comparison.reason
    # a fault is a fault all the same
    assert judge(trace, with_fault(trace, "raw_grads", "gain", 3, 2)).verdict is Verdict.MISMATCH
    # a gradient that is not 0 all the time, a single update: something happened
    moved = with_fault(trace, "raw_grads", "gain", STEPS, 2)
    once = moved if says == "gradients" else judge.trace()
    assert judge(once, once).verdict is Verdict.EQUAL


def test_it_takes_two_runs_in_which_something_happens() -> None:
    """Which trace is named first does not matter."""
    gain = perturbed(entry(made(), "params", "gain", 0), 1)
    for stage, start, value in (
        ("loss", 1, 1 + EPS),
        ("raw_grads", 0, 1e-300),
        ("params", None, gain),
    ):
        still = _still(made(), stage, start)
        moves = with_fault(still, stage, "loss" if stage == "loss" else "gain", 3, value)
        assert compare(still, moves).verdict is Verdict.INVALID
        assert compare(moves, still).verdict is Verdict.INVALID
        assert compare(moves, moves).verdict is Verdict.EQUAL


def test_one_step_has_no_loss_that_could_move() -> None:
    assert compare(made(1), made(1)).verdict is Verdict.EQUAL
    still = _still(made(2), "loss", 1)
    assert compare(still, still).verdict is Verdict.INVALID


def test_no_steps_prove_nothing() -> None:
    for found in (compare(made(0), made(0)), Judge("float64").comparison()):
        assert (found.verdict, found.reason) == (Verdict.INVALID, "no steps")


def test_empty_tensors_prove_nothing() -> None:
    nothing = made()
    for stage in ("raw_grads", "grads", "opt_state", "params"):
        nothing = without(stage, *(leaf for leaf in LEAVES[stage] if "none" not in leaf))(nothing)
    assert compare(nothing, nothing).verdict is Verdict.INVALID


ULPS: list[tuple[str, float, float, float]] = [
    ("float64", 1.0, 1.0 + EPS, 1),
    ("float64", 1.0, 1.0 - EPS / 2, 1),  # below 1 they lie closer
    ("float64", 5e-324, -5e-324, 2),  # 0 lies between
    ("float64", 0.0, -0.0, 0),
    ("float32", 1.0, 2.0, 2**23),
    ("float32", -1.0, -2.0, 2**23),
    ("float64", 1.0, np.inf, math.inf),
    ("float64", np.nan, np.nan, math.inf),
]


@pytest.mark.parametrize(("dtype", "one", "other", "ulps"), ULPS)
def test_ulps_count_the_numbers_between(dtype: str, one: float, other: float, ulps: float) -> None:
    # no other entry is off, so that the loss is the worst even if its difference is none
    pair = [with_fault(made(dtype=dtype), "loss", "loss", 1, value) for value in (one, other)]
    assert worst(compare(*pair), "loss").ulps == ulps


# -------------------------------------------------------------------------------------- first steps


@pytest.mark.parametrize("steps", [-1, 0, 7, 10**9])
def test_steps_that_a_trace_lacks_are_refused(steps: int) -> None:
    refused(lambda: compare(made(), made(), steps=steps), f"steps is {steps}", "6 and 6")
    refused(lambda: compare(made(), made().slice(0, 5), steps=6), "steps is 6", "6 and 5")


@pytest.mark.parametrize("steps", range(1, STEPS + 1))
@each_free_mode
def test_steps_compares_the_first_ones_only(steps: int, judge: Mode) -> None:
    trace = judge.trace()
    off = with_fault(trace, "raw_grads", "gain", 4, 9)
    comparison = compare(trace, off, steps=steps)
    assert comparison.steps == steps
    assert comparison.verdict is (Verdict.EQUAL if steps < 4 else Verdict.MISMATCH)
    short = compare(trace, off.slice(0, steps), steps=steps)
    assert short.to_dict() == comparison.to_dict()


def test_pieces_from_the_middle_of_two_runs_are_judged_as_such() -> None:
    trace = made()
    off = with_fault(trace, "raw_grads", "gain", 4, 9)
    comparison = compare(trace.slice(3, 6), off.slice(3, 6))
    assert where(comparison.first) == (4, "raw_grads", "gain")
    assert comparison.steps == 3
    assert compare(trace.slice(4, 6), off.slice(4, 6)).verdict is Verdict.EQUAL


def test_runs_that_both_ended_early_are_said_to_have(tmp_path: Path) -> None:
    trace = made(rounding_noise=EPS)
    whole = write_pieces(tmp_path / "whole", trace)
    cut, killed = (write_pieces(tmp_path / n, trace, complete=False) for n in ("cut", "killed"))
    assert compare_stored(whole, whole).notes == ()
    both = compare_stored(cut, killed)
    assert both.verdict is Verdict.EQUAL
    assert [note.split()[4] for note in both.notes] == ["first", "second"]
    assert all(f"ended early, after {STEPS} steps" in note for note in both.notes)
    (only,) = compare_stored(whole, cut).notes
    assert "second" in only
