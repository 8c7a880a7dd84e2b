"""A JAX training of several processes: each records what its devices hold, read as one trace."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import jax_processes
from helpers.commands import command
from helpers.ports import free_port
from helpers.synthetic_traces import refused

import twinstep
from twinstep.jax.spread import Axis, Places
from twinstep.trace.ledger import Trace
from twinstep.trace.ranks import folder_of
from twinstep.trace.stages import LEAVES
from twinstep.trace.storage import open_part

pytestmark = pytest.mark.usefixtures("x64")

Case = Callable[[Path], None]
each_case = pytest.mark.parametrize(
    "case", jax_processes.TRAINED, ids=lambda case: str(case.__name__)
)


def run(folder: Path, processes: int, devices: int) -> Path:
    """The trainings of all cases, by as many processes at once."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    command = [sys.executable, jax_processes.__file__, str(folder)]
    last = [str(processes), free_port()]
    every = [
        subprocess.Popen(
            [*command, str(process), *last],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process in range(processes)
    ]
    try:
        said = [process.communicate(timeout=200)[0] for process in every]
    finally:
        for process in every:
            process.kill()
    assert [process.returncode for process in every] == [0] * processes, said
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes with two devices each leave."""
    return run(tmp_path_factory.mktemp("two"), 2, jax_processes.DEVICES)


@pytest.fixture(scope="module")
def many_devices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process with eight devices leaves."""
    return run(tmp_path_factory.mktemp("devices"), 1, 8)


def same_but_for_rounding(one: Trace, other: Trace) -> None:
    """Every stage has the same leaves, whole, at the same steps.

    Devices sum their parts of a sum, of at most 64 numbers, in an order of their own: some eps of
    float64 (2e-16), which Adam's division by a small square root multiplies. rtol 1e-12 leaves
    room for 5,000 of them, and a shard in a wrong place is off by all of it.
    """
    assert one.validation_error() is None
    assert len(one) == len(other)
    for stage in LEAVES:
        ours, theirs = one.leaves(stage), other.leaves(stage)
        assert ours.keys() == theirs.keys(), stage.name
        for leaf, array in ours.items():
            what = stage.name, leaf
            assert (array.shape, array.dtype) == (theirs[leaf].shape, theirs[leaf].dtype), what
            assert np.allclose(array, theirs[leaf], rtol=1e-12, atol=1e-14), what
            steps = other.steps_of(stage.name, leaf).tolist()
            assert one.steps_of(stage.name, leaf).tolist() == steps, what
    assert np.allclose(one.losses, other.losses, rtol=1e-12)
    assert one.rows.keys() == other.rows.keys()
    assert one.program == other.program
    for step in range(len(one)):
        batch, expected = one.inputs_of(step), other.inputs_of(step)
        assert batch.keys() == expected.keys()
        assert all(np.array_equal(batch[name], expected[name]) for name in batch)


@each_case
def test_processes_leave_the_trace_of_one(case: Case, two: Path, tmp_path: Path) -> None:
    stored = twinstep.open_trace(two / case.__name__)
    assert stored.complete
    case(tmp_path / "alone")
    same_but_for_rounding(
        twinstep.load_trace(two / case.__name__), twinstep.load_trace(tmp_path / "alone")
    )


@each_case
def test_many_devices_of_one_process_are_recorded_whole(
    case: Case, many_devices: Path, tmp_path: Path
) -> None:
    case(tmp_path / "alone")
    same_but_for_rounding(
        twinstep.load_trace(many_devices / case.__name__), twinstep.load_trace(tmp_path / "alone")
    )


def test_each_process_writes_its_own_part(two: Path) -> None:
    for rank in range(2):
        (chunk,) = open_part(two / "sharded" / folder_of(rank, 2)).chunks()
        assert chunk.params["first"].shape == (jax_processes.STEPS + 1, 4, 4)
        assert chunk.params["bias"].shape == (jax_processes.STEPS + 1, 4), "a replica, once"
        shards = chunk.program["shards"]
        assert shards["params/first"] == {"shape": [8, 4], "at": [4 * rank, 0]}
        assert shards["opt_state/0.mu.second"] == {"shape": [4, 8], "at": [0, 4 * rank]}
        assert not any(key.endswith("/bias") for key in shards)
        (chunk,) = open_part(two / "turned" / folder_of(rank, 2)).chunks()
        for key in ("params/first", "opt_state/first.mu", "grads/first"):
            assert chunk.program["shards"][key] == {"shape": [4, 8], "at": [0, 4 * rank]}
        runs = [[2 * rank, 2 * rank + 2], [2 * rank + 4, 2 * rank + 6]]
        (chunk,) = open_part(two / "every_other" / folder_of(rank, 2)).chunks()
        assert chunk.program["shards"]["params/first"]["at"] == [runs, 0]


def test_replicas_that_differ_are_refused_by_name(two: Path) -> None:
    trace = two / "replicas_that_differ"
    says = "step 2: params, bias of rank 1 differs from rank 0's: no replica"
    refused(lambda: twinstep.load_trace(trace), says)
    assert says in command("compare", trace, trace).refusal()
    says = "step 1: batch, x of rank 1 differs from rank 0's: no replica"
    refused(lambda: twinstep.load_trace(two / "batches_that_differ"), says)


def test_what_cannot_be_put_together_is_refused_by_name(two: Path) -> None:
    for rank in range(2):
        said = (two / f"moved.{rank}").read_text()
        assert said.startswith("step 2: params, first is spread over the processes in another way")
        said = (two / f"diagonal.{rank}").read_text()
        assert said == (
            "before step 1: params, w: the 2 shards that this process holds are no rows by columns "
            "of its shape (8, 4)"
        )
    said = (two / "elsewhere.1").read_text()
    assert said.startswith("before step 1: params, w is on devices of other processes alone")


def test_a_place_is_written_once_it_is_known() -> None:
    places, half = Places(), (Axis(4, ((2, 4),)), Axis(3, ((0, 3),)))
    assert places.shards() == {}
    places.note("w", "params", "w", (2, 3), half)
    places.note("w", "params", "w", (2, 3), half)
    written = places.shards()
    assert written["params/w"] == {"shape": [4, 3], "at": [2, 0]}
    places.note("x", "batch", "x", (2, 3), half)
    assert "batch/x" not in written, "what is being written to disk does not change"
    assert places.shards()["batch/x"] == {"2x3": {"shape": [4, 3], "at": [2, 0]}}
    refused(lambda: places.note("params, w", "params", "w", (4, 3), None), "in another way")
