"""What the judge allows is what is documented, and what is measured of a run."""

import math
from typing import Any

import numpy as np
import pytest
from helpers.judging import (
    EPS,
    JUDGED,
    TINY,
    VALUES,
    Mode,
    each_leaf,
    each_mode,
    gate,
    judged,
    off_by,
    sizes,
    ulps_off,
    where,
    with_rounding_noise,
    worst,
)
from helpers.synthetic_traces import (
    LEAVES,
    STEPS,
    leaf_by,
    leaf_of,
    made,
    with_fault,
    with_field,
    with_leaf,
)

from twinstep import Finding, Trace, Verdict, compare
from twinstep.judge import measure, tolerance
from twinstep.judge.judge import Judge
from twinstep.trace.ledger import Leaves
from twinstep.trace.stages import STAGES

pytestmark = pytest.mark.quick_to_compile


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
def test_the_smallest_allowance_just_passes(judge: Mode, stage: str, leaf: str, ulps: int) -> None:
    trace = judge.trace()
    off = ulps_off(ulps_off(trace, stage, leaf, 4, ulps), "params", "gain", 5)
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


def test_noise_is_used_where_either_trace_has_it() -> None:
    quiet, noisy, loud = made(), made(rounding_noise=EPS), made(rounding_noise=1e-9)
    for pair, bound, verdict in (
        ((quiet, quiet), "plain bound", Verdict.MISMATCH),
        ((noisy, quiet), "rounding noise", Verdict.MISMATCH),
        ((loud, quiet), "rounding noise", Verdict.ROUNDING),
        ((noisy, loud), "rounding noise", Verdict.ROUNDING),
    ):
        for one, other in (pair, pair[::-1]):
            comparison = compare(one, off_by(other, "params", "bias", 4, 2e-9))
            assert bound in comparison.bound
            assert comparison.verdict is verdict
            assert compare(one, other).bound == comparison.bound
    for half in ("rounding_noise", "rounding_scale"):
        assert "plain bound" in compare(quiet, with_field(noisy, half, None)).bound


def test_the_plain_bound_says_its_figures() -> None:
    bound = compare(made(), made()).bound
    assert str(tolerance.PLAIN_EPS) in bound
    assert str(tolerance.PLAIN_EPS_A_STEP) in bound


@pytest.mark.parametrize(("step", "verdict"), [(2, "mismatch"), (3, "rounding"), (6, "rounding")])
def test_noise_carries_on_and_not_back(step: int, verdict: str) -> None:
    trace = with_rounding_noise(made(rounding_noise=EPS), "raw_grads/bias", [0, 0, 1e-9, 0, 0, 0])
    assert compare(trace, off_by(trace, "raw_grads", "bias", step, 3e-9)).verdict == verdict
    # the rounding noise of one leaf excuses no other
    off = off_by(trace, "raw_grads", "gain", step, 3e-9)
    assert compare(trace, off).verdict is Verdict.MISMATCH


def test_an_update_across_zero_may_be_off_by_its_own_rounding() -> None:
    """From -1 to 1 it is twice as large as what it leads from and to."""
    trace = with_fault(with_fault(made(), "params", "gain", 3, -1.0), "params", "gain", 4, 1.0)
    still = with_fault(trace, "params", "gain", 3, 1.0)
    for one, ulps, verdict in (
        (trace, 7, Verdict.ROUNDING),
        (trace, 9, Verdict.MISMATCH),
        (still, 5, Verdict.MISMATCH),
    ):
        off = with_fault(one, "params", "gain", 4, 1.0 + ulps * EPS)
        assert gate(one, off).verdict is verdict


def expected_gate(trace: Trace, stage: str, leaf: str, step: int) -> float:
    """The one-step allowance, written out independently."""
    array = leaf_of(trace, stage, leaf)
    now = step if stage == "params" else step - 1
    made_of = [array[now], *array[max(now - 1, 0) : now]]
    if stage == "params":
        made_of.append(array[now] - array[now - 1])  # the update
    amount = {"loss": 16, "raw_grads": 64, "grads": 64, "opt_state": 8, "params": 4}[stage]
    given = stage in ("loss", "raw_grads")
    return amount * EPS * (1.0 if given else max(np.max(np.abs(row)) for row in made_of)) + TINY


