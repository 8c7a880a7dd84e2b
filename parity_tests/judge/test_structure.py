"""What is not alike is never compared by value; what is found first is first in the ledger."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from helpers.judging import (
    EPS,
    MODES,
    PLACES,
    SEARCH,
    Mode,
    sizes,
    where,
    without,
)
from helpers.synthetic_traces import (
    LEAVES,
    STEPS,
    Change,
    leaf_by,
    made,
    metadata,
    rank,
    refused,
    rows_of,
    with_fault,
    with_field,
    with_leaf,
)
from hypothesis import given
from hypothesis import strategies as st

from twinstep import Trace, Verdict, compare
from twinstep.judge.judge import Judge
from twinstep.judge.structure import structure


def _metadata(**changes: Any) -> Change:
    return lambda trace: dataclasses.replace(trace, metadata=metadata(**changes))


def _spec(**changes: Any) -> Change:
    return _metadata(spec={**(metadata().spec or {}), **changes})


def _reshaped(stage: str, leaf: str, *shape: int) -> Change:
    return leaf_by(stage, leaf, lambda rows: rows.reshape(shape))


Others = dict[str, tuple[Change, tuple[str, ...]]]
OTHER_PROBLEMS: Others = {
    "example": (_metadata(example="other"), ("examples", "synthetic", "other")),
    "setting": (_spec(seed=1), ("settings", "seed", "0", "1")),
    "betas": (_spec(betas=(0.9, 0.99)), ("betas", "0.999")),
    "setting more": (_spec(momentum=0.9), ("different settings", "momentum", "None", "0.9")),
    "dtype": (_metadata(dtype="float32"), ("float64", "float32")),
    "length": (lambda t: t.slice(0, 5), ("6 steps", "5 steps")),
    "start": (lambda t: dataclasses.replace(t, start=1), ("start", "0", "1")),
}
OTHER_LEAVES: Others = {
    "a gradient less": (without("raw_grads", "bias"), ("raw_grads, bias", "first", "has it")),
    "a given one less": (without("grads", "bias"), ("grads, bias: only the", "first", "has it")),
    "two parameters less": (
        without("params", "gain", "weight"),
        ("params, weight: only the", "first", "has it"),
    ),
    "no optimizer state": (
        without("opt_state", *LEAVES["opt_state"]),
        ("opt_state, weight.exp_avg: only the", "first", "has it"),
    ),
    "a leaf more": (lambda t: with_leaf(t, "batch", "z", t.batch["x"]), ("batch, z", "second")),
    "(3,) and (3, 1)": (
        _reshaped("raw_grads", "bias", STEPS, 3, 1),
        ("raw_grads, bias", "(3,)", "(3, 1)"),
    ),
    "() and (1,)": (_reshaped("params", "gain", STEPS + 1, 1), ("params, gain", "()", "(1,)")),
    "(3, 2) and (2, 3)": (_reshaped("raw_grads", "weight", STEPS, 2, 3), ("(3, 2)", "(2, 3)")),
    "(0,) and (0, 5)": (_reshaped("raw_grads", "none", STEPS, 0, 5), ("raw_grads, none", "(0, 5)")),
    "losses a table": (_reshaped("loss", "loss", STEPS, 1), ("loss", "(6, 1)")),
    "one row": (rows_of("raw_grads", "bias", slice(1)), ("raw_grads, bias", "6 rows")),
    "a row less": (rows_of("opt_state", "bias.exp_avg", slice(5)), ("bias.exp_avg", "6 rows")),
    "one batch": (rows_of("batch", "x", slice(1)), ("batch, x", "6 rows")),
    "no initial parameters": (
        rows_of("params", "bias", slice(1, None)),
        ("params, bias", "7 rows"),
    ),
    "a scalar": (lambda t: with_leaf(t, "params", "gain", np.array(1.0)), ("params, gain", "()")),
    "dtype of a leaf": (
        leaf_by("raw_grads", "bias", lambda rows: rows.astype("float32")),
        ("raw_grads, bias", "float32", "float64"),
    ),
    "dtype of a batch": (
        leaf_by("batch", "x", lambda rows: rows.astype("int64")),
        ("batch, x", "uint32", "int64"),
    ),
}


def check_not_compared(change: Change, says: tuple[str, ...]) -> None:
    refused(lambda: compare(made(), change(made())), *says)
    other = {"first": "second", "second": "first"}
    refused(lambda: compare(change(made()), made()), *(other.get(text, text) for text in says))


@pytest.mark.parametrize(("change", "says"), OTHER_PROBLEMS.values(), ids=OTHER_PROBLEMS.keys())
def test_another_problem_is_not_compared(change: Change, says: tuple[str, ...]) -> None:
    check_not_compared(change, says)


@pytest.mark.parametrize(("change", "says"), OTHER_LEAVES.values(), ids=OTHER_LEAVES.keys())
def test_other_leaves_are_not_compared(change: Change, says: tuple[str, ...]) -> None:
    check_not_compared(change, says)


@pytest.mark.parametrize("stage", ["batch", "raw_grads", "grads", "opt_state", "params"])
def test_what_only_one_trace_has_is_said_of_that_one(stage: str) -> None:
    whole, leaf = made(), LEAVES[stage][0]
    part = without(stage, leaf)(whole)
    for traces, which in (((whole, part), "first"), ((part, whole), "second")):
        assert str(structure(*traces)) == f"{stage}, {leaf}: only the {which} trace has it"


def _of_bias(field: str, array: np.ndarray | None) -> Change:
    """What is measured of one leaf is this; None: nothing."""

    def changed(trace: Trace) -> Trace:
        leaves = {**getattr(trace, field), "raw_grads/bias": array}
        return with_field(trace, field, {k: v for k, v in leaves.items() if v is not None})

    return changed


UNMEASURED: dict[str, Change] = {
    "a leaf without": _of_bias("rounding_noise", None),
    "a step without": _of_bias("rounding_noise", np.zeros(5)),
    "a number an entry": _of_bias("rounding_noise", np.zeros((6, 3))),
    "no scale": _of_bias("rounding_scale", None),
}


@pytest.mark.parametrize("change", UNMEASURED.values(), ids=UNMEASURED.keys())
def test_noise_that_is_not_of_this_run_is_refused(change: Change) -> None:
    noisy = made(rounding_noise=EPS)
    refused(lambda: compare(made(), change(noisy)), "second", "raw_grads, bias")
    refused(lambda: compare(change(noisy), made()), "first", "raw_grads, bias")


THE_SAME: dict[str, Change] = {
    "another length in the spec": _spec(epochs=3, steps=6),
    "from another folder": _spec(data_dir="elsewhere"),
    "a list for a tuple": _spec(betas=[0.9, 0.999]),
    "another framework": _metadata(framework="jax"),
    "a loop of one's own, without example and spec": _metadata(example=None, spec=None),
    "activations on one side": lambda t: dataclasses.replace(t, activations={"0": t.losses}),
    "leaves in another order": lambda t: dataclasses.replace(
        t,
        raw_grads=dict([*t.raw_grads.items()][::-1]),
        grads=dict([*t.grads.items()][::-1]),
    ),
}


@pytest.mark.parametrize("change", THE_SAME.values(), ids=THE_SAME.keys())
def test_what_is_no_part_of_the_problem_may_differ(change: Change) -> None:
    assert compare(made(), change(made())).verdict is Verdict.EQUAL


def test_verifying_names_another_structure_as_a_fault() -> None:
    """Two sides that are trained here have to come out alike: there it is no bad input."""
    trace = made()
    other = _reshaped("raw_grads", "bias", STEPS, 3, 1)(trace)
    judge = Judge("float64")
    judge.free(trace, other)
    judge.gate(trace, trace, sizes(trace))
    comparison = judge.comparison()
    assert comparison.verdict is Verdict.MISMATCH
    assert judge.fault == "raw_grads, bias: shapes (3,) and (3, 1)"
    assert judge.fault in comparison.reason
    assert structure(trace, trace) is None
    short = rows_of("raw_grads", "bias", slice(1))(trace)
    assert "6 rows and 1 rows" in str(structure(trace, short))
    stateless = without("opt_state", *LEAVES["opt_state"])(trace)
    assert "opt_state, weight.exp_avg" in str(structure(trace, stateless))


SPOT = st.tuples(st.integers(1, STEPS), st.sampled_from(PLACES)).map(lambda at: (at[0], *at[1]))
SPOTS = st.lists(SPOT, min_size=1, max_size=5, unique=True)


@SEARCH
@given(spots=SPOTS, judge=st.sampled_from([*MODES.values()]))
def test_the_first_finding_is_first_in_the_ledger(
    spots: list[tuple[int, str, str]], judge: Mode
) -> None:
    trace = faulty = judge.trace()
    for step, stage, leaf in spots:
        faulty = with_fault(faulty, stage, leaf, step, 5)
    comparison = judge(trace, faulty)
    assert comparison.verdict is Verdict.MISMATCH
    assert where(comparison.first) == min(spots, key=lambda spot: (spot[0], rank(*spot[1:])))


def _at(key: str, *steps: int) -> Change:
    """The trace with a leaf that has rows at these steps alone."""

    def change(trace: Trace) -> Trace:
        stage, _, leaf = key.partition("/")
        array = np.arange(len(steps) + (stage == "params"), dtype=float)
        some = with_leaf(trace, stage, leaf, array)
        return dataclasses.replace(some, rows={**some.rows, key: np.array(steps)})

    return change


@pytest.mark.parametrize("key", ["opt_state/odd", "params/odd"])
@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        ((0, 2), (0, 2, 5), "at step 6 only the second trace has it"),
        ((0, 2, 5), (2, 5), "at step 1 only the first trace has it"),
        ((1, 3), (2, 3), "at step 2 only the first trace has it"),
        ((2, 3), (1, 3), "at step 2 only the second trace has it"),
        ((1, 1, 3), (1, 3, 3), "at step 2 the first trace has 2 rows, the second 1"),
        ((1, 1, 3, 3), (1, 1, 1, 3), "at step 2 the first trace has 2 rows, the second 3"),
    ],
)
def test_rows_at_other_steps_are_another_structure(
    key: str, one: tuple[int, ...], other: tuple[int, ...], says: str
) -> None:
    pair = _at(key, *one)(made()), _at(key, *other)(made())
    refused(lambda: compare(*pair), f"{key.replace('/', ', ')}: {says}")
    assert compare(pair[0], pair[0]).verdict is Verdict.EQUAL


def test_another_dtype_is_said_in_order() -> None:
    other = leaf_by("params", "bias", lambda rows: rows.astype(np.float32))(made())
    difference = structure(made(), other)
    assert str(difference) == "params, bias: dtypes float64 and float32"


@pytest.mark.parametrize("what", [[1.0], None, {"loss": np.ones(2)}])
def test_what_is_no_trace_is_named(what: Any) -> None:
    refused(lambda: compare(what, made()), f"the first trace is a {type(what).__name__}, expected")
    refused(lambda: compare(made(), what), f"the second trace is a {type(what).__name__}, expected")
