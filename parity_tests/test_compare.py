"""The judge is held to traces whose answer is known: each verdict, each refusal, each figure.

The traces are made by hand, so that a planted fault is all that is in them. What must be found
stands beside what must be let pass.
"""

import dataclasses
import json
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from handmade import (
    LEAVES,
    STEPS,
    entry,
    leaf_of,
    made,
    metadata,
    planted,
    rank,
    refused,
    with_leaf,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from twinstep import Comparison, Finding, InputError, Trace, Verdict, compare, tolerance
from twinstep.judge import Judge
from twinstep.structure import structure
from twinstep.trace import Leaves

SEARCH = settings(max_examples=150, deadline=None, derandomize=True)
EPS = 2.0**-52
TINY = 2.0**-1022
VALUES = ("loss", "grads", "opt_state", "params")  # the stages that are judged by an allowance
JUDGED = [(stage, leaf) for stage in VALUES for leaf in LEAVES[stage] if "none" not in leaf]
PLACES = [("batch", "x"), ("batch", "y"), *JUDGED]

Change = Callable[[Trace], Trace]
Mode = Callable[[Trace, Trace], Comparison]


def gate(reference: Trace, candidate: Trace) -> Comparison:
    """Judges each step alone; what losses and gradients are made of has size 1."""
    judge = Judge(reference.metadata.dtype)
    judge.gate(reference, candidate, sizes(reference))
    return judge.comparison()


def sizes(trace: Trace, size: float = 1.0) -> dict[str, np.ndarray]:
    keys = [f"{stage}/{leaf}" for stage in ("loss", "grads") for leaf in LEAVES[stage]]
    return {key: np.full(len(trace), size) for key in keys}


# how two traces are judged, and the noise that they bring, in eps
MODES: dict[str, tuple[Mode, float | None]] = {
    "gate": (gate, None),
    "plain": (compare, None),
    "measured": (compare, 3),
}
each_mode = pytest.mark.parametrize(("judge", "noise"), MODES.values(), ids=MODES.keys())
each_leaf = pytest.mark.parametrize(("stage", "leaf"), JUDGED, ids=["/".join(p) for p in JUDGED])


def base(noise: float | None, dtype: str = "float64", steps: int = STEPS) -> Trace:
    eps = float(np.finfo(dtype).eps)
    return made(steps, dtype=dtype, noise=None if noise is None else noise * eps)


def where(finding: Finding | None) -> tuple[int, str, str]:
    assert finding is not None
    return finding.step, finding.stage, finding.leaf


def worst(comparison: Comparison, stage: str) -> Finding:
    (stages,) = comparison.worst.values()
    return stages[stage]


def nudged(value: float, ulps: int, dtype: str = "float64") -> float:
    """So many numbers of the dtype further from 0."""
    number = np.asarray(value, dtype)
    for _ in range(ulps):
        number = np.nextafter(number, np.copysign(np.asarray(np.inf, dtype), number))
    return float(number)


# ----------------------------------------------------------------------------------------- verdicts


@each_mode
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_trace_is_equal_to_itself(judge: Mode, noise: float | None, dtype: str) -> None:
    trace = base(noise, dtype)
    comparison = judge(trace, trace)
    assert (comparison.verdict, comparison.first) == (Verdict.EQUAL, None)
    assert comparison.verdict.same
    assert comparison.steps == STEPS
    assert [comparison.smallest_allowance(mode) for mode in comparison.worst] == [0.0]


@each_mode
@each_leaf
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_one_ulp_is_rounding_and_counted(
    judge: Mode, noise: float | None, stage: str, leaf: str, dtype: str
) -> None:
    trace = base(noise, dtype)
    value = entry(trace, stage, leaf, 3)
    comparison = judge(trace, planted(trace, stage, leaf, 3, nudged(value, 1, dtype)))
    assert (comparison.verdict, comparison.first) == (Verdict.ROUNDING, None)
    found = worst(comparison, stage)
    assert where(found) == (3, stage, leaf)
    assert found.ulps == 1
    assert (found.reference, found.candidate) == (value, nudged(value, 1, dtype))
    assert found.difference == abs(value - nudged(value, 1, dtype))
    assert found.index == tuple(n - 1 for n in leaf_of(trace, stage, leaf).shape[1:])


@each_mode
@each_leaf
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, 1e300, 3.0])
def test_a_fault_on_one_side_is_a_mismatch(
    judge: Mode, noise: float | None, stage: str, leaf: str, value: float
) -> None:
    trace = base(noise)
    faulty = planted(trace, stage, leaf, 3, value)
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
    judge: Mode, noise: float | None, stage: str, leaf: str, one: float, other: float
) -> None:
    trace = base(noise)
    pair = planted(trace, stage, leaf, 3, one), planted(trace, stage, leaf, 3, other)
    comparison = judge(*pair)
    assert comparison.verdict is Verdict.INVALID
    assert where(comparison.first) == (3, stage, leaf)
    for text in ("step 3", stage, leaf, str(one), str(other)):
        assert text in comparison.reason


