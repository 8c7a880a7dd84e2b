"""From where on the judge judges no values, and what is drift; what proves nothing."""

import math

import numpy as np
import pytest
from helpers.judging import (
    EPS,
    JUDGED,
    VALUES,
    Mode,
    each_mode,
    judged,
    off_by,
    strict,
    ulps_off,
    where,
    with_rounding_noise,
    without,
)
from helpers.synthetic_traces import STEPS, made, with_fault

from twinstep import Comparison, Trace, Verdict, compare
from twinstep.judge import tolerance

pytestmark = pytest.mark.quick_to_compile


def chaotic(step: int) -> Trace:
    """A trace that rounding alone carries away, from `step` on."""
    rounding_noise = np.where(np.arange(1, STEPS + 1) == step, 1e-3, EPS)
    return with_rounding_noise(made(rounding_noise=EPS), "loss/loss", rounding_noise)


def both(trace: Trace, replayed: Trace, free: Trace) -> Comparison:
    """What `verify` does with a chunk."""
    return judged(trace, free, replayed).comparison()


# ------------------------------------------------------------------------------------------ chaos


def test_a_loss_is_chaos_where_more_than_half_of_its_digits_are_gone() -> None:
    trace = with_fault(made(rounding_noise=EPS), "loss", "loss", 1, -2.0)  # the largest so far
    for rounding_noise, chaotic_from in ((2 * 2.0**-26, None), (2.0001 * 2**-26, 3)):
        found = with_rounding_noise(trace, "loss/loss", [0, 0, rounding_noise, 0, 0, 0])
        assert compare(found, found).chaotic_from == chaotic_from
        later = found.slice(2, 6)  # by the losses of these
        assert compare(later, later).chaotic_from == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_allowance_that_is_no_number_proves_nothing(bad: float) -> None:
    trace = with_rounding_noise(made(rounding_noise=EPS), "raw_grads/bias", [0, 0, bad, 0, 0, 0])
    assert compare(trace, trace).verdict is Verdict.EQUAL
    off = with_fault(trace, "raw_grads", "bias", 4, 9)
    comparison = compare(trace, off)
    assert comparison.verdict is Verdict.INVALID
    assert where(comparison.first) == (4, "raw_grads", "bias")
    assert comparison.smallest_allowance("free") == math.inf
    strict(comparison)
    # what is found with an allowance is a fault all the same
    for faulty in (
        with_fault(off, "params", "gain", 6, 9),
        with_fault(off, "raw_grads", "bias", 6, np.nan),
    ):
        assert compare(trace, faulty).verdict is Verdict.MISMATCH


@pytest.mark.parametrize("cuts", [[0, 6], [0, 4, 6], [0, 3, 5, 6]])
def test_the_earliest_step_that_proves_nothing_is_named(cuts: list[int]) -> None:
    trace = made(rounding_noise=EPS)
    for leaf in ("bias", "gain"):
        trace = with_rounding_noise(trace, f"raw_grads/{leaf}", np.full(STEPS, np.inf))
    off = off_by(trace, "raw_grads", "gain", 4, 1e-9)
    off = with_fault(off, "raw_grads", "bias", 5, 9)
    comparison = judged(trace, off, cuts=cuts).comparison()
    assert comparison.verdict is Verdict.INVALID
    assert where(comparison.first) == (4, "raw_grads", "gain")


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_beyond_the_horizon_values_are_not_judged(step: int) -> None:
    trace = chaotic(4)
    for stage, leaf in JUDGED:
        comparison = compare(trace, with_fault(trace, stage, leaf, step, 9))
        assert comparison.chaotic_from == 4
        assert comparison.verdict is (Verdict.MISMATCH if step < 4 else Verdict.ROUNDING)
        assert (comparison.smallest_allowance("free") > 1) is (step < 4)
        # what is no number is no value, and batches are drawn, not computed
        for no_number in (np.nan, np.inf):
            off = with_fault(trace, stage, leaf, step, no_number)
            assert compare(trace, off).verdict is Verdict.MISMATCH
    assert compare(trace, with_fault(trace, "batch", "x", step, 9)).verdict is Verdict.MISMATCH


