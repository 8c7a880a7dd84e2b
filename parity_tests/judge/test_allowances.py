"""What the judge allows, and from where on it judges no values, is what is documented."""

import dataclasses
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from helpers.judging import (
    EPS,
    JUDGED,
    TINY,
    VALUES,
    Mode,
    base,
    each_leaf,
    each_mode,
    gate,
    perturbed,
    sizes,
    strict,
    where,
    without,
    worst,
)
from helpers.synthetic_traces import (
    LEAVES,
    STEPS,
    entry,
    leaf_of,
    made,
    with_fault,
    with_leaf,
)

from twinstep import Comparison, Finding, Trace, Verdict, compare
from twinstep.judge import measure, tolerance
from twinstep.judge.judge import Judge
from twinstep.trace.ledger import Leaves
from twinstep.trace.stages import STAGES

pytestmark = pytest.mark.quick_to_compile

# --------------------------------------------------------------------------------------- allowances


def scaled(patch: pytest.MonkeyPatch, factor: float) -> None:
    """Every allowance times `factor`."""
    floor = tolerance.floor
    patch.setattr(tolerance, "floor", lambda dtype: floor(dtype) * factor)
    for name, stage in STAGES.items():
        amount: Any = stage.one_step * factor
        patch.setitem(STAGES, name, stage._replace(one_step=amount))
    for name in ("ROUNDING_NOISE_FACTOR", "PLAIN_EPS", "PLAIN_EPS_A_STEP"):
        patch.setattr(tolerance, name, getattr(tolerance, name) * factor)


@each_mode
@each_leaf
@pytest.mark.parametrize("ulps", [1, 1000])
def test_the_smallest_allowance_just_passes(
    judge: Mode, rounding_noise: float | None, stage: str, leaf: str, ulps: int
) -> None:
    trace = base(rounding_noise)
    off = with_fault(trace, stage, leaf, 4, perturbed(entry(trace, stage, leaf, 4), ulps))
    off = with_fault(off, "params", "gain", 5, perturbed(entry(trace, "params", "gain", 5), 1))
    comparison = judge(trace, off)
    (name,) = comparison.worst
    smallest = comparison.smallest_allowance(name)
    assert 0 < smallest < math.inf
    assert comparison.verdict.same is (smallest <= 1)
    for factor, same in ((smallest * (1 + 1e-9), True), (smallest * 0.999, False)):
        with pytest.MonkeyPatch.context() as patch:
            scaled(patch, factor)
            again = judge(trace, off)
        assert again.verdict.same is same
        assert again.smallest_allowance(name) == pytest.approx(smallest / factor)


def with_rounding_noise(trace: Trace, key: str, values: Any) -> Trace:
    """The same trace with the rounding noise of one leaf replaced, where it has any."""
    rounding_noise = {**(trace.rounding_noise or {}), key: np.asarray(values, trace.metadata.dtype)}
    return dataclasses.replace(trace, rounding_noise=rounding_noise)


def test_noise_is_used_where_either_trace_has_it() -> None:
    quiet, noisy, loud = made(), made(rounding_noise=EPS), made(rounding_noise=1e-9)
    off = 2e-9

    def far(trace: Trace) -> Trace:
        return with_fault(trace, "params", "bias", 4, entry(trace, "params", "bias", 4) + off)

    plain = "plain bound"
    cases = [
        (quiet, quiet, plain, Verdict.MISMATCH),
        (noisy, quiet, "rounding noise", Verdict.MISMATCH),
        (quiet, noisy, "rounding noise", Verdict.MISMATCH),
        (loud, quiet, "rounding noise", Verdict.ROUNDING),
        (quiet, loud, "rounding noise", Verdict.ROUNDING),
        (noisy, loud, "rounding noise", Verdict.ROUNDING),
        (loud, noisy, "rounding noise", Verdict.ROUNDING),
    ]
    for one, other, bound, verdict in cases:
        comparison = compare(one, far(other))
        assert bound in comparison.bound
        assert comparison.verdict is verdict
        assert compare(one, other).bound == comparison.bound
    for half in ("rounding_noise", "rounding_scale"):
        fields: dict[str, Any] = {half: None}
        assert plain in compare(quiet, dataclasses.replace(noisy, **fields)).bound