@each_mode
def test_no_number_on_one_side_is_not_hidden_by_one_on_both(
    judge: Mode, noise: float | None
) -> None:
    trace = base(noise)
    bias = trace.grads["bias"].copy()
    bias[2, 0] = np.nan
    both = with_leaf(trace, "grads", "bias", bias)
    comparison = judge(both, planted(both, "grads", "bias", 3, np.nan))
    assert comparison.verdict is Verdict.MISMATCH
    assert comparison.first is not None
    assert comparison.first.index == (2,)


@each_mode
@each_leaf
def test_a_zero_with_a_sign_is_rounding(
    judge: Mode, noise: float | None, stage: str, leaf: str
) -> None:
    trace = planted(base(noise), stage, leaf, 3, 0.0)
    comparison = judge(trace, planted(trace, stage, leaf, 3, -0.0))
    assert (comparison.verdict, comparison.first) == (Verdict.ROUNDING, None)
    assert worst(comparison, stage).ulps == 0


@each_mode
@pytest.mark.parametrize("leaf", LEAVES["batch"])
def test_another_batch_is_a_mismatch(judge: Mode, noise: float | None, leaf: str) -> None:
    trace = base(noise)
    other = trace.batch[leaf].copy()
    other[1] ^= 1
    comparison = judge(trace, with_leaf(trace, "batch", leaf, other))
    assert comparison.verdict is Verdict.MISMATCH
    assert where(comparison.first) == (2, "batch", leaf)


@pytest.mark.parametrize("noise", [None, 3])
@pytest.mark.parametrize("leaf", ["weight", "bias", "gain"])
def test_runs_start_from_the_very_same_parameters(noise: float | None, leaf: str) -> None:
    trace = base(noise)
    off = planted(trace, "params", leaf, 0, nudged(entry(trace, "params", leaf, 0), 1))
    comparison = compare(trace, off)
    assert comparison.verdict is Verdict.MISMATCH
    assert where(comparison.first) == (0, "params", leaf)
    assert comparison.smallest_allowance("free") == math.inf, "no allowance lets it pass"
    zero = planted(trace, "params", leaf, 0, 0.0)
    signed = planted(trace, "params", leaf, 0, -0.0)
    assert compare(zero, zero).verdict is Verdict.EQUAL
    assert compare(zero, signed).verdict is Verdict.ROUNDING
    nan = planted(trace, "params", leaf, 0, np.nan)
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
    "zero gradients": (lambda t: _still(t, "grads", 0), "gradients"),
    "parameters still": (lambda t: _still(t, "params", None), "parameter"),
    "loss still": (lambda t: _still(t, "loss", 1), "loss"),
}


@each_mode
@pytest.mark.parametrize(("change", "says"), NOTHING.values(), ids=NOTHING.keys())
def test_where_nothing_happens_nothing_is_proved(
    judge: Mode, noise: float | None, change: Change, says: str
) -> None:
    trace = change(base(noise))
    comparison = judge(trace, trace)
    assert comparison.verdict is Verdict.INVALID
    assert says in comparison.reason
    # a fault is a fault all the same
    assert judge(trace, planted(trace, "grads", "gain", 3, 2)).verdict is Verdict.MISMATCH
    # a gradient that is not 0 all the time, a single update: something happened
    once = planted(trace, "grads", "gain", STEPS, 2) if says == "gradients" else base(noise)
    assert judge(once, once).verdict is Verdict.EQUAL


def test_it_takes_two_runs_in_which_something_happens() -> None:
    """Which trace is named first does not matter."""
    still = _still(made(), "loss", 1)
    moves = planted(still, "loss", "loss", 3, 1 + EPS)
    assert compare(still, moves).verdict is Verdict.INVALID
    assert compare(moves, still).verdict is Verdict.INVALID
    assert compare(moves, moves).verdict is Verdict.EQUAL


def test_one_step_has_no_loss_that_could_move() -> None:
    assert compare(made(1), made(1)).verdict is Verdict.EQUAL