def test_beyond_the_horizon_what_is_no_number_is_the_worst_to_look_at() -> None:
    trace = chaotic(4)
    off = with_fault(with_fault(trace, "raw_grads", "bias", 5, np.nan), "raw_grads", "gain", 5, 9)
    curve = judged(trace, off).history.curves["free", "raw_grads"]
    assert curve.leaf[4] == "bias"
    assert (curve.steps[4], curve.allowed[4]) == (5, math.inf)


def test_a_curve_of_few_points_shows_what_was_judged() -> None:
    """Where a point stands for two steps, one of them in chaos, it is the other one."""
    trace = made(2000, rounding_noise=EPS)
    trace = with_rounding_noise(trace, "loss/loss", np.where(np.arange(2000) == 3, 1e-3, EPS))
    off = with_fault(ulps_off(trace, "loss", "loss", 3), "loss", "loss", 4, 9)
    assert judged(trace, off).history.curves["free", "loss"].steps[1] == 3


def test_there_is_no_way_back_from_the_horizon() -> None:
    """A loss that grows afterwards does not make the rounding noise before it small."""
    trace = with_fault(chaotic(3), "loss", "loss", 5, 1e9)
    comparison = compare(trace, with_fault(trace, "params", "gain", 6, 9))
    assert (comparison.chaotic_from, comparison.verdict) == (3, Verdict.ROUNDING)


def test_a_run_that_is_chaos_from_the_first_step_proves_nothing() -> None:
    trace = chaotic(1)
    assert compare(trace, trace).verdict is Verdict.EQUAL
    comparison = compare(trace, with_fault(trace, "params", "gain", 6, 9))
    assert (comparison.chaotic_from, comparison.verdict) == (1, Verdict.INVALID)
    assert compare(made(), made()).chaotic_from is None


def test_numbers_too_far_apart_for_a_difference_are_judged() -> None:
    def apart(trace: Trace, step: int, steps: int | None = None) -> Comparison:
        pair = (with_fault(trace, "raw_grads", "gain", step, n) for n in (1.5e308, -1.5e308))
        comparison = compare(*pair, steps=steps)
        strict(comparison)
        return comparison

    assert not apart(made(), 3).verdict.same
    assert apart(chaotic(2), 3).verdict.same
    one = chaotic(1)
    for field in ("raw_grads", "grads"):
        one = without(field, "weight", "bias", "none")(one)
    comparison = apart(one, 1, steps=1)
    assert comparison.verdict is Verdict.INVALID
    assert math.isnan(comparison.smallest_allowance("free")), "nothing was judged, which is no 0"
    # an allowance too large for a number excuses nothing
    loud = with_rounding_noise(made(rounding_noise=EPS), "raw_grads/gain", np.full(STEPS, 1e308))
    for leaf, verdict in (("gain", Verdict.INVALID), ("bias", Verdict.MISMATCH)):
        off = with_fault(loud, "raw_grads", leaf, 3, 1e300)
        assert compare(loud, off).verdict is verdict


# ------------------------------------------------------------------------------------------ drift


def test_drift_grows() -> None:
    """A free run that parts at once, while every step alone is rounding, has a fault."""
    trace = made(rounding_noise=EPS)

    def parted(*steps: tuple[int, float]) -> Comparison:
        off = trace
        for step, size in steps:
            off = off_by(off, "params", "gain", step, size)
        return both(trace, trace, off)

    allowed = parted((1, EPS)).worst["free"]["params"].allowed
    assert parted((1, 2 * allowed)).verdict is Verdict.MISMATCH, "in the very first step"
    assert parted((2, 2 * allowed)).verdict is Verdict.DRIFT
    growth = tolerance.max_growth("float64")
    for size, verdict in ((growth / 2, Verdict.DRIFT), (growth * 4, Verdict.MISMATCH)):
        assert parted((3, size * allowed)).verdict is verdict
        # what has grown before may grow on
        assert parted((2, 8 * allowed), (3, size * allowed)).verdict is Verdict.DRIFT
    found = parted((3, 9 * growth * allowed))
    assert where(found.first) == (3, "params", "gain")
    ones = with_fault(trace, "loss", "loss", 3, 1.0)
    for more, verdict in ((0, Verdict.DRIFT), (1, Verdict.MISMATCH)):  # of 20 eps, 2**26 times
        off = with_fault(ones, "loss", "loss", 3, 1 + (20 + more) * 2.0**-26)
        assert both(ones, ones, off).verdict is verdict
    assert parted((4, np.nan)).verdict is Verdict.MISMATCH
    late = chaotic(3)
    assert both(late, late, with_fault(late, "params", "gain", 5, np.nan)).verdict is Verdict.DRIFT


