"""Many pairs: honest ones, which must pass, and faults of every kind, each found at its place.

All examples, both dtypes, either side. A cell of the table is a test, which shares what it
compiles. Faults in float32 are there in float32 alone: what is judged must not excuse itself.
"""

import itertools
import math

import pytest

from faults.honest import AnyRate, alarms, honest
from faults.honest import judged as passed
from faults.kinds import KINDS, FaultCase, fault_cases
from faults.pairs import FaultyJax, Honest, Side, spot_of
from faults.plants_of_kinds import in_float32
from twinstep import Verdict
from twinstep.judge.findings import Comparison
from twinstep.problems import EXAMPLES

pytestmark = pytest.mark.quick_to_compile

CELLS = [(example, dtype) for example in EXAMPLES for dtype in ("float64", "float32")]
SEEDS = range(1, 11)
MANY_SEEDS, RATED_SEEDS = range(100, 120), range(200, 216)  # of make test-slow
FEW_SEEDS = range(1, 4)  # of those that take long to train
DEAR = {"parameter_groups", "selective_update", "mnist_rnn"}
# the other cells' programs take long to compile, or their runs long to train
IN_JAX = [("adam_update", "float32"), ("chain_rule", "float64")]
NOT_IN_TORCH = [
    ("parameter_groups", "float64"),
    ("selective_update", "float64"),
    ("selective_update", "float32"),
    ("mnist_rnn", "float64"),
]
SIDES: tuple[Side, ...] = ("torch", "jax")
TABLE = [
    fault for cell, side in itertools.product(CELLS, SIDES) for fault in fault_cases(*cell, side)
]


@pytest.fixture(scope="module", params=CELLS, ids="-".join)
def table_cell(request: pytest.FixtureRequest) -> tuple[str, str]:
    """An example and a dtype; of the module, so that one's tests follow each other."""
    return request.param


def test_the_table_is_large() -> None:
    assert len(TABLE) >= 1100
    assert 3 * sum(fault.dtype == "float32" for fault in TABLE) >= len(TABLE)
    assert {fault.pair.example for fault in TABLE} == set(EXAMPLES)
    assert {fault.spot.stage for fault in TABLE} >= {"batch", "loss", "raw_grads", "opt_state"}
    assert {fault.kind.says for fault in TABLE} == {kind.says for kind in KINDS}


def judged(fault: FaultCase, honest_jax: Honest, faulty_jax: FaultyJax) -> Comparison:
    """What the judge says of a fault."""
    single = fault.dtype == "float32"
    in_torch, in_jax = fault.kind.plants
    if fault.side == "torch":
        assert in_torch is not None
        plant = in_torch(fault.size)
        return honest_jax.compared(fault.pair, torch=in_float32(plant) if single else plant)
    assert in_jax is not None
    if single and vars(in_jax)["how"] == "started":
        in_jax = in_float32(in_jax)
    cell = fault_cases(fault.pair.example, fault.dtype, "jax")
    plants = [other.kind.plants.jax for other in cell if other.kind.plants.jax]
    exact = honest_jax.programs if single else None
    return faulty_jax.compared(fault.pair, plants, in_jax, fault.size, exact)


def missed(faults: list[FaultCase], honest_jax: Honest, faulty_jax: FaultyJax) -> list[str]:
    """Of some faults, those that are not found where they are."""
    misses = []
    for fault in faults:
        comparison = judged(fault, honest_jax, faulty_jax)
        found = comparison.verdict is Verdict.MISMATCH and fault.found(spot_of(comparison))
        first = comparison.first.ratio if comparison.first else math.inf
        times_over = max(first, comparison.smallest_allowance("gate"))
        if not (found and times_over >= fault.kind.least):
            misses.append(f"{fault}: {comparison.verdict}, {comparison.reason}")
    return misses


def test_honest_pairs_pass(table_cell: tuple[str, str], honest_jax: Honest) -> None:
    pairs = honest(*table_cell, FEW_SEEDS if table_cell[0] in DEAR else SEEDS)
    assert not alarms(pairs, lambda each: passed(each, honest_jax.programs))


@pytest.mark.parametrize("side", SIDES)
def test_faults(
    side: Side, table_cell: tuple[str, str], honest_jax: Honest, faulty_jax: FaultyJax
) -> None:
    if (table_cell in NOT_IN_TORCH) if side == "torch" else (table_cell not in IN_JAX):
        pytest.skip("make test-slow")
    assert not missed(fault_cases(*table_cell, side), honest_jax, faulty_jax)


@pytest.mark.parametrize(
    ("example", "dtype"), [("adam_update", "float32"), ("chain_rule", "float64")]
)
def test_honest_pairs_pass_by_any_rate(example: str, dtype: str) -> None:
    assert not alarms(honest(example, dtype, SEEDS, rates=True), AnyRate().judged)


@pytest.mark.slow
def test_a_thousand_honest_pairs_pass(table_cell: tuple[str, str], honest_jax: Honest) -> None:
    own = honest(*table_cell, MANY_SEEDS)
    assert not alarms(own, lambda each: passed(each, honest_jax.programs))
    assert not alarms(honest(*table_cell, RATED_SEEDS, rates=True), AnyRate().judged)


@pytest.mark.slow
@pytest.mark.parametrize("side", SIDES)
def test_faults_of_every_cell(
    table_cell: tuple[str, str], side: Side, honest_jax: Honest, faulty_jax: FaultyJax
) -> None:
    assert not missed(fault_cases(*table_cell, side), honest_jax, faulty_jax)