def test_no_steps_prove_nothing() -> None:
    comparison = compare(made(0), made(0))
    assert (comparison.verdict, comparison.reason) == (Verdict.INVALID, "no steps")
    assert Judge("float64").comparison().verdict is Verdict.INVALID


def test_scalars_and_empty_tensors_are_leaves() -> None:
    trace = made()
    for leaf in ("gain", "none"):
        assert leaf_of(trace, "grads", leaf).size == (STEPS if leaf == "gain" else 0)
    comparison = compare(trace, planted(trace, "params", "gain", 2, 9))
    assert comparison.first is not None
    assert (comparison.first.index, comparison.first.candidate) == ((), 9)
    nothing = trace
    for stage in ("grads", "opt_state", "params"):
        nothing = _without(stage, *(leaf for leaf in LEAVES[stage] if "none" not in leaf))(nothing)
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
    pair = [planted(made(dtype=dtype), "loss", "loss", 1, value) for value in (one, other)]
    assert worst(compare(*pair), "loss").ulps == ulps


# ---------------------------------------------------------------------------------------- structure


def _spec(**changes: Any) -> Change:
    def change(trace: Trace) -> Trace:
        spec = {**trace.metadata.spec, **changes}
        return dataclasses.replace(trace, metadata=metadata(spec=spec))

    return change


def _reshaped(stage: str, leaf: str, *shape: int) -> Change:
    return lambda t: with_leaf(t, stage, leaf, leaf_of(t, stage, leaf).reshape(shape))


def _rows(stage: str, leaf: str, rows: slice) -> Change:
    return lambda t: with_leaf(t, stage, leaf, leaf_of(t, stage, leaf)[rows])


def _without(stage: str, *leaves: str) -> Change:
    def change(trace: Trace) -> Trace:
        kept = {k: v for k, v in getattr(trace, stage).items() if k not in leaves}
        fields: dict[str, Any] = {stage: kept}
        return dataclasses.replace(trace, **fields)

    return change


OTHERS: dict[str, tuple[Change, tuple[str, ...]]] = {
    "example": (
        lambda t: dataclasses.replace(t, metadata=metadata(example="other")),
        ("examples", "handmade", "other"),
    ),
    "setting": (_spec(seed=1), ("settings", "seed", "0", "1")),
    "betas": (_spec(betas=(0.9, 0.99)), ("betas", "0.999")),
    "setting more": (_spec(momentum=0.9), ("momentum", "None", "0.9")),
    "length": (lambda t: t.cut(0, 5), ("6 steps", "5 steps")),
    "start": (lambda t: dataclasses.replace(t, start=1), ("start", "0", "1")),
    "a gradient less": (_without("grads", "bias"), ("grads, bias", "first")),
    "two parameters less": (_without("params", "gain", "weight"), ("params, weight",)),
    "no optimizer state": (_without("opt_state", *LEAVES["opt_state"]), ("weight.exp_avg",)),
    "a leaf more": (lambda t: with_leaf(t, "batch", "z", t.batch["x"]), ("batch, z", "second")),
    "(3,) and (3, 1)": (_reshaped("grads", "bias", STEPS, 3, 1), ("grads, bias", "(3,)", "(3, 1)")),
    "() and (1,)": (_reshaped("params", "gain", STEPS + 1, 1), ("params, gain", "()", "(1,)")),
    "(3, 2) and (2, 3)": (_reshaped("grads", "weight", STEPS, 2, 3), ("(3, 2)", "(2, 3)")),
    "(0,) and (0, 5)": (_reshaped("grads", "none", STEPS, 0, 5), ("grads, none", "(0, 5)")),
    "losses a table": (_reshaped("loss", "loss", STEPS, 1), ("loss", "(6, 1)")),
    "one row": (_rows("grads", "bias", slice(1)), ("grads, bias", "6 rows")),
    "a row less": (_rows("opt_state", "bias.exp_avg", slice(5)), ("bias.exp_avg", "6 rows")),
    "one batch": (_rows("batch", "x", slice(1)), ("batch, x", "6 rows")),
    "no initial parameters": (_rows("params", "bias", slice(1, None)), ("params, bias", "7 rows")),
    "a scalar": (
        lambda t: with_leaf(t, "params", "gain", np.array(1.0)),
        ("params, gain", "()"),
    ),
    "dtype of a leaf": (
        lambda t: with_leaf(t, "grads", "bias", t.grads["bias"].astype(np.float32)),
        ("grads, bias", "float32", "float64"),
    ),
    "dtype of a batch": (
        lambda t: with_leaf(t, "batch", "x", t.batch["x"].astype(np.int64)),
        ("batch, x", "uint32", "int64"),
    ),
    "dtype as it says": (
        lambda t: dataclasses.replace(t, metadata=metadata(dtype="float32")),
        ("float64", "float32"),
    ),
}


