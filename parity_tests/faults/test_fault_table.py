"""A judge is worth what it finds: faults of many kinds, each found at its step, stage and leaf.

Every row says what is wrong, on which side, and where that must show first; the place follows from
the fault, in the order of the ledger: batch, loss, raw_grads, grads, opt_state, params, and leaves
in the model's own order. All runs are in float64.

Not in the table, because no run can show them: a gradient of ReLU at exactly 0, which no sample
meets; a fault in an update that rounds to nothing; what is done to gradients between an update and
the zero_grad that clears them.
"""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from faults.differentiating import GRADIENTS, LOSSES
from faults.modelling import DATA, MODELS, START
from faults.optimizing import HYPER_PARAMETERS, OPTIMIZERS, UPDATES
from faults.pairs import FaultyJax, Honest, Pair, Plant, compared, pair, spot_of
from faults.table import DIGITS, GROUPS, LINEAR, SELECTIVE, Fault, faults
from twinstep import Verdict
from twinstep.judge import tolerance

pytestmark = pytest.mark.quick_to_compile

TABLES = [HYPER_PARAMETERS, OPTIMIZERS, UPDATES, GRADIENTS, LOSSES, MODELS, DATA, START]
FAULTS = [fault for table in TABLES for fault in faults(table)]
DEAR = (GROUPS, SELECTIVE, DIGITS)
DEAREST = (SELECTIVE, DIGITS)  # of whose kinds others are in GROUPS, and in test_many_pairs.py


def in_jax(pair: Pair) -> list[Plant]:
    """What is planted on the JAX side of a pair."""
    return [fault.plant for fault in FAULTS if fault.pair == pair and fault.side == "jax"]


def each(name: str, values: Iterable[Any], slow: Callable[[Any], bool]) -> pytest.MarkDecorator:
    """A test of each, some of them slow."""
    marks = {True: [pytest.mark.slow], False: []}
    params = [pytest.param(value, id=str(value), marks=marks[slow(value)]) for value in values]
    return pytest.mark.parametrize(name, params)


def in_a_dear_program(fault: Fault) -> bool:
    """Whether it takes long to compile what it is planted in: make test-slow has those."""
    return fault.pair in DEAREST or (fault.side == "jax" and fault.pair in DEAR)


def test_the_table_is_large_and_names_each_fault_once() -> None:
    assert len(FAULTS) >= 104
    assert len({fault.says for fault in FAULTS}) == len(FAULTS)


PAIRS = sorted({fault.pair for fault in FAULTS})


@each("pair", PAIRS, lambda pair: pair in DEAREST)
def test_without_a_fault_each_pair_passes(pair: Pair, honest_jax: Honest) -> None:
    comparison = honest_jax.compared(pair)
    assert comparison.verdict.same, comparison.reason
    assert spot_of(comparison) is None


@each("pair", filter(in_jax, PAIRS), lambda pair: pair in DEAR)
def test_without_a_fault_each_program_that_could_have_some_passes(
    pair: Pair, faulty_jax: FaultyJax
) -> None:
    comparison = faulty_jax.compared(pair, in_jax(pair), None)
    assert comparison.verdict.same, comparison.reason


@each("fault", FAULTS, in_a_dear_program)
def test_a_fault_is_found_where_it_is(
    fault: Fault, honest_jax: Honest, faulty_jax: FaultyJax
) -> None:
    if fault.side == "jax":
        comparison = faulty_jax.compared(fault.pair, in_jax(fault.pair), fault.plant)
    else:
        comparison = honest_jax.compared(fault.pair, torch=fault.plant)
    assert comparison.verdict is Verdict.MISMATCH, comparison.reason
    assert spot_of(comparison) == fault.spot, comparison.reason


@pytest.mark.parametrize(
    ("verdict", "reason", "pair"),
    [
        # every number is a short binary fraction: nothing rounds
        (Verdict.EQUAL, "same bits", pair("chain_rule", steps=2, learning_rate=0.125)),
        (Verdict.ROUNDING, "rounding", LINEAR),
        (Verdict.INVALID, "inf", pair("linear_regression", steps=4, learning_rate=1e300)),
        (Verdict.INVALID, "no parameter", pair("linear_regression", steps=3, learning_rate=0.0)),
        (Verdict.INVALID, "gradients are zero", pair("chain_rule", steps=3, x=0.0)),
        # w1 moves by an ulp, too little for the loss
        (Verdict.INVALID, "the loss never", pair("chain_rule", steps=2, learning_rate=5e-18)),
    ],
    ids=str,
)
def test_each_verdict(verdict: Verdict, reason: str, pair: Pair, honest_jax: Honest) -> None:
    comparison = honest_jax.compared(pair)
    assert comparison.verdict is verdict, comparison.reason
    assert reason in comparison.reason


def test_drift_is_a_free_run_that_leaves_its_allowance_while_every_step_is_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # rounding that piles up is drift where no rounding noise is allowed for
    monkeypatch.setattr(tolerance, "ROUNDING_NOISE_FACTOR", 0)
    comparison = compared(pair("linear_regression_adam", steps=1000))
    assert comparison.verdict is Verdict.DRIFT, comparison.reason
    assert not comparison.verdict.same
    assert comparison.smallest_allowance("gate") <= 1 < comparison.smallest_allowance("free")
    assert comparison.first is not None
    assert comparison.first.step > 1
