"""Each port trains as its PyTorch program does; a planted fault parts them where its row says."""

import functools
import importlib.util
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from port.by_hand import Spot, apart, first_off, in_torch_names
from port.honest import HonestPair, honest
from port.planting import Plant
from port.plants import PLANTS
from port.ports import PORTS, jax_trace, torch_trace
from twinstep import load_trace
from twinstep.trace.ledger import Trace

SEED = 1
FOLDER = Path(__file__).parents[1]
HAS_EQUINOX = importlib.util.find_spec("equinox") is not None
# of an honest float32 pair's distance, so that one rounding more or less is none; the table's
# smallest is 50
_SEEN_IN_FLOAT32 = 30

theirs = functools.cache(torch_trace)


@functools.cache
def ours(port: str, seed: int, dtype: str) -> Trace:
    """What the right port leaves."""
    return jax_trace(port, theirs(port, seed, dtype))


@pytest.fixture(params=PORTS)
def port(request: pytest.FixtureRequest) -> str:
    """Each port whose framework is installed."""
    if "equinox" in request.param:
        pytest.importorskip("equinox")
    return request.param


@pytest.fixture
def quickly_compiled() -> Iterator[None]:
    """A fault is one whatever LLVM makes of the program."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def test_port_trains_as_its_program_does(port: str) -> None:
    given, left = theirs(port, SEED, "float64"), ours(port, SEED, "float64")
    assert left.metadata.dtype == "float64"
    np.testing.assert_allclose(left.losses, given.losses, rtol=1e-13)
    grads = in_torch_names(port, left.raw_grads)
    assert grads.keys() == given.raw_grads.keys()
    for name, array in given.raw_grads.items():
        # absolute: those whose true value is 0 are rounding of gradients of about 1
        np.testing.assert_allclose(grads[name][0], array[0], rtol=1e-12, atol=1e-14)
    assert first_off(port, given, left) is None


def test_port_has_names_and_layouts_of_its_own(port: str) -> None:
    given, left = theirs(port, SEED, "float64"), ours(port, SEED, "float64")
    assert left.params.keys() != given.params.keys()
    assert left.raw_grads.keys() == left.params.keys()
    assert left.program["optimizers"]["optimizer"]["watched"]


def test_there_are_many_honest_pairs() -> None:
    pairs = list(honest())
    assert len({*pairs}) == len(pairs) >= 200
    assert {pair.port for pair in pairs} == set(PORTS)


def parted(pair: HonestPair) -> Spot | None:
    """Where an honest pair parts."""
    given = torch_trace(pair.port, pair.seed, pair.dtype, pair.learning_rate, pair.steps)
    return first_off(pair.port, given, jax_trace(pair.port, given))


def test_honest_pairs_stay_together(port: str) -> None:
    for pair in [*honest(port)][::26]:  # one of each dtype
        assert parted(pair) is None, str(pair)


@pytest.mark.slow
def test_all_honest_pairs_stay_together(port: str, quickly_compiled: None) -> None:
    assert [str(pair) for pair in honest(port) if parted(pair)] == []


_APART = """
import sys
for blocked in {blocked}:
    sys.modules[blocked] = None
from port.ports import jax_trace, torch_trace
from twinstep import load_trace
for port in {ports}:
    {statement}
"""


def run_without(blocked: list[str], ports: list[str], statement: str) -> None:
    """Runs a statement for each port in a process where some modules cannot be imported."""
    code = _APART.format(blocked=blocked, ports=ports, statement=statement)
    path = os.pathsep.join([str(FOLDER), str(FOLDER.parent), *sys.path])
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": path})


def test_each_side_trains_without_the_other(tmp_path: Path) -> None:
    ports = [port for port in PORTS if HAS_EQUINOX or "equinox" not in port]
    run_without(
        ["jax", "jaxlib", "flax", "optax", "equinox"],
        ports,
        f"torch_trace(port, 3, 'float64').save(f'{tmp_path}/torch/{{port}}')",
    )
    run_without(
        ["torch"],
        ports,
        f"jax_trace(port, load_trace(f'{tmp_path}/torch/{{port}}'))"
        f".save(f'{tmp_path}/jax/{{port}}')",
    )
    for port in ports:
        given, left = (load_trace(tmp_path / side / port) for side in ("torch", "jax"))
        assert first_off(port, given, left) is None


def test_the_table_is_large() -> None:
    assert len({str(plant) for plant in PLANTS}) == len(PLANTS) >= 90
    assert len({plant.kind for plant in PLANTS}) >= 45
    assert {plant.port for plant in PLANTS} >= {*PORTS} - {"gru_equinox"}
    stages = Counter(plant.stage for plant in PLANTS)
    assert stages.keys() == {"batch", "params", "loss", "raw_grads", "buffers"}


def check(plant: Plant) -> None:
    """A fault is seen first where its row says, and in float32 if it says so."""
    given = theirs(plant.port, SEED, "float64")
    spot = first_off(plant.port, given, jax_trace(plant.port, given, plant))
    assert spot == Spot(plant.stage, plant.at)


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
    check(next(plant for plant in PLANTS if str(plant) == name))


@pytest.mark.slow
@pytest.mark.parametrize("plant", PLANTS, ids=str)
def test_every_fault_parts_where_its_row_says(plant: Plant, quickly_compiled: None) -> None:
    check(plant)
    assert seen_in_float32(plant) == plant.single