@pytest.mark.parametrize(("change", "says"), OTHERS.values(), ids=OTHERS.keys())
def test_what_is_not_alike_is_not_compared(change: Change, says: tuple[str, ...]) -> None:
    refused(lambda: compare(made(), change(made())), *says)
    with pytest.raises(InputError):
        compare(change(made()), made())


def _noise(change: Callable[[dict[str, np.ndarray]], object], field: str = "noise") -> Change:
    def changed(trace: Trace) -> Trace:
        leaves = dict(getattr(trace, field))
        change(leaves)
        fields: dict[str, Any] = {field: leaves}
        return dataclasses.replace(trace, **fields)

    return changed


UNMEASURED: dict[str, Change] = {
    "a leaf without": _noise(lambda noise: noise.pop("grads/bias")),
    "a step without": _noise(lambda noise: noise.update({"grads/bias": np.zeros(5)})),
    "a number an entry": _noise(lambda noise: noise.update({"grads/bias": np.zeros((6, 3))})),
    "no scale": _noise(lambda scales: scales.pop("grads/bias"), "scales"),
}


@pytest.mark.parametrize("change", UNMEASURED.values(), ids=UNMEASURED.keys())
def test_noise_that_is_not_of_this_run_is_refused(change: Change) -> None:
    noisy = made(noise=EPS)
    refused(lambda: compare(made(), change(noisy)), "second", "grads, bias")
    refused(lambda: compare(change(noisy), made()), "first", "grads, bias")


THE_SAME: dict[str, Change] = {
    "another length in the spec": _spec(epochs=3, steps=6),
    "from another folder": _spec(data_dir="elsewhere"),
    "a list for a tuple": _spec(betas=[0.9, 0.999]),
    "another framework": lambda t: dataclasses.replace(t, metadata=metadata(framework="jax")),
    "leaves in another order": lambda t: dataclasses.replace(
        t, grads=dict([*t.grads.items()][::-1])
    ),
}


@pytest.mark.parametrize("change", THE_SAME.values(), ids=THE_SAME.keys())
def test_what_is_no_part_of_the_problem_may_differ(change: Change) -> None:
    assert compare(made(), change(made())).verdict is Verdict.EQUAL


def test_verifying_names_another_structure_as_a_fault() -> None:
    """Two sides that are trained here have to come out alike: there it is no bad input."""
    trace = made()
    other = _reshaped("grads", "bias", STEPS, 3, 1)(trace)
    for judge in (Judge("float64"), Judge("float64")):
        judge.free(trace, other)
        judge.gate(trace, trace, sizes(trace))
        comparison = judge.comparison()
        assert comparison.verdict is Verdict.MISMATCH
        assert "grads, bias: shapes (3,) and (3, 1)" in comparison.reason
    assert structure(trace, trace) is None
    short = _rows("grads", "bias", slice(1))(trace)
    assert "6 rows and 1 rows" in str(structure(trace, short))


# -------------------------------------------------------------------------------------------- order


@st.composite
def faults(draw: st.DrawFn) -> list[tuple[int, str, str]]:
    """Places (step, stage, leaf), each once."""
    places = st.tuples(st.integers(1, STEPS), st.sampled_from(PLACES))
    drawn = draw(st.lists(places, min_size=1, max_size=5, unique=True))
    return [(step, stage, leaf) for step, (stage, leaf) in drawn]


@SEARCH
@given(planted_at=faults(), name=st.sampled_from(sorted(MODES)))
def test_the_first_finding_is_first_in_the_ledger(
    planted_at: list[tuple[int, str, str]], name: str
) -> None:
    judge, noise = MODES[name]
    trace = faulty = base(noise)
    for step, stage, leaf in planted_at:
        faulty = planted(faulty, stage, leaf, step, 5)
    comparison = judge(trace, faulty)
    expected = min(planted_at, key=lambda p: (p[0], rank(p[1], p[2])))
    assert comparison.verdict is Verdict.MISMATCH
    assert where(comparison.first) == expected


# --------------------------------------------------------------------------------------- allowances