def test_the_plain_bound_says_its_figures() -> None:
    bound = compare(made(), made()).bound
    assert str(tolerance.PLAIN_EPS) in bound
    assert str(tolerance.PLAIN_EPS_A_STEP) in bound


@pytest.mark.parametrize(("step", "verdict"), [(2, "mismatch"), (3, "rounding"), (6, "rounding")])
def test_noise_carries_on_and_not_back(step: int, verdict: str) -> None:
    trace = with_rounding_noise(made(rounding_noise=EPS), "raw_grads/bias", [0, 0, 1e-9, 0, 0, 0])
    off = with_fault(
        trace, "raw_grads", "bias", step, entry(trace, "raw_grads", "bias", step) + 3e-9
    )
    assert compare(trace, off).verdict == verdict
    # the rounding noise of one leaf excuses no other
    off = with_fault(
        trace, "raw_grads", "gain", step, entry(trace, "raw_grads", "gain", step) + 3e-9
    )
    assert compare(trace, off).verdict is Verdict.MISMATCH


def test_an_update_across_zero_may_be_off_by_its_own_rounding() -> None:
    """From -1 to 1 it is twice as large as what it leads from and to."""
    trace = with_fault(with_fault(made(), "params", "gain", 3, -1.0), "params", "gain", 4, 1.0)
    for ulps, verdict in ((7, Verdict.ROUNDING), (9, Verdict.MISMATCH)):
        off = with_fault(trace, "params", "gain", 4, 1.0 + ulps * EPS)
        assert gate(trace, off).verdict is verdict
    trace = with_fault(trace, "params", "gain", 3, 1.0)
    assert gate(trace, with_fault(trace, "params", "gain", 4, 1.0 + 5 * EPS)).verdict == "mismatch"


def expected_gate(trace: Trace, stage: str, leaf: str, step: int) -> float:
    """The one-step allowance, written out independently."""
    array = leaf_of(trace, stage, leaf)

    def largest(row: int) -> float:
        return float(np.max(np.abs(array[row]))) if row >= 0 else 0.0

    moved = float(np.max(np.abs(array[step] - array[step - 1]))) if stage == "params" else 0.0
    size = {
        "loss": 1.0,
        "raw_grads": 1.0,
        "grads": max(largest(step - 1), largest(step - 2)) if stage == "grads" else 0,
        "opt_state": max(largest(step - 1), largest(step - 2)) if stage == "opt_state" else 0,
        "params": max(largest(step), largest(step - 1), moved) if stage == "params" else 0,
    }[stage]
    amount = {"loss": 16, "raw_grads": 64, "grads": 64, "opt_state": 8, "params": 4}[stage]
    return amount * EPS * size + TINY


@each_leaf
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_what_is_allowed_is_what_is_documented(stage: str, leaf: str, step: int) -> None:
    """In every mode, for traces of which one, the other or both bring rounding noise."""
    quiet, noisy = made(), made(rounding_noise=3 * EPS)
    off = perturbed(entry(quiet, stage, leaf, step), 1)
    one_step = expected_gate(quiet, stage, leaf, step)
    assert worst(gate(quiet, with_fault(quiet, stage, leaf, step, off)), stage).allowed == one_step
    array = leaf_of(quiet, stage, leaf)[(1 if stage == "params" else 0) :]
    plain = (64 + 4 * step) * EPS * max(np.max(np.abs(row)) for row in array[:step])
    # of what is given, beside what was backpropagated, no rounding noise is measured
    measured = plain if stage == "grads" else 12 * EPS + one_step
    for a, b in ((noisy, quiet), (quiet, noisy), (noisy, noisy)):
        found = worst(compare(a, with_fault(b, stage, leaf, step, off)), stage)
        assert where(found) == (step, stage, leaf)
        assert found.allowed == pytest.approx(measured, rel=1e-12, abs=0)
    found = worst(compare(quiet, with_fault(quiet, stage, leaf, step, off)), stage)
    assert found.allowed == pytest.approx(plain, rel=1e-12, abs=0)