@each_leaf
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_what_is_allowed_is_what_is_documented(stage: str, leaf: str, step: int) -> None:
    """In every mode, for traces of which one, the other or both bring rounding noise."""
    quiet, noisy = made(), made(rounding_noise=3 * EPS)
    one_step = expected_gate(quiet, stage, leaf, step)
    assert worst(gate(quiet, ulps_off(quiet, stage, leaf, step)), stage).allowed == one_step
    array = leaf_of(quiet, stage, leaf)[(1 if stage == "params" else 0) :]
    plain = (64 + 4 * step) * EPS * max(np.max(np.abs(row)) for row in array[:step])
    # of what is given, beside what was backpropagated, no rounding noise is measured
    measured = plain if stage == "grads" else 12 * EPS + one_step
    for a, b, allowed in (
        (noisy, quiet, measured),
        (quiet, noisy, measured),
        (noisy, noisy, measured),
        (quiet, quiet, plain),
    ):
        found = worst(compare(a, ulps_off(b, stage, leaf, step)), stage)
        assert where(found) == (step, stage, leaf)
        assert found.allowed == pytest.approx(allowed, rel=1e-12, abs=0)


def test_the_gate_allows_what_rounding_carries_within_a_step() -> None:
    """Of a step that evaluates many times; but no more than three quarters of the digits."""
    trace = made()
    keys = [f"{stage}/{leaf}" for stage in VALUES for leaf in LEAVES[stage]]
    for rounding_noise in (1e-6, 1.0):
        noise = {key: np.full(STEPS, rounding_noise) for key in keys}
        replayed = with_field(trace, "rounding_noise", noise)
        for stage, leaf in JUDGED:
            row = leaf_of(trace, stage, leaf)[4 if stage == "params" else 3]
            limit = 2**-13 * float(np.max(np.abs(row)))
            carried = min(4 * rounding_noise, limit) if stage in ("opt_state", "params") else 0.0
            found = worst(gate(trace, ulps_off(replayed, stage, leaf, 4)), stage).allowed
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


@pytest.mark.parametrize(("step", "leaf"), [(3, "bias"), (2, "gain")])
def test_the_worst_is_the_earliest_of_equals(step: int, leaf: str) -> None:
    """In the ledger's order of leaves within a step."""
    off = ulps_off(ulps_off(made(), "raw_grads", "bias", 3), "raw_grads", "gain", step)
    assert where(worst(gate(made(), off), "raw_grads")) == (step, "raw_grads", leaf)


@each_leaf
def test_beside_nothing_the_floor_is_allowed(stage: str, leaf: str) -> None:
    """A factor of a gradient below 1e-308 is 0 in JAX on a CPU, whatever it is multiplied by."""
    trace = leaf_by(stage, leaf, np.zeros_like)(made())
    off = with_fault(trace, stage, leaf, 4, 1e-300)
    judge = Judge("float64")
    judge.gate(trace, off, sizes(trace, 0))
    for comparison in (judge.comparison(), compare(trace, off)):
        assert comparison.first is None
        assert worst(comparison, stage).allowed == 2.0**-970


def test_what_an_earlier_chunk_has_seen_counts() -> None:
    """The rounding noise so far; the state before a step; and before the first there is none."""
    noisy = with_rounding_noise(made(rounding_noise=EPS), "raw_grads/bias", [0, 1e-9, 0, 0, 0, 0])
    off = off_by(noisy, "raw_grads", "bias", 5, 3e-9)
    assert judged(noisy, off, cuts=[0, 3, 6]).comparison().verdict is Verdict.ROUNDING
    spot = "opt_state", "gain.exp_avg"
    trace = with_leaf(made(), *spot, np.array([1, 2, 9, 3, 4, 5]) / 1000)
    other = leaf_by(*spot, lambda moment: moment * (1 + EPS))(trace)
    found = judged(trace, replayed=other, cuts=[0, 3, 6]).history.curves["gate", "opt_state"]
    expected = 8 * EPS * np.array([1, 2, 9, 9, 4, 5]) / 1000
    assert found.allowed == pytest.approx(expected, rel=1e-9, abs=0)