@pytest.mark.parametrize("cuts", [[0, 6], [0, 2, 6], [0, 1, 3, 6]])
def test_what_nobody_knew_the_size_of_may_have_grown(cuts: list[int]) -> None:
    trace = with_rounding_noise(made(rounding_noise=EPS), "raw_grads/bias", [0, np.inf, 0, 0, 0, 0])
    off = off_by(trace, "params", "gain", 3, 1)
    unproved = with_fault(off, "raw_grads", "bias", 2, 9)
    for free, verdict in ((off, Verdict.MISMATCH), (unproved, Verdict.INVALID)):
        assert judged(trace, free, trace, cuts).comparison().verdict is verdict


def test_a_free_run_that_parts_while_every_step_is_rounding_is_drift() -> None:
    trace = made(rounding_noise=EPS)
    off = off_by(trace, "params", "bias", 2, 1e-12)
    start = with_fault(trace, "params", "bias", 0, 9)
    drift = both(trace, trace, off)
    assert drift.verdict is Verdict.DRIFT
    assert not drift.verdict.same
    assert where(drift.first) == (2, "params", "bias")
    assert both(trace, off, trace).verdict is Verdict.MISMATCH
    assert both(trace, trace, start).verdict is Verdict.MISMATCH, "it parts before the first step"
    assert both(trace, trace, trace).verdict is Verdict.EQUAL
    # the gate's finding is the fault's place, though the run parts before it
    late = with_fault(trace, "raw_grads", "bias", 4, 9)
    assert where(both(trace, late, off).first) == (4, "raw_grads", "bias")
    assert both(chaotic(1), chaotic(1), off).verdict is Verdict.ROUNDING, "each step was judged"
    # of two faults the earlier is named, and of one step the gate's, which is nearer to it
    drawn = with_fault(trace, "batch", "x", 3, 9)
    for step, stage in ((2, "raw_grads"), (3, "raw_grads"), (4, "batch")):
        faulty = with_fault(trace, "raw_grads", "bias", step, 9)
        assert where(both(trace, faulty, drawn).first)[:2] == (min(step, 3), stage)


# ------------------------------------------------------------------------------------- plain values


@each_mode
@pytest.mark.parametrize("value", [1.5, 9, np.nan, -np.inf])
@pytest.mark.parametrize("both_sides", [False, True], ids=["one side", "both sides"])
def test_a_comparison_is_strict_json(judge: Mode, value: float, both_sides: bool) -> None:
    trace = judge.trace()
    faulty = with_fault(trace, "raw_grads", "bias", 3, value)
    faulty = with_fault(faulty, "batch", "y", 5, 9)
    comparison = judge(faulty if both_sides else trace, faulty)
    plain = strict(comparison)
    assert plain["verdict"] == comparison.verdict.value
    assert plain["same"] is comparison.verdict.same
    if comparison.first:
        assert plain["first"]["index"] == [2]
        assert plain["first"]["candidate"] == (value if np.isfinite(value) else str(value))
    (stages,) = plain["worst"].values()
    assert set(stages) == {"batch", *VALUES} - {"grads"}, "held once"
    assert set(stages["loss"]) >= {"step", "leaf", "difference", "allowed", "ulps", "ratio"}


@pytest.mark.parametrize("trace", [made(0), chaotic(2), chaotic(1)], ids=["none", "late", "early"])
def test_a_comparison_without_values_is_strict_json(trace: Trace) -> None:
    assert strict(compare(trace, trace))["first"] is None
