"""What a test makes of the last parameters is a stage: outputs, the classes they name, figures."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.judging import EPS, gate, judged, off_by, strict, where, with_rounding_noise
from helpers.storing import bits, reloaded
from helpers.synthetic_traces import STEPS, made, refused

from twinstep import Comparison, Trace, Verdict, compare, open_trace
from twinstep.judge import tolerance
from twinstep.trace.joining import concatenate
from twinstep.trace.stages import STAGES

OUTPUTS = np.array([[1.0, 2.0, 0.5], [1.5, 1.5 - 4 * EPS, -1.0], [0.25, -2.0, 2.0]])
TESTED: dict[str, np.ndarray] = {
    "outputs": OUTPUTS,
    "predictions": np.argmax(OUTPUTS, axis=1),
    "rounding_noise": np.array(EPS),
    "rounding_scale": np.array(EPS),
}
PLAIN: dict[str, Any] = {"rounding_noise": None, "rounding_scale": None}


def evaluated(trace: Trace, **changes: Any) -> Trace:
    """A trace that ends with a test of three samples, some of it changed."""
    evaluation = {**TESTED, **changes}
    metrics = {"correct": 2.0, "test_images": 3.0}
    kept = {name: array for name, array in evaluation.items() if array is not None}
    return dataclasses.replace(trace, evaluation=kept, metrics=metrics)


def figure(trace: Trace, **changes: float) -> Trace:
    return dataclasses.replace(trace, metrics={**trace.metrics, **changes})


@pytest.mark.parametrize("judge", [gate, compare])
def test_an_evaluation_is_judged(judge: Callable[[Trace, Trace], Comparison]) -> None:
    trace = evaluated(made(rounding_noise=EPS))
    assert judge(trace, trace).verdict is Verdict.EQUAL
    amount = STAGES["evaluation"].one_step + (judge is compare) * tolerance.ROUNDING_NOISE_FACTOR
    for off, verdict in ((0.9, Verdict.ROUNDING), (1.1, Verdict.MISMATCH)):
        outputs = OUTPUTS + np.array([0, 0, off * amount * EPS])
        found = judge(trace, evaluated(trace, outputs=outputs))
        assert found.verdict is verdict
        strict(found)
    assert where(found.first) == (STEPS, "evaluation", "outputs")
    # argmin for argmax
    other = judge(trace, evaluated(trace, predictions=np.argmin(OUTPUTS, axis=1)))
    assert where(other.first) == (STEPS, "evaluation", "predictions[2]")
    assert other.verdict is Verdict.MISMATCH
    # two outputs closer than rounding is may be named in either order, and so counted
    near = evaluated(trace, predictions=np.array([1, 1, 2]))
    assert judge(trace, near).verdict is Verdict.ROUNDING
    assert judge(trace, figure(near, correct=1)).verdict is Verdict.ROUNDING
    assert judge(trace, figure(near, correct=0)).verdict is Verdict.MISMATCH
    counted = judge(trace, figure(trace, correct=1))
    assert where(counted.first) == (STEPS, "evaluation", "correct")
    for bad in (np.nan, np.inf):
        no_number = evaluated(trace, outputs=np.where(OUTPUTS == 0.5, bad, OUTPUTS))
        assert judge(trace, no_number).verdict is Verdict.MISMATCH


def test_an_evaluation_comes_after_what_it_is_made_of() -> None:
    trace = evaluated(made(rounding_noise=EPS))
    wrong = evaluated(trace, predictions=np.argmin(OUTPUTS, axis=1))
    found = compare(trace, off_by(wrong, "params", "bias", STEPS, 1))
    assert where(found.first) == (STEPS, "params", "bias")


def test_an_evaluation_that_alone_is_off_in_the_free_run_is_drift() -> None:
    """The gate has judged the test of the very same parameters."""
    trace = evaluated(made(rounding_noise=EPS))
    found = judged(trace, evaluated(trace, outputs=OUTPUTS + 1e-9), trace)
    assert found.comparison().verdict is Verdict.DRIFT


@pytest.mark.parametrize("row", [3, STEPS - 1])
def test_beyond_the_horizon_an_evaluation_is_not_judged(row: int) -> None:
    noise = np.where(np.arange(STEPS) == row, 1e-3, EPS)
    trace = with_rounding_noise(evaluated(made(rounding_noise=EPS)), "loss/loss", noise)
    other = evaluated(trace, outputs=-OUTPUTS, predictions=np.array([2, 2, 1]))
    assert compare(trace, figure(other, correct=0)).verdict is Verdict.ROUNDING
    found = compare(trace, evaluated(trace, outputs=OUTPUTS * np.nan))
    assert found.verdict is Verdict.MISMATCH
    assert found.worst["free"]["evaluation"].allowed == math.inf, "what is a number is not judged"
    assert compare(trace, figure(trace, correct=np.nan)).verdict is Verdict.MISMATCH


def test_without_noise_an_evaluation_is_judged_by_the_plain_bound() -> None:
    trace = evaluated(made(), **PLAIN)
    bound = (64 + 4 * STEPS) * EPS * 2
    for off, verdict in ((0.9, Verdict.ROUNDING), (1.1, Verdict.MISMATCH)):
        other = evaluated(trace, outputs=OUTPUTS + off * bound, **PLAIN)
        assert compare(trace, other).verdict is verdict


def allowed(one: Trace, other: Trace) -> float:
    """What two free runs may be apart in their outputs."""
    return compare(one, other).worst["free"]["evaluation"].allowed


def test_what_is_measured_of_an_evaluation_is_the_larger_of_two() -> None:
    """The plain bound is that of the smaller outputs; which trace is named first is no matter."""
    trace = evaluated(made(rounding_noise=EPS))
    quiet = evaluated(trace, outputs=OUTPUTS + EPS, **PLAIN)
    large = evaluated(trace, outputs=OUTPUTS * 4, **PLAIN)
    for changes, eps in (
        ({"rounding_noise": np.array(3 * EPS)}, 4 * 3 + 64),
        ({"rounding_scale": np.array(5 * EPS)}, 4 + 64 * 5),
        (PLAIN, 68),
        ({"rounding_noise": np.array(9.0), "rounding_scale": None}, 68),
    ):
        other = evaluated(trace, outputs=OUTPUTS + EPS, **changes)
        for pair in ((trace, other), (other, trace)):
            assert allowed(*pair) == pytest.approx(eps * EPS, rel=1e-9, abs=0)
    plain = (64 + 4 * STEPS) * EPS * 2
    for pair in ((large, quiet), (quiet, large)):
        assert allowed(*pair) == pytest.approx(plain, rel=1e-9, abs=0)
    zero = np.zeros(())
    exact = evaluated(trace, outputs=OUTPUTS * 0, rounding_noise=zero, rounding_scale=zero)
    assert allowed(exact, exact) == 2.0**-970
    later = [dataclasses.replace(one, start=10) for one in (large, quiet)]
    assert allowed(*later) == pytest.approx((64 + 4 * (STEPS + 10)) * EPS * 2, rel=1e-9, abs=0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rounding_that_is_no_number_proves_nothing(bad: float) -> None:
    trace = evaluated(made(rounding_noise=EPS), rounding_scale=np.array(bad))
    found = compare(trace, evaluated(trace, outputs=OUTPUTS + 1, rounding_scale=np.array(bad)))
    assert found.verdict is Verdict.INVALID
    assert found.smallest_allowance("free") == math.inf
    assert compare(trace, trace).verdict is Verdict.EQUAL


def test_one_side_alone_that_tests_is_another_structure() -> None:
    trace = made(rounding_noise=EPS)
    refused(lambda: compare(trace, evaluated(trace)), "evaluation, outputs", "only the second")
    fewer = evaluated(trace, outputs=OUTPUTS[:2], predictions=np.array([1, 0]))
    refused(lambda: compare(fewer, evaluated(trace)), "(2, 3) and (3, 3)")
    assert gate(trace, evaluated(trace)).verdict is Verdict.MISMATCH


FLAWS: dict[str, tuple[dict[str, Any], str]] = {
    "no predictions": ({"predictions": None}, "predictions is missing"),
    "nothing of it": ({"outputs": None, "predictions": None}, "outputs is missing"),
    "other names": ({"labels": np.zeros(3), "scores": np.zeros(3)}, "labels is none"),
    "outputs of another dtype": ({"outputs": OUTPUTS.astype("float32")}, "float32"),
    "outputs without classes": ({"outputs": OUTPUTS[:, 0]}, "(3,)"),
    "predictions that are no whole numbers": ({"predictions": np.zeros(3)}, "float64"),
    "a prediction for each class": ({"predictions": np.zeros(4, int)}, "(4,)"),
    "no such class": ({"predictions": np.array([0, 1, 3])}, "3 classes"),
    "more samples than classes": ({"outputs": OUTPUTS[:, :2]}, "2 classes"),
    "a negative class": ({"predictions": np.array([0, 1, -1])}, "3 classes"),
    "noise of each sample": ({"rounding_noise": np.zeros(3)}, "rounding_noise has shape (3,)"),
}


@pytest.mark.parametrize(("changes", "says"), FLAWS.values(), ids=FLAWS)
def test_what_is_no_evaluation_is_refused(changes: Any, says: str, tmp_path: Path) -> None:
    trace = evaluated(made(), **changes)
    refused(lambda: compare(evaluated(made()), trace), "evaluation", says)
    refused(lambda: trace.save(tmp_path / "trace"), "evaluation", says)


def test_an_evaluation_is_saved_with_the_last_steps(tmp_path: Path) -> None:
    trace = evaluated(made(rounding_noise=EPS))
    reloaded(trace, tmp_path)
    pieces = [made(rounding_noise=EPS).slice(0, 4), trace.slice(4, STEPS)]
    assert bits(concatenate(pieces)) == bits(trace)
    assert open_trace(tmp_path / "trace").complete