def test_the_gate_allows_what_rounding_carries_within_a_step() -> None:
    """Of a step that evaluates many times; but no more than three quarters of the digits."""
    trace = made()
    keys = [f"{stage}/{leaf}" for stage in VALUES for leaf in LEAVES[stage]]
    for rounding_noise in (1e-6, 1.0):
        replayed = dataclasses.replace(
            trace, rounding_noise={key: np.full(STEPS, rounding_noise) for key in keys}
        )
        for stage, leaf in JUDGED:
            off = with_fault(replayed, stage, leaf, 4, perturbed(entry(trace, stage, leaf, 4), 1))
            row = leaf_of(trace, stage, leaf)[4 if stage == "params" else 3]
            limit = 2**-13 * float(np.max(np.abs(row)))
            carried = min(4 * rounding_noise, limit) if stage in ("opt_state", "params") else 0.0
            found = worst(gate(trace, off), stage).allowed
            expected = expected_gate(trace, stage, leaf, 4) + carried
            assert found == pytest.approx(expected, rel=1e-9, abs=0)


def test_the_plain_bound_is_that_of_the_smaller_trace() -> None:
    trace = with_fault(made(), "raw_grads", "gain", 3, 1.0)
    for step in (1, 3):  # the largest so far
        before = with_fault(trace, "raw_grads", "gain", step, 1.9)
        other = with_fault(trace, "raw_grads", "gain", step, 1.95)
        for pair in ((before, other), (other, before)):
            found = worst(compare(*pair), "raw_grads")
            largest = float(np.max(np.abs(before.raw_grads["gain"][:step])))
            assert found.allowed == pytest.approx((64 + 4 * step) * EPS * largest, rel=1e-9, abs=0)


def test_the_worst_is_the_earliest_of_equals() -> None:
    """In the ledger's order of leaves within a step."""
    trace = made()

    def found(*places: tuple[int, str]) -> tuple[int, str, str]:
        off = trace
        for step, leaf in places:
            off = with_fault(
                off, "raw_grads", leaf, step, perturbed(entry(trace, "raw_grads", leaf, step), 1)
            )
        return where(worst(gate(trace, off), "raw_grads"))

    assert found((3, "bias"), (3, "gain")) == (3, "raw_grads", "bias")
    assert found((3, "bias"), (2, "gain")) == (2, "raw_grads", "gain")


@each_leaf
def test_beside_nothing_the_floor_is_allowed(stage: str, leaf: str) -> None:
    trace = made()
    trace = with_leaf(trace, stage, leaf, np.zeros_like(leaf_of(trace, stage, leaf)))
    off = with_fault(trace, stage, leaf, 4, 1e-300)
    judge = Judge("float64")
    judge.gate(trace, off, sizes(trace, 0))
    for comparison in (judge.comparison(), compare(trace, off)):
        assert comparison.first is None
        assert worst(comparison, stage).allowed == 2.0**-970


def test_what_an_earlier_chunk_has_seen_counts() -> None:
    """The rounding noise so far; the state before a step; and before the first there is none."""
    noisy = with_rounding_noise(made(rounding_noise=EPS), "raw_grads/bias", [0, 1e-9, 0, 0, 0, 0])
    off = with_fault(noisy, "raw_grads", "bias", 5, entry(noisy, "raw_grads", "bias", 5) + 3e-9)
    spot = "opt_state", "gain.exp_avg"
    trace = with_leaf(made(), *spot, np.array([1, 2, 9, 3, 4, 5]) / 1000)
    other = with_leaf(made(), *spot, leaf_of(trace, *spot) * (1 + EPS))
    free, gated = Judge("float64"), Judge("float64")
    for low, high in ((0, 3), (3, 6)):
        free.free(noisy.slice(low, high), off.slice(low, high))
        gated.gate(trace.slice(low, high), other.slice(low, high), sizes(trace.slice(low, high)))
    assert free.comparison().verdict is Verdict.ROUNDING
    found = gated.history.curves["gate", "opt_state"].allowed
    expected = 8 * EPS * np.array([1, 2, 9, 9, 4, 5]) / 1000
    assert found == pytest.approx(expected, rel=1e-9, abs=0)


def test_what_is_allowed_is_within() -> None:
    trace = with_fault(made(), "loss", "loss", 1, 1.0)
    for ulps, verdict in ((68, Verdict.ROUNDING), (69, Verdict.MISMATCH)):
        assert (
            compare(trace, with_fault(trace, "loss", "loss", 1, 1 + ulps * EPS)).verdict is verdict
        )