def scaled(patch: pytest.MonkeyPatch, factor: float) -> None:
    """Every allowance times `factor`."""
    eps, floor = tolerance.eps, tolerance.floor
    patch.setattr(tolerance, "eps", lambda dtype: eps(dtype) * factor)
    patch.setattr(tolerance, "floor", lambda dtype: floor(dtype) * factor)
    patch.setattr(tolerance, "NOISE_FACTOR", tolerance.NOISE_FACTOR * factor)


@each_mode
@each_leaf
@pytest.mark.parametrize("ulps", [1, 1000])
def test_the_smallest_allowance_just_passes(
    judge: Mode, noise: float | None, stage: str, leaf: str, ulps: int
) -> None:
    trace = base(noise)
    off = planted(trace, stage, leaf, 4, nudged(entry(trace, stage, leaf, 4), ulps))
    off = planted(off, "params", "gain", 5, nudged(entry(trace, "params", "gain", 5), 1))
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


def with_noise(trace: Trace, key: str, values: Any) -> Trace:
    """The same trace with the noise of one leaf replaced, where it has any."""
    noise = {**(trace.noise or {}), key: np.asarray(values, trace.metadata.dtype)}
    return dataclasses.replace(trace, noise=noise)


def test_noise_is_used_where_either_trace_has_it() -> None:
    quiet, noisy, loud = made(), made(noise=EPS), made(noise=1e-9)
    off = 2e-9

    def far(trace: Trace) -> Trace:
        return planted(trace, "params", "bias", 4, entry(trace, "params", "bias", 4) + off)

    plain = "plain bound"
    cases = [
        (quiet, quiet, plain, Verdict.MISMATCH),
        (noisy, quiet, "noise", Verdict.MISMATCH),
        (quiet, noisy, "noise", Verdict.MISMATCH),
        (loud, quiet, "noise", Verdict.ROUNDING),
        (quiet, loud, "noise", Verdict.ROUNDING),
        (noisy, loud, "noise", Verdict.ROUNDING),
        (loud, noisy, "noise", Verdict.ROUNDING),
    ]
    for one, other, bound, verdict in cases:
        comparison = compare(one, far(other))
        assert bound in comparison.bound
        assert comparison.verdict is verdict
        assert compare(one, other).bound == comparison.bound
    for half in ("noise", "scales"):
        fields: dict[str, Any] = {half: None}
        assert plain in compare(quiet, dataclasses.replace(noisy, **fields)).bound


def test_the_plain_bound_says_its_figures() -> None:
    bound = compare(made(), made()).bound
    assert str(tolerance.PLAIN_EPS) in bound
    assert str(tolerance.PLAIN_EPS_A_STEP) in bound


@pytest.mark.parametrize(("step", "verdict"), [(2, "mismatch"), (3, "rounding"), (6, "rounding")])
def test_noise_carries_on_and_not_back(step: int, verdict: str) -> None:
    trace = with_noise(made(noise=EPS), "grads/bias", [0, 0, 1e-9, 0, 0, 0])
    off = planted(trace, "grads", "bias", step, entry(trace, "grads", "bias", step) + 3e-9)
    assert compare(trace, off).verdict == verdict
    # the noise of one leaf excuses no other
    off = planted(trace, "grads", "gain", step, entry(trace, "grads", "gain", step) + 3e-9)
    assert compare(trace, off).verdict is Verdict.MISMATCH


def expected_gate(trace: Trace, stage: str, leaf: str, step: int) -> float:
    """The one-step allowance, written out independently."""
    array = leaf_of(trace, stage, leaf)

    def largest(row: int) -> float:
        return float(np.max(np.abs(array[row]))) if row >= 0 else 0.0

    size = {
        "loss": 1.0,
        "grads": 1.0,
        "opt_state": max(largest(step - 1), largest(step - 2)) if stage == "opt_state" else 0,
        "params": max(largest(step), largest(step - 1)) if stage == "params" else 0,
    }[stage]
    return {"loss": 16, "grads": 64, "opt_state": 8, "params": 4}[stage] * EPS * size + TINY


