"""Each planted fault parts a port from its program where its row says."""

import functools
from collections import Counter
from collections.abc import Iterator

import jax
import numpy as np
import pytest

from port.by_hand import Spot, apart, first_off
from port.planting import Plant
from port.plants import PLANTS
from port.ports import PORTS, jax_trace, torch_trace
from twinstep.trace.ledger import Trace

SEED = 1
# of an honest float32 pair's distance up to there: the nearest fault that is seen is at 18, those
# that are not are at 1.3 at the most
_SEEN_IN_FLOAT32 = 10
_PLAIN = 1e-3  # of a leaf's norm: float32's rounding is a hundredth of that

theirs = functools.cache(torch_trace)


@functools.cache
def ours(port: str, seed: int, dtype: str) -> Trace:
    """What the right port leaves."""
    return jax_trace(port, theirs(port, seed, dtype))


@pytest.fixture
def quickly_compiled() -> Iterator[None]:
    """A fault is one whatever LLVM makes of the program."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()  # hundreds of programs, which nothing runs again


def test_the_table_is_large() -> None:
    assert len({str(plant) for plant in PLANTS}) == len(PLANTS) >= 90
    assert len({plant.kind for plant in PLANTS}) >= 45
    assert {plant.port for plant in PLANTS} >= {*PORTS} - {"gru_equinox"}
    stages = Counter(plant.stage for plant in PLANTS)
    assert stages.keys() == {"batch", "params", "loss", "raw_grads", "buffers"}


def size_of(plant: Plant) -> float:
    """How far a fault parts float64 runs where its row says, which has to be first."""
    given = theirs(plant.port, SEED, "float64")
    left = jax_trace(plant.port, given, plant)
    assert first_off(plant.port, given, left) == Spot(plant.stage, plant.at)
    return float(apart(plant.port, given, left)[plant.stage][plant.at])


def seen_in_float32(plant: Plant) -> bool:
    """Whether a fault leaves some stage of a float32 run well beside an honest one's distance."""
    given = theirs(plant.port, SEED, "float32")
    left = jax_trace(plant.port, given, plant)
    right = apart(plant.port, given, ours(plant.port, SEED, "float32"))
    wrong = apart(plant.port, given, left)
    return any(
        np.any(wrong[stage] > _SEEN_IN_FLOAT32 * np.maximum(1e-7, np.maximum.accumulate(worst)))
        for stage, worst in right.items()
    )


@pytest.mark.parametrize(
    "name",
    [
        "conv_nnx-norm keeps biased",
        "transformer_linen-decay by axes",
        "gru_dicts-schedule of micro-steps",
    ],
)
def test_some_faults_part_where_their_rows_say(name: str, quickly_compiled: None) -> None:
    assert size_of(next(plant for plant in PLANTS if str(plant) == name)) > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("plant", PLANTS, ids=str)
def test_every_fault_parts_where_its_row_says(plant: Plant, quickly_compiled: None) -> None:
    plain = size_of(plant) > _PLAIN
    assert (plain or seen_in_float32(plant)) == plant.single