@pytest.mark.parametrize(("ulps", "asked"), [(8, []), (9, [1])])
def test_half_of_what_is_allowed_is_well_explained(ulps: int, asked: list[int]) -> None:
    trace = with_fault(made(), "loss", "loss", 2, 1.0)
    off = with_fault(trace, "loss", "loss", 2, 1 + ulps * EPS)
    rows: list[int] = []

    def measure_rounding_scale(at: np.ndarray) -> Leaves:
        rows.extend(at.tolist())
        return {name: sizes_[at] for name, sizes_ in sizes(trace).items()}

    Judge("float64").gate(trace, off, sizes(trace), measure_rounding_scale)
    assert rows == asked


def test_sizes_that_are_no_numbers_may_be_measured_again() -> None:
    trace = made()
    off = with_fault(
        trace, "raw_grads", "gain", 2, perturbed(entry(trace, "raw_grads", "gain", 2), 1)
    )
    given = {**sizes(trace), "raw_grads/gain": np.full(STEPS, np.nan)}
    judge = Judge("float64")
    judge.gate(trace, off, given, lambda at: {"raw_grads/gain": np.full(len(at), EPS)})
    assert judge.comparison().verdict is Verdict.ROUNDING


def test_a_loss_is_chaos_where_more_than_half_of_its_digits_are_gone() -> None:
    trace = with_fault(made(rounding_noise=EPS), "loss", "loss", 1, -2.0)  # the largest so far
    for rounding_noise, chaotic_from in ((2 * 2.0**-26, None), (2.0001 * 2**-26, 3)):
        found = with_rounding_noise(trace, "loss/loss", [0, 0, rounding_noise, 0, 0, 0])
        assert compare(found, found).chaotic_from == chaotic_from
        assert compare(found.slice(2, 6), found.slice(2, 6)).chaotic_from == 3, (
            "by the losses of these"
        )


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
    assert compare(trace, with_fault(off, "params", "gain", 6, 9)).verdict is Verdict.MISMATCH
    assert (
        compare(trace, with_fault(off, "raw_grads", "bias", 6, np.nan)).verdict is Verdict.MISMATCH
    )


def test_the_earliest_step_that_proves_nothing_is_named() -> None:
    trace = made(rounding_noise=EPS)
    for leaf in ("bias", "gain"):
        trace = with_rounding_noise(trace, f"raw_grads/{leaf}", np.full(STEPS, np.inf))
    off = with_fault(trace, "raw_grads", "gain", 4, entry(trace, "raw_grads", "gain", 4) + 1e-9)
    off = with_fault(off, "raw_grads", "bias", 5, 9)
    for cuts in ([0, 6], [0, 4, 6], [0, 3, 5, 6]):
        judge = Judge("float64")
        for low, high in pairwise(cuts):
            judge.free(trace.slice(low, high), off.slice(low, high))
        comparison = judge.comparison()
        assert comparison.verdict is Verdict.INVALID
        assert where(comparison.first) == (4, "raw_grads", "gain")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_sizes_that_are_no_numbers_prove_nothing(bad: float) -> None:
    trace = base(None)
    for leaf, stage in (("loss", "loss"), ("bias", "raw_grads")):
        given = {**sizes(trace), f"{stage}/{leaf}": np.full(STEPS, bad)}
        for off, verdict in (
            (trace, Verdict.EQUAL),
            (with_fault(trace, stage, leaf, 3, 9), "invalid"),
        ):
            judge = Judge("float64")
            judge.gate(trace, off, given)
            assert judge.comparison().verdict == verdict
            assert (judge.fault is None) is (verdict is Verdict.EQUAL)


# ------------------------------------------------------------------------------------------ chaos


def chaotic(step: int) -> Trace:
    """A trace that rounding alone carries away, from `step` on."""
    rounding_noise = np.full(STEPS, EPS)
    rounding_noise[step - 1] = 1e-3
    return with_rounding_noise(made(rounding_noise=EPS), "loss/loss", rounding_noise)


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
    judge = Judge("float64")
    judge.free(trace, off)
    curve = judge.history.curves["free", "raw_grads"]
    assert curve.leaf[4] == "bias"
    assert (curve.steps[4], curve.allowed[4]) == (5, math.inf)


