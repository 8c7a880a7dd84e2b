"""Each port trains as its PyTorch program does, which either side does without the other."""

import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from port.by_hand import Spot, first_off, in_torch_names
from port.honest import HonestPair, honest
from port.ports import PORTS, jax_trace, torch_trace
from twinstep import load_trace
from twinstep.trace.ledger import Trace

SEED = 1
FOLDER = Path(__file__).parents[1]
HAS_EQUINOX = importlib.util.find_spec("equinox") is not None
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
def test_all_honest_pairs_stay_together(port: str) -> None:
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
