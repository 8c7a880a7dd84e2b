"""Whatever the numbers: the verdict is that of the allowance, however a run is cut."""

import dataclasses
import math

import numpy as np
import pytest
from helpers.judging import (
    EPS,
    JUDGED,
    MODES,
    SEARCH,
    TINY,
    VALUES,
    Mode,
    judged,
    off_by,
    strict,
    where,
    worst,
)
from helpers.synthetic_traces import LEAVES, STEPS, made, with_fault
from hypothesis import example, given
from hypothesis import strategies as st

from twinstep import Trace, Verdict, compare
from twinstep.trace.stages import STAGES

pytestmark = pytest.mark.quick_to_compile

AMOUNTS = [0.0, -0.0, 1.0, 5e-324, 1e-300, 1e300, 1.7e308, -1.7e308, np.nan, np.inf, -np.inf]
NUMBERS = st.floats(width=64) | st.sampled_from(AMOUNTS)
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(JUDGED),
        st.integers(1, STEPS),
        NUMBERS | st.integers(1, 300).map(lambda ulps: 1.0 + ulps * EPS),
    ),
    max_size=6,
)
NOISY = tuple(stage for stage in VALUES if STAGES[stage].noisy)
Changes = list[tuple[tuple[str, str], int, float]]


def changed(trace: Trace, changes: Changes) -> Trace:
    for (stage, leaf), step, value in changes:
        trace = with_fault(trace, stage, leaf, step, value)
    return trace


def passes(a: Trace, b: Trace) -> bool:
    """The plain bound, entry by entry and in plain Python: an oracle for `compare`."""
    for (_, _, ours), (stage, _, theirs) in zip(a.entries(), b.entries(), strict=True):
        largest = 0.0
        for step, (x, y) in enumerate(zip(ours, theirs, strict=True), start=1):
            pairs = list(zip(np.ravel(x).tolist(), np.ravel(y).tolist(), strict=True))
            if not all(math.isfinite(number) for pair in pairs for number in pair):
                return False
            ends = [max((abs(pair[side]) for pair in pairs), default=0.0) for side in (0, 1)]
            largest = max(largest, min(ends))
            limit = 0.0 if stage == "batch" else (64 + 4 * step) * EPS * largest + TINY
            if any(abs(p - q) > limit for p, q in pairs):
                return False
    return True


@SEARCH
@given(common=CHANGES, changes=CHANGES)
@example(common=[(("loss", "loss"), 2, np.inf), (("loss", "loss"), 3, np.inf)], changes=[])
@example(common=[(("raw_grads", "gain"), 1, 0.0)], changes=[(("raw_grads", "gain"), 1, 1e300)])
@example(common=[(("loss", "loss"), 1, 1)], changes=[(("loss", "loss"), 1, 1 - 68 * EPS)])
@example(common=[(("loss", "loss"), 1, 1)], changes=[(("loss", "loss"), 1, 1 + 68 * EPS)])
def test_any_numbers_give_the_verdict_of_the_plain_bound(common: Changes, changes: Changes) -> None:
    """Numbers of any size, and what is none; a warning would be an error."""
    a = changed(made(), common)
    b = changed(a, changes)
    there, back, same = compare(a, b), compare(b, a), compare(a, a)
    assert there.verdict.same is passes(a, b)
    assert there.verdict is back.verdict
    assert (there.first is None) == (back.first is None)
    if there.first:
        assert where(there.first) == where(back.first)
    assert same.verdict is (Verdict.EQUAL if passes(a, a) else Verdict.INVALID)
    for comparison in (there, back, same):
        strict(comparison)


@SEARCH
@given(
    spot=st.sampled_from(JUDGED),
    step=st.integers(1, STEPS),
    amounts=st.lists(st.floats(-20, 0), min_size=2, max_size=8),
    sign=st.sampled_from([-1, 1]),
    judge=st.sampled_from([*MODES.values()]),
)
def test_a_growing_fault_crosses_from_rounding_to_mismatch_once(
    spot: tuple[str, str], step: int, amounts: list[float], sign: int, judge: Mode
) -> None:
    trace = judge.trace()
    comparisons = [
        judge(trace, off_by(trace, *spot, step, sign * 10.0**amount))
        for amount in [*sorted(amounts), 1.0]
    ]
    ratios = [worst(comparison, spot[0]).ratio for comparison in comparisons]
    assert ratios == sorted(ratios)
    verdicts = [comparison.verdict for comparison in comparisons]
    order = [Verdict.EQUAL, Verdict.ROUNDING, Verdict.MISMATCH]
    assert [order.index(verdict) for verdict in verdicts] == sorted(map(order.index, verdicts))
    assert verdicts[-1] is Verdict.MISMATCH


@st.composite
def measured(draw: st.DrawFn, trace: Trace) -> Trace:
    """The trace with rounding noise that differs from step to step, or with none."""
    if draw(st.booleans()):
        return trace
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    size = draw(st.sampled_from([EPS, 1e-12, 1e-7, 1.0]))

    def random(stages: tuple[str, ...], size: float) -> dict[str, np.ndarray]:
        keys = [f"{stage}/{leaf}" for stage in stages for leaf in LEAVES[stage]]
        return {key: size * generator.uniform(0, 1, len(trace)) ** 4 for key in keys}

    rounding_noise, rounding_scale = random(NOISY, size), random(("loss", "raw_grads"), 2)
    return dataclasses.replace(trace, rounding_noise=rounding_noise, rounding_scale=rounding_scale)


@SEARCH
@given(data=st.data(), cuts=st.sets(st.integers(1, STEPS - 1)), changes=CHANGES)
@pytest.mark.parametrize("gated", [False, True], ids=["free", "gate and free"])
def test_a_run_is_judged_alike_however_it_is_cut(
    gated: bool, data: st.DataObject, cuts: set[int], changes: Changes
) -> None:
    trace = data.draw(measured(made()))
    candidate = data.draw(measured(changed(made(), changes)))
    replayed = changed(made(), data.draw(CHANGES)) if gated else None

    whole = strict(judged(trace, candidate, replayed).comparison())
    pieces = judged(trace, candidate, replayed, [0, *sorted(cuts), STEPS])
    assert strict(pieces.comparison()) == whole
    if not gated:
        assert strict(compare(trace, candidate)) == whole