@each_leaf
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_what_is_allowed_is_what_is_documented(stage: str, leaf: str, step: int) -> None:
    """In every mode, for traces of which one, the other or both bring noise."""
    quiet, noisy = made(), made(noise=3 * EPS)
    off = nudged(entry(quiet, stage, leaf, step), 1)
    one_step = expected_gate(quiet, stage, leaf, step)
    assert worst(gate(quiet, planted(quiet, stage, leaf, step, off)), stage).allowed == one_step
    for a, b in ((noisy, quiet), (quiet, noisy), (noisy, noisy)):
        found = worst(compare(a, planted(b, stage, leaf, step, off)), stage)
        assert where(found) == (step, stage, leaf)
        assert found.allowed == pytest.approx(12 * EPS + one_step, rel=1e-12)
    array = leaf_of(quiet, stage, leaf)[(1 if stage == "params" else 0) :]
    largest = max(np.max(np.abs(row)) for row in array[:step])
    found = worst(compare(quiet, planted(quiet, stage, leaf, step, off)), stage)
    assert found.allowed == pytest.approx((64 + 4 * step) * EPS * largest, rel=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_noise_that_is_no_number_excuses_only_what_is_the_same(bad: float) -> None:
    trace = with_noise(made(noise=EPS), "grads/bias", [0, 0, bad, 0, 0, 0])
    assert compare(trace, trace).verdict is Verdict.EQUAL
    off = planted(trace, "grads", "bias", 4, 9)
    comparison = compare(trace, off)
    assert comparison.verdict is (Verdict.MISMATCH if np.isnan(bad) else Verdict.ROUNDING)
    strict(comparison)


# ------------------------------------------------------------------------------------------ horizon


def chaotic(step: int) -> Trace:
    """A trace that rounding alone carries away, from `step` on."""
    noise = np.full(STEPS, EPS)
    noise[step - 1] = 1e-3
    return with_noise(made(noise=EPS), "loss/loss", noise)


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_beyond_the_horizon_values_are_not_judged(step: int) -> None:
    trace = chaotic(4)
    for stage, leaf in JUDGED:
        comparison = compare(trace, planted(trace, stage, leaf, step, 9))
        assert comparison.horizon == 4
        assert comparison.verdict is (Verdict.MISMATCH if step < 4 else Verdict.ROUNDING)
        assert (comparison.smallest_allowance("free") > 1) is (step < 4)
        # what is no number is no value, and batches are drawn, not computed
        for no_number in (np.nan, np.inf):
            off = planted(trace, stage, leaf, step, no_number)
            assert compare(trace, off).verdict is Verdict.MISMATCH
    assert compare(trace, planted(trace, "batch", "x", step, 9)).verdict is Verdict.MISMATCH


def test_there_is_no_way_back_from_the_horizon() -> None:
    """A loss that grows afterwards does not make the noise before it small."""
    trace = planted(chaotic(3), "loss", "loss", 5, 1e9)
    comparison = compare(trace, planted(trace, "params", "gain", 6, 9))
    assert (comparison.horizon, comparison.verdict) == (3, Verdict.ROUNDING)


def test_a_run_that_is_chaos_from_the_first_step_proves_nothing() -> None:
    trace = chaotic(1)
    assert compare(trace, trace).verdict is Verdict.EQUAL
    comparison = compare(trace, planted(trace, "params", "gain", 6, 9))
    assert (comparison.horizon, comparison.verdict) == (1, Verdict.INVALID)
    assert compare(made(), made()).horizon is None


def test_numbers_too_far_apart_for_a_difference_are_judged() -> None:
    for trace, same in ((made(), False), (chaotic(2), True)):
        one = planted(trace, "grads", "gain", 3, 1.5e308)
        comparison = compare(one, planted(trace, "grads", "gain", 3, -1.5e308))
        assert comparison.verdict.same is same
        strict(comparison)
    one = _without("grads", "weight", "bias", "none")(chaotic(1))
    one = planted(one, "grads", "gain", 1, 1.5e308)
    comparison = compare(one, planted(one, "grads", "gain", 1, -1.5e308), steps=1)
    assert worst(comparison, "grads").difference == math.inf
    assert worst(comparison, "grads").ratio == 0, "all that there is is allowed"
    strict(comparison)
    # an allowance too large for a number excuses what is a number
    loud = with_noise(made(noise=EPS), "grads/gain", np.full(STEPS, 1e308))
    assert compare(loud, planted(loud, "grads", "gain", 3, 1e300)).verdict is Verdict.ROUNDING
    assert compare(loud, planted(loud, "grads", "bias", 3, 1e300)).verdict is Verdict.MISMATCH


# ----------------------------------------------------------------------------- the gate and the run


def both(trace: Trace, replayed: Trace, free: Trace) -> Comparison:
    """What `verify` does with a chunk."""
    judge = Judge(trace.metadata.dtype)
    judge.gate(trace, replayed, sizes(trace))
    judge.free(trace, free)
    return judge.comparison()


def test_a_free_run_that_parts_while_every_step_is_rounding_is_drift() -> None:
    trace = made(noise=EPS)
    off = planted(trace, "params", "bias", 2, 9)
    start = planted(trace, "params", "bias", 0, 9)
    drift = both(trace, trace, off)
    assert drift.verdict is Verdict.DRIFT
    assert not drift.verdict.same
    assert where(drift.first) == (2, "params", "bias")
    assert both(trace, off, trace).verdict is Verdict.MISMATCH
    assert both(trace, trace, start).verdict is Verdict.MISMATCH, "it parts before the first step"
    assert both(trace, trace, trace).verdict is Verdict.EQUAL
    # the gate's finding is the fault's place, though the run parts before it
    late = planted(trace, "grads", "bias", 4, 9)
    assert where(both(trace, late, off).first) == (4, "grads", "bias")
    assert both(chaotic(1), chaotic(1), off).verdict is Verdict.ROUNDING, "each step was judged"


def test_what_the_first_sizes_do_not_explain_is_measured_again() -> None:
    trace = made()
    off = planted(trace, "loss", "loss", 2, entry(trace, "loss", "loss", 2) + 100 * EPS)
    off = planted(off, "grads", "gain", 5, entry(trace, "grads", "gain", 5) + 100 * EPS)
    off = planted(off, "grads", "bias", 5, entry(trace, "grads", "bias", 5) + 50 * EPS)
    asked: list[list[int]] = []

    def remeasure(size: float) -> Callable[[np.ndarray], Leaves]:
        def measured(rows: np.ndarray) -> Leaves:
            asked.append(rows.tolist())
            small = {"grads/bias": np.full(STEPS, 0.01)}  # what was known of it stands
            return {name: array[rows] for name, array in {**sizes(trace, size), **small}.items()}

        return measured

    for candidate, size, rows, verdict in (
        (trace, 1e9, [], Verdict.EQUAL),
        (off, 1e9, [[1, 4]], Verdict.ROUNDING),
        (off, 0.5, [[1, 4]], Verdict.MISMATCH),  # larger ones only
        (planted(off, "params", "gain", 3, 9), 1e9, [[1, 4]], Verdict.MISMATCH),
        (planted(trace, "params", "gain", 3, 9), 1e9, [], Verdict.MISMATCH),
        (planted(trace, "grads", "bias", 3, np.nan), 1e9, [[2]], Verdict.MISMATCH),
    ):
        asked.clear()
        given_sizes = sizes(trace)
        judge = Judge("float64")
        judge.gate(trace, candidate, given_sizes, remeasure(size))
        assert (asked, judge.comparison().verdict) == (rows, verdict)
        assert all(np.all(array == 1) for array in given_sizes.values()), "left as they were"


# -------------------------------------------------------------------------------------- first steps


@pytest.mark.parametrize("steps", [-1, 0, 7, 10**9])
def test_steps_that_a_trace_lacks_are_refused(steps: int) -> None:
    refused(lambda: compare(made(), made(), steps=steps), f"steps is {steps}", "6 and 6")
    refused(lambda: compare(made(), made().cut(0, 5), steps=6), "steps is 6", "6 and 5")


@pytest.mark.parametrize("steps", range(1, STEPS + 1))
@pytest.mark.parametrize("noise", [None, 3])
def test_steps_compares_the_first_ones_only(steps: int, noise: float | None) -> None:
    trace = base(noise)
    off = planted(trace, "grads", "gain", 4, 9)
    comparison = compare(trace, off, steps=steps)
    assert comparison.steps == steps
    assert comparison.verdict is (Verdict.EQUAL if steps < 4 else Verdict.MISMATCH)
    short = compare(trace, off.cut(0, steps), steps=steps)
    assert short.to_dict() == comparison.to_dict()


def test_pieces_from_the_middle_of_two_runs_are_judged_as_such() -> None:
    trace = made()
    off = planted(trace, "grads", "gain", 4, 9)
    comparison = compare(trace.cut(3, 6), off.cut(3, 6))
    assert where(comparison.first) == (4, "grads", "gain")
    assert comparison.steps == 3
    assert compare(trace.cut(4, 6), off.cut(4, 6)).verdict is Verdict.EQUAL


# ------------------------------------------------------------------------------------- plain values


def strict(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON gives it back; no number in it that JSON lacks."""
    plain = comparison.to_dict()
    text = json.dumps(plain, allow_nan=False)
    assert json.loads(text) == plain
    return plain


@each_mode
@pytest.mark.parametrize("value", [1.5, 9, np.nan, -np.inf])
@pytest.mark.parametrize("both_sides", [False, True], ids=["one side", "both sides"])
def test_a_comparison_is_strict_json(
    judge: Mode, noise: float | None, value: float, both_sides: bool
) -> None:
    trace = base(noise)
    faulty = planted(trace, "grads", "bias", 3, value)
    faulty = planted(faulty, "batch", "y", 5, 9)
    comparison = judge(faulty if both_sides else trace, faulty)
    plain = strict(comparison)
    assert plain["verdict"] == comparison.verdict.value
    assert plain["same"] is comparison.verdict.same
    if comparison.first:
        assert plain["first"]["index"] == [2]
        assert plain["first"]["candidate"] == (value if np.isfinite(value) else str(value))
    (stages,) = plain["worst"].values()
    assert set(stages) == {"batch", *VALUES}
    assert set(stages["loss"]) >= {"step", "leaf", "difference", "allowed", "ulps", "ratio"}


@pytest.mark.parametrize("trace", [made(0), chaotic(2), chaotic(1)], ids=["none", "late", "early"])
def test_a_comparison_without_values_is_strict_json(trace: Trace) -> None:
    assert strict(compare(trace, trace))["first"] is None


# --------------------------------------------------------------------------------------- properties

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
Changes = list[tuple[tuple[str, str], int, float]]


def changed(trace: Trace, changes: Changes) -> Trace:
    for (stage, leaf), step, value in changes:
        trace = planted(trace, stage, leaf, step, value)
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
@example(common=[(("grads", "gain"), 1, 0.0)], changes=[(("grads", "gain"), 1, 1e300)])
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
    place=st.sampled_from(JUDGED),
    step=st.integers(1, STEPS),
    amounts=st.lists(st.floats(-20, 0), min_size=2, max_size=8),
    sign=st.sampled_from([-1, 1]),
    name=st.sampled_from(sorted(MODES)),
)
def test_a_growing_fault_crosses_from_rounding_to_mismatch_once(
    place: tuple[str, str], step: int, amounts: list[float], sign: int, name: str
) -> None:
    judge, noise = MODES[name]
    trace = base(noise)
    value = entry(trace, *place, step)
    comparisons = [
        judge(trace, planted(trace, *place, step, value + sign * 10.0**amount))
        for amount in [*sorted(amounts), 1.0]
    ]
    ratios = [worst(comparison, place[0]).ratio for comparison in comparisons]
    assert ratios == sorted(ratios)
    verdicts = [comparison.verdict for comparison in comparisons]
    order = [Verdict.EQUAL, Verdict.ROUNDING, Verdict.MISMATCH]
    assert [order.index(verdict) for verdict in verdicts] == sorted(map(order.index, verdicts))
    assert verdicts[-1] is Verdict.MISMATCH


@st.composite
def measured(draw: st.DrawFn, trace: Trace) -> Trace:
    """The trace with noise that differs from step to step, or with none."""
    if draw(st.booleans()):
        return trace
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    size = draw(st.sampled_from([EPS, 1e-12, 1e-7, 1.0]))

    def random(stages: tuple[str, ...], size: float) -> dict[str, np.ndarray]:
        keys = [f"{stage}/{leaf}" for stage in stages for leaf in LEAVES[stage]]
        return {key: size * generator.uniform(0, 1, len(trace)) ** 4 for key in keys}

    noise, scales = random(VALUES, size), random(("loss", "grads"), 2)
    return dataclasses.replace(trace, noise=noise, scales=scales)


@SEARCH
@given(data=st.data(), cuts=st.sets(st.integers(1, STEPS - 1)), changes=CHANGES)
@pytest.mark.parametrize("gated", [False, True], ids=["free", "gate and free"])
def test_a_run_is_judged_alike_however_it_is_cut(
    gated: bool, data: st.DataObject, cuts: set[int], changes: Changes
) -> None:
    trace = data.draw(measured(made()))
    candidate = data.draw(measured(changed(made(), changes)))
    replayed = changed(made(), data.draw(CHANGES)) if gated else trace

    def judged(bounds: list[int]) -> dict[str, Any]:
        judge = Judge("float64")
        for low, high in pairwise(bounds):
            a, b, c = (t.cut(low, high) for t in (trace, candidate, replayed))
            if gated:
                judge.gate(a, c, sizes(a))
            judge.free(a, b)
        return strict(judge.comparison())

    whole = judged([0, STEPS])
    assert judged([0, *sorted(cuts), STEPS]) == whole
    if not gated:
        assert strict(compare(trace, candidate)) == whole