@pytest.mark.parametrize(("ulps", "verdict"), [(68, "rounding"), (69, "mismatch")])
def test_what_is_allowed_is_within(ulps: int, verdict: str) -> None:
    trace = with_fault(made(), "loss", "loss", 1, 1.0)
    assert compare(trace, off_by(trace, "loss", "loss", 1, ulps * EPS)).verdict == verdict


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
    off = ulps_off(made(), "params", "gain", 0)
    assert compare(made(), off).smallest_allowance("free") == math.inf


@pytest.mark.parametrize(("ulps", "asked"), [(8, []), (9, [1])])
def test_half_of_what_is_allowed_is_well_explained(ulps: int, asked: list[int]) -> None:
    trace = with_fault(made(), "loss", "loss", 2, 1.0)
    rows: list[int] = []

    def measured(at: np.ndarray) -> Leaves:
        rows.extend(at.tolist())
        return {name: array[at] for name, array in sizes(trace).items()}

    off = off_by(trace, "loss", "loss", 2, ulps * EPS)
    Judge("float64").gate(trace, off, sizes(trace), measured)
    assert rows == asked


def test_sizes_that_are_no_numbers_may_be_measured_again() -> None:
    trace = made()
    given = {**sizes(trace), "raw_grads/gain": np.full(STEPS, np.nan)}
    judge = Judge("float64")
    off = ulps_off(trace, "raw_grads", "gain", 2)
    judge.gate(trace, off, given, lambda at: {"raw_grads/gain": np.full(len(at), EPS)})
    assert judge.comparison().verdict is Verdict.ROUNDING


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(("stage", "leaf"), [("loss", "loss"), ("raw_grads", "bias")])
def test_sizes_that_are_no_numbers_prove_nothing(stage: str, leaf: str, bad: float) -> None:
    trace = made()
    given = {**sizes(trace), f"{stage}/{leaf}": np.full(STEPS, bad)}
    for off, verdict in (
        (trace, Verdict.EQUAL),
        (with_fault(trace, stage, leaf, 3, 9), Verdict.INVALID),
    ):
        judge = Judge("float64")
        judge.gate(trace, off, given)
        assert judge.comparison().verdict is verdict
        assert (judge.fault is None) is (verdict is Verdict.EQUAL)


def test_what_the_first_sizes_do_not_explain_is_measured_again() -> None:
    trace = made()
    off = off_by(trace, "loss", "loss", 2, 100 * EPS)
    off = off_by(off, "raw_grads", "gain", 5, 100 * EPS)
    off = off_by(off, "raw_grads", "bias", 5, 50 * EPS)
    asked: list[list[int]] = []

    for candidate, size, rows, verdict in (
        (trace, 1e9, [], Verdict.EQUAL),
        (off, 1e9, [[1, 4]], Verdict.ROUNDING),
        (off, 0.5, [[1, 4]], Verdict.MISMATCH),  # larger ones only
        (with_fault(off, "params", "gain", 3, 9), 1e9, [[1, 4]], Verdict.MISMATCH),
        (with_fault(trace, "params", "gain", 3, 9), 1e9, [], Verdict.MISMATCH),
        (with_fault(trace, "raw_grads", "bias", 3, np.nan), 1e9, [[2]], Verdict.MISMATCH),
    ):

        def measured(rows: np.ndarray, size: float = size) -> Leaves:
            asked.append(rows.tolist())
            small = {"raw_grads/bias": np.full(STEPS, 0.01 * EPS)}  # what was known of it stands
            return {name: array[rows] for name, array in {**sizes(trace, size), **small}.items()}

        asked.clear()
        given_sizes = sizes(trace)
        judge = Judge("float64")
        judge.gate(trace, candidate, given_sizes, measured)
        assert (asked, judge.comparison().verdict) == (rows, verdict)
        assert all(np.all(array == EPS) for array in given_sizes.values()), "left as they were"