def test_a_curve_of_few_points_shows_what_was_judged() -> None:
    """Where a point stands for two steps, one of them in chaos, it is the other one."""
    trace = made(2000, rounding_noise=EPS)
    trace = with_rounding_noise(trace, "loss/loss", np.where(np.arange(2000) == 3, 1e-3, EPS))
    off = with_fault(trace, "loss", "loss", 3, perturbed(entry(trace, "loss", "loss", 3), 1))
    judge = Judge("float64")
    judge.free(trace, with_fault(off, "loss", "loss", 4, 9))
    assert judge.history.curves["free", "loss"].steps[1] == 3


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
    for trace, same in ((made(), False), (chaotic(2), True)):
        one = with_fault(trace, "raw_grads", "gain", 3, 1.5e308)
        comparison = compare(one, with_fault(trace, "raw_grads", "gain", 3, -1.5e308))
        assert comparison.verdict.same is same
        strict(comparison)
    one = chaotic(1)
    for field in ("raw_grads", "grads"):
        one = without(field, "weight", "bias", "none")(one)
    one = with_fault(one, "raw_grads", "gain", 1, 1.5e308)
    comparison = compare(one, with_fault(one, "raw_grads", "gain", 1, -1.5e308), steps=1)
    assert comparison.verdict is Verdict.INVALID
    assert math.isnan(comparison.smallest_allowance("free")), "nothing was judged, which is no 0"
    strict(comparison)
    # an allowance too large for a number excuses nothing
    loud = with_rounding_noise(made(rounding_noise=EPS), "raw_grads/gain", np.full(STEPS, 1e308))
    assert compare(loud, with_fault(loud, "raw_grads", "gain", 3, 1e300)).verdict is Verdict.INVALID
    assert (
        compare(loud, with_fault(loud, "raw_grads", "bias", 3, 1e300)).verdict is Verdict.MISMATCH
    )


def test_a_difference_that_nothing_allows_is_no_0() -> None:
    """Of a limit of 0, beside a difference of a denormal too."""
    limit, denormal = np.array([0.0, 0.0, 1.0, np.inf, np.nan, -0.0]), 5e-324
    found = measure.ratios(np.full(6, denormal), limit)
    assert found.tolist() == [math.inf, math.inf, denormal, math.inf, math.inf, math.inf]
    assert measure.ratios(np.zeros(6), limit).tolist() == [0.0] * 6
    assert measure.ratios(np.full(6, np.nan), limit).tolist() == [math.inf] * 6
    for allowed in limit:
        finding = Finding(1, "loss", "loss", (), 0.0, denormal, denormal, float(allowed), 1.0)
        assert finding.ratio == (denormal if allowed == 1 else math.inf)
    one = made()
    other = with_fault(one, "params", "gain", 0, perturbed(entry(one, "params", "gain", 0), 1))
    assert compare(one, other).smallest_allowance("free") == math.inf


def test_drift_grows() -> None:
    """A free run that parts at once, while every step alone is rounding, has a fault."""
    trace = made(rounding_noise=EPS)

    def judged(*steps: tuple[int, float]) -> Comparison:
        off = trace
        for step, size in steps:
            off = with_fault(
                off, "params", "gain", step, entry(trace, "params", "gain", step) + size
            )
        return both(trace, trace, off)

    allowed = judged((1, EPS)).worst["free"]["params"].allowed
    assert judged((1, 2 * allowed)).verdict is Verdict.MISMATCH, "in the very first step"
    assert judged((2, 2 * allowed)).verdict is Verdict.DRIFT
    growth = tolerance.max_growth("float64")
    for size, verdict in ((growth / 2, Verdict.DRIFT), (growth * 4, Verdict.MISMATCH)):
        assert judged((3, size * allowed)).verdict is verdict
        # what has grown before may grow on
        assert judged((2, 8 * allowed), (3, size * allowed)).verdict is Verdict.DRIFT
    found = judged((3, 9 * growth * allowed))
    assert where(found.first) == (3, "params", "gain")
    ones = with_fault(trace, "loss", "loss", 3, 1.0)
    for more, verdict in ((0, Verdict.DRIFT), (1, Verdict.MISMATCH)):  # of 20 eps, 2**26 times
        off = with_fault(ones, "loss", "loss", 3, 1 + (20 + more) * 2.0**-26)
        assert both(ones, ones, off).verdict is verdict
    assert judged((4, np.nan)).verdict is Verdict.MISMATCH
    late = chaotic(3)
    assert both(late, late, with_fault(late, "params", "gain", 5, np.nan)).verdict is Verdict.DRIFT


