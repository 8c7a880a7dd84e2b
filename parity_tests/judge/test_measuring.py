"""One number a step: what is measured of two leaves, whatever their size, and kept of it."""

import math

import numpy as np
import pytest
from helpers.judging import EPS
from helpers.synthetic_traces import made

from twinstep import Finding
from twinstep.judge import measure, tolerance
from twinstep.judge.history import Curve, History
from twinstep.runs.gate import RoundingReference, _apparent
from twinstep.trace.stages import STAGES

pytestmark = pytest.mark.quick_to_compile

BLOCK = 65_536  # entries that are looked at together


@pytest.mark.parametrize(
    ("shape", "together"),
    [((7, BLOCK + 1), 1), ((3, BLOCK), 1), ((7, 30_000), 2), ((5, 2, BLOCK // 6), 3), ((4,), 4)],
)
def test_every_entry_of_a_large_leaf_is_looked_at(shape: tuple[int, ...], together: int) -> None:
    one = np.ones(shape)
    for row in range(len(one)):
        for position in (0, -1):
            other = one.copy()
            other.reshape(len(one), -1)[row, position] = 3
            expected = np.where(np.arange(len(one)) == row, 2.0, 0)
            assert measure.differences(one, other).tolist() == expected.tolist()
            assert measure.differences(other, one).tolist() == expected.tolist()
    rows = [range(len(one))[block] for block in measure._blocks(one)]
    assert [row for block in rows for row in block] == list(range(len(one))), "each once"
    assert {len(block) for block in rows[:-1]} <= {together}
    assert len(rows[-1]) <= together


def test_steps_of_nothing_and_no_steps_have_no_difference() -> None:
    assert [len(range(99)[block]) for block in measure._blocks(np.ones((99, 0)))] == [99]
    nothing = np.empty((2, 0))
    assert measure.differences(nothing, nothing).tolist() == [0, 0]
    assert measure.largest(nothing).tolist() == [0, 0]
    assert measure.differences(nothing[:0], nothing[:0]).tolist() == []


def test_an_overflow_is_a_difference_and_an_infinity_is_none() -> None:
    one, other = np.array([[1.5e308, 0], [np.inf, 1], [0, 1], [np.nan, 1]]), np.zeros((4, 2))
    other[:, 0], other[2, 1] = [-1.5e308, 0, 0, 0], -np.inf
    for pair in ((one, other), (other, one)):
        assert str(measure.differences(*pair)) == "[inf nan nan nan]"
    marks = np.array([[1, 2], [1, 3]], np.uint32)
    assert measure.differences(marks, marks[:1]).tolist() == [0, math.inf]


def test_the_largest_entry_may_be_negative() -> None:
    sizes = measure.largest(np.array([[1, -3], [2, 1], [-5, -4]], np.float32))
    assert (sizes.tolist(), sizes.dtype) == ([3, 2, 5], np.dtype(float))
    assert measure.largest(np.array([[True], [False]])).tolist() == [1, 0]
    both = measure.larger([{"a": np.array([1, 4])}, {"a": np.array([2, 3])}])
    assert both["a"].tolist() == [2, 4]
    assert measure.larger([]) == {}


def test_the_same_bits_are_those_of_zeros_too() -> None:
    one = np.array([0.0, 1.0])
    for other, same in (([0.0, 1.0], True), ([-0.0, 1.0], False), ([0.0, 2.0], False)):
        gap = np.abs(one - other)
        assert measure.same_bits(one, np.array(other), gap) is same
    marks = np.array([1, 2], np.uint32)
    assert measure.same_bits(marks, marks, np.zeros(2))


def test_complex_numbers_are_two_reals_in_their_signs_and_one_in_size() -> None:
    zero, other = np.array([[0j]]), np.array([[complex(0.0, -0.0)]])
    apart = measure.differences(zero, other)
    assert apart.tolist() == [0.0]
    assert not measure.same_bits(zero, other, apart)
    assert measure.same_bits(zero, zero, apart)
    assert measure.largest(np.array([[0.3 + 0.4j, 0.1j], [0j, 0j]])).tolist() == [0.5, 0.0]
    assert measure.largest(np.zeros((2, 0), complex)).tolist() == [0.0, 0.0]


def test_whole_numbers_have_no_floor() -> None:
    assert tolerance.floor("int64") == tolerance.floor("bool") == 0


def test_a_finding_is_the_worst_entry() -> None:
    def found(gap: float) -> Finding:
        return measure.finding(3, "raw_grads", "w", a, b, np.float64(gap), np.float64(0.5))

    a, b = np.array([[1.0, 2.0], [3.0, -4.0]]), np.array([[1.0, 2.5], [2.0, -4.0]])
    one = found(1.0)
    assert (one.index, one.reference, one.candidate) == ((1, 0), 3.0, 2.0)
    assert (one.difference, one.allowed, one.ulps) == (1.0, 0.5, 2.0**51)
    # no number at all is worse than any difference, and worst where one side alone has none
    b[0, 0] = np.nan
    one = found(np.nan)
    assert (one.index, one.difference, one.ulps) == ((0, 0), math.inf, math.inf)
    a[0, 0], a[1, 1], b[1, 0] = np.nan, np.inf, 3e3
    assert found(np.nan).index == (1, 1)
    b[1, 1] = np.inf
    assert found(np.nan).index == (0, 0)
    nothing, sides = np.empty((0, 2)), ("torch", "jax")
    one = measure.finding(3, "raw_grads", "w", nothing, nothing, 0.0, 0.5, sides)
    assert one == Finding(3, "raw_grads", "w", (), 0.0, 0.0, 0.0, 0.5, 0.0, sides)


@pytest.mark.parametrize(("other", "ulps"), [(7, 0.0), (8, math.inf)])
def test_fingerprints_are_the_same_or_not(other: int, ulps: float) -> None:
    one, two = np.array(7, np.uint32), np.array(other, np.uint32)
    assert measure.finding(1, "batch", "x", one, two, 0.0, 0.0).ulps == ulps


def test_two_evaluations_are_found_apart_by_outputs_names_and_figures() -> None:
    outputs = np.array([[1.0, 2.0, 0.0], [3.0, 1.0, 0.5], [0.0, 5.0, 4.0], [7.0, 0.0, 0.0]])
    one = {"outputs": outputs, "predictions": np.array([1, 0, 1, 0])}
    # the third is named from further behind than the first; the last alike
    other = {"outputs": outputs + 0.25, "predictions": np.array([0, 0, 0, 0])}
    figures = {"correct": (2.0, 4.0), "images": (4.0, 4.0)}
    found = measure.of_evaluations(9, one, other, figures, 0.5, ("torch", "jax"))
    assert [f.leaf for f in found] == ["outputs", "predictions[2]", "correct", "images"]
    assert {(f.step, f.stage, f.sides) for f in found} == {(9, "evaluation", ("torch", "jax"))}
    assert [f.difference for f in found] == [0.25, 5.0, 2.0, 0.0]
    assert [f.allowed for f in found] == [0.5, 1.0, 2.0, 2.0]
    assert [(f.reference, f.candidate) for f in found[1:]] == [(1, 0), (2, 4), (4, 4)]
    assert [f.ulps for f in found[1:]] == [math.inf, 0, 0]
    assert found[1].index == found[2].index == ()
    same = measure.of_evaluations(9, one, one, figures, 0.5, ("torch", "jax"))
    assert [(f.leaf, f.allowed) for f in same] == [("outputs", 0.5), ("correct", 0), ("images", 0)]


# ------------------------------------------------------------------------------------------ figures


def test_the_figures_are_those_of_their_reasons() -> None:
    """Whoever changes one has to give a reason, and to say which faults are still found."""
    one_step = {name: stage.one_step for name, stage in STAGES.items() if not stage.exact}
    gradients = {"raw_grads": 64, "grads": 64}
    state = {"opt_state": 8, "params": 4, "buffers": 8}
    losses = {"micro_losses": 16, "loss": 16}
    others = {"before": 8, "activations": 64, "evaluation": 64}
    assert one_step == {**others, **losses, **gradients, **state}
    assert (tolerance.PERTURBED_RERUNS, tolerance.WELL_EXPLAINED) == (3, 0.5)
    assert tolerance.ROUNDING_NOISE_FACTOR == 4
    # honest gradients were up to 18 eps apart
    assert tolerance.ROUNDING_NOISE_FACTOR * tolerance.GRADIENT_PERTURBATION == 16
    assert (tolerance.PLAIN_EPS, tolerance.PLAIN_EPS_A_STEP) == (64, 4)
    for dtype, bits, tiny in (("float64", 52, -1022), ("float32", 23, -126)):
        assert tolerance.eps(dtype) == 2.0**-bits
        # of the numbers below `tiny`, times up to 1 / eps
        assert tolerance.floor(dtype) == 2.0 ** (tiny + bits)
        # half of the digits, and three quarters
        assert tolerance.chaos_threshold(dtype) == pytest.approx(2 ** (-bits / 2), rel=1e-7)
        assert tolerance.max_growth(dtype) == pytest.approx(2 ** (bits / 2), rel=1e-7)
        assert tolerance.max_noise_share(dtype) == pytest.approx(2 ** (-bits / 4), rel=1e-7)
        assert tolerance.max_perturbation_share(dtype, dtype) == tolerance.max_noise_share(dtype)
    assert tolerance.max_perturbation_share("float32", "float64") == 1


def test_what_float32_loses_is_the_smaller_of_two_distances() -> None:
    """From float64; and no more than three quarters of the digits, in units of the allowance."""
    exact = np.array([[2.0, -4.0]] * 4)
    near, far, off = (np.array([[2.0, -4.0 - gap]] * 4, "float32") for gap in (2**-18, 2**-17, 3))
    reference = RoundingReference.__new__(RoundingReference)  # which would train
    reference._judged = "float32"
    for one, other, found in ((near, far, 2**-18), (far, near, 2**-18), (exact, far, 0)):
        assert reference._lost("raw_grads", exact, one, other).tolist() == [found] * 4
    limit = 4 * 2 ** (-23 / 4)
    for stage, amount in (("loss", 16), ("raw_grads", 64), ("evaluation", 64)):
        lost = reference._lost(stage, exact, off, off)
        assert lost == pytest.approx(np.full(4, limit / amount), rel=1e-6)
    nan = np.full((4, 2), np.nan, "float32")  # of one side says nothing
    for pair in ((nan, near), (near, nan)):
        assert reference._lost("raw_grads", exact, *pair).tolist() == [2**-18] * 4


def test_the_least_that_a_step_rounds_is_an_eps_of_its_largest_entries() -> None:
    trace = made(dtype="float32")
    found = _apparent(trace)
    assert set(found) == {"loss/loss"} | {f"raw_grads/{leaf}" for leaf in trace.raw_grads}
    sizes = 2.0**-23 * np.max(np.abs(trace.raw_grads["bias"]), axis=1)
    assert found["raw_grads/bias"] == pytest.approx(sizes, rel=1e-6, abs=0)
    assert found["loss/loss"] == pytest.approx(2.0**-23 * np.abs(trace.losses), rel=1e-6, abs=0)


# --------------------------------------------------------------------------------------- the curves


def curve(steps: np.ndarray, ratio: np.ndarray, leaf: str) -> Curve:
    return Curve(steps, ratio * EPS, np.full(len(steps), EPS), np.full(len(steps), leaf))


@pytest.mark.parametrize(
    ("steps", "points"), [(1, 1), (1024, 1024), (1025, 513), (2048, 1024), (2049, 513)]
)
def test_a_curve_keeps_the_worst_of_each_few_steps(steps: int, points: int) -> None:
    numbers = np.arange(1, steps + 1)
    ratios = {"a": numbers * 7 % 10, "b": numbers * 3 % 10}
    history = History()
    for leaf, ratio in ratios.items():
        history.add("free", "loss", curve(numbers, ratio, leaf), ratio)
    history.add("gate", "loss", curve(numbers, numbers, "c"), numbers)
    found = history.curves["free", "loss"]
    assert len(found.steps) == points
    width = 2 ** math.ceil(math.log2(max(1, steps / 1024)))
    worst = np.maximum(*ratios.values())
    for row, low in enumerate(range(0, steps, width)):
        few = worst[low : low + width]
        assert found.difference[row] == few.max() * EPS
        assert found.steps[row] == low + 1 + np.argmax(few), "of equals the earliest"
        assert ratios[found.leaf[row]][found.steps[row] - 1] == few.max()
    assert set(history.curves["gate", "loss"].leaf) == {"c"}


def test_a_curve_of_many_chunks_stays_bounded_and_keeps_the_worst() -> None:
    numbers, history = np.arange(1, 5001), History()
    ratio = numbers * 7 % 10.0
    ratio[3456] = 99
    for low in range(0, 5000, 300):
        at = slice(low, low + 300)
        history.add("gate", "loss", curve(numbers[at], ratio[at], "a"), ratio[at])
        found = history.curves["gate", "loss"]
        assert 256 <= len(found.steps) <= 1024
        assert np.all(np.diff(found.steps) > 0)
        assert np.array_equal(found.difference, ratio[found.steps - 1] * EPS)
    assert 3457 in found.steps