@pytest.mark.parametrize("cuts", [[0, 6], [0, 2, 6], [0, 1, 3, 6]])
def test_what_nobody_knew_the_size_of_may_have_grown(cuts: list[int]) -> None:
    trace = with_rounding_noise(made(rounding_noise=EPS), "raw_grads/bias", [0, np.inf, 0, 0, 0, 0])
    for unproved, verdict in ((False, Verdict.MISMATCH), (True, Verdict.INVALID)):
        off = with_fault(trace, "params", "gain", 3, entry(trace, "params", "gain", 3) + 1)
        off = with_fault(off, "raw_grads", "bias", 2, 9) if unproved else off
        judge = Judge("float64")
        for low, high in pairwise(cuts):
            piece = trace.slice(low, high)
            judge.gate(piece, piece, sizes(piece))
            judge.free(piece, off.slice(low, high))
        assert judge.comparison().verdict is verdict


# ----------------------------------------------------------------------------- the gate and the run


def both(trace: Trace, replayed: Trace, free: Trace) -> Comparison:
    """What `verify` does with a chunk."""
    judge = Judge(trace.metadata.dtype)
    judge.gate(trace, replayed, sizes(trace))
    judge.free(trace, free)
    return judge.comparison()


def test_a_free_run_that_parts_while_every_step_is_rounding_is_drift() -> None:
    trace = made(rounding_noise=EPS)
    off = with_fault(trace, "params", "bias", 2, entry(trace, "params", "bias", 2) + 1e-12)
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


def test_what_the_first_sizes_do_not_explain_is_measured_again() -> None:
    trace = made()
    off = with_fault(trace, "loss", "loss", 2, entry(trace, "loss", "loss", 2) + 100 * EPS)
    off = with_fault(off, "raw_grads", "gain", 5, entry(trace, "raw_grads", "gain", 5) + 100 * EPS)
    off = with_fault(off, "raw_grads", "bias", 5, entry(trace, "raw_grads", "bias", 5) + 50 * EPS)
    asked: list[list[int]] = []

    def measure_rounding_scale(size: float) -> Callable[[np.ndarray], Leaves]:
        def measured(rows: np.ndarray) -> Leaves:
            asked.append(rows.tolist())
            small = {"raw_grads/bias": np.full(STEPS, 0.01 * EPS)}  # what was known of it stands
            return {name: array[rows] for name, array in {**sizes(trace, size), **small}.items()}

        return measured

    for candidate, size, rows, verdict in (
        (trace, 1e9, [], Verdict.EQUAL),
        (off, 1e9, [[1, 4]], Verdict.ROUNDING),
        (off, 0.5, [[1, 4]], Verdict.MISMATCH),  # larger ones only
        (with_fault(off, "params", "gain", 3, 9), 1e9, [[1, 4]], Verdict.MISMATCH),
        (with_fault(trace, "params", "gain", 3, 9), 1e9, [], Verdict.MISMATCH),
        (with_fault(trace, "raw_grads", "bias", 3, np.nan), 1e9, [[2]], Verdict.MISMATCH),
    ):
        asked.clear()
        given_sizes = sizes(trace)
        judge = Judge("float64")
        judge.gate(trace, candidate, given_sizes, measure_rounding_scale(size))
        assert (asked, judge.comparison().verdict) == (rows, verdict)
        assert all(np.all(array == EPS) for array in given_sizes.values()), "left as they were"


# ------------------------------------------------------------------------------------- plain values


@each_mode
@pytest.mark.parametrize("value", [1.5, 9, np.nan, -np.inf])
@pytest.mark.parametrize("both_sides", [False, True], ids=["one side", "both sides"])
def test_a_comparison_is_strict_json(
    judge: Mode, rounding_noise: float | None, value: float, both_sides: bool
) -> None:
    trace = base(rounding_noise)
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


@pytest.mark.parametrize(("value", "same"), [(5e-307, True), (1e-290, False)])
def test_what_may_have_been_flushed_to_zero_is_allowed(value: float, same: bool) -> None:
    """A factor of a gradient below 1e-308 is 0 in JAX on a CPU, whatever it is multiplied by."""
    trace = base(None)
    name, array = next(iter(trace.raw_grads.items()))
    zeros = with_leaf(trace, "raw_grads", name, np.zeros_like(array))
    other = with_leaf(trace, "raw_grads", name, np.full_like(array, value))
    assert compare(zeros, other).verdict.same is same
