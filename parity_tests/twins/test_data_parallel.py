"""Several devices give the trajectory of one, and the faults of data-parallel training are found.

Nothing here runs in this process on several devices: JAX takes the number of its CPU devices once.
"""

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.commands import ROOT, command, ran, started
from helpers.living import LONG, needs_proc, running, wait_until
from helpers.ports import free_port
from helpers.processes import PLANTS, spec_of
from helpers.synthetic_traces import refused

import twinstep
import twinstep.torch.parallel
from twinstep import Comparison, InputError, Verdict
from twinstep.cli import process
from twinstep.errors import LostError
from twinstep.judge.judge import Judge
from twinstep.problems import EXAMPLES
from twinstep.runs import launch
from twinstep.runs.gate import Gate
from twinstep.trace.storage import open_trace

DOCUMENT = (ROOT / "docs" / "data_parallel.md").read_text()
ENVIRONMENT = {
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    "OMP_NUM_THREADS": "1",
}


def run_all(words: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    """What a command prints; it has to end well, and soon."""
    return ran(*words, cwd=folder, env=ENVIRONMENT | (environment or {})).printed()


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The document's commands, run in order in one folder, and what each block printed."""
    folder = tmp_path_factory.mktemp("documented")
    printed = []
    for block in re.findall(r"^```sh\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL):
        for port in {*re.findall(r"(?:localhost:|--master-port )(\d+)", block)}:
            block = block.replace(port, free_port())
        printed.append(run_all(["bash", "-ec", block], folder))
    return folder, printed


@pytest.mark.slow
def test_the_documents_commands(documented: tuple[Path, list[str]]) -> None:
    _, (verified, by_torchrun, by_jax, compared) = documented
    rows = re.findall(r"^(\w+) +(float\d\d) +(\d+)  (\w+)", verified, re.MULTILINE)
    assert rows == [
        ("linear_regression", "float64", "100", "rounding"),
        ("mnist_rnn", "float64", "30", "rounding"),
    ]
    for printed in (by_torchrun, by_jax):  # by the first process alone
        assert printed.count("Epoch [100/100], Loss: ") == 1
    assert compared.startswith("rounding: within what rounding explains")
    assert "rounding noise measured on this run" in compared


@pytest.mark.slow
@pytest.mark.parametrize("framework", launch.FRAMEWORKS)
@pytest.mark.parametrize(
    ("folder", "devices"),
    [("traces/mnist_rnn/float64", 2), ("two", None)],
    ids=["mnist_rnn on 2 devices", "linear_regression in 2 processes that meet"],
)
def test_the_trajectory_is_that_of_one_device(
    documented: tuple[Path, list[str]], folder: str, devices: int | None, framework: str
) -> None:
    """30 steps of mnist_rnn take in the smaller batch at the end of an epoch."""
    found = documented[0] / folder
    rounding_noise = twinstep.load_trace(found / "jax")
    assert rounding_noise.rounding_noise is not None
    many = twinstep.load_trace(found / framework)
    devices = devices or {"torch": 2, "jax": 4}[framework]
    metadata: Any = many.metadata
    assert metadata.device == f"cpu x {devices}"
    fields = {**metadata.spec, "dtype": "float64"}
    one = twinstep.run(EXAMPLES[metadata.example](**fields), framework, rounding_noise=False)
    assert one.metadata.device == "cpu"
    found_out = twinstep.compare(one, many.with_rounding_noise_of(rounding_noise))
    assert found_out.verdict in (Verdict.ROUNDING, Verdict.EQUAL), found_out.reason
    assert found_out.chaotic_from is None
    assert one.metrics == many.metrics


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What three processes recorded, case by case; three divide no example's number of samples."""
    folder = tmp_path_factory.mktemp("processes")
    cases = [*EXAMPLES, *(f"{example}:{fault}" for fault, (_, example, _) in PLANTS.items())]
    program = str(ROOT / "parity_tests" / "helpers" / "processes.py")
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    run_all([*torchrun, "--nproc-per-node=3", program, str(folder), *cases], folder)
    return folder


def gate(folder: Path, case: str) -> Comparison:
    """The gate of `verify`: each recorded step made again on one JAX device."""
    spec = spec_of(case)
    gated, judge = Gate(spec), Judge(spec.dtype)
    pieces = open_trace(folder / case.replace(":", "-")).chunks()
    for recorded, index in zip(pieces, spec.chunks(), strict=True):
        gated(judge, recorded, index)
    return judge.comparison()


def test_three_processes_train_as_one(name: str, processes: Path) -> None:
    found = gate(processes, name)
    assert found.verdict is Verdict.ROUNDING, found.reason


@pytest.mark.parametrize("fault", PLANTS)
def test_a_fault_of_data_parallel_training_is_found(fault: str, processes: Path) -> None:
    _, example, entry = PLANTS[fault]
    found = gate(processes, f"{example}:{fault}")
    assert found.verdict is Verdict.MISMATCH
    assert found.first is not None
    assert (found.first.step, found.first.stage, found.first.leaf) == entry


HEAD = """
from twinstep.device_config import DeviceConfig
from twinstep.problems import EXAMPLES
from twinstep.runs import launch
"""
HOLDS_ON = """
import gc
from torch.nn.parallel import DistributedDataParallel
from twinstep.torch import parallel

def living():
    return sum(isinstance(thing, DistributedDataParallel) for thing in gc.get_objects())

spec = EXAMPLES["linear_regression"](dtype="float64", steps=2)
gc.disable()
with parallel.group("cpu"):
    rank = parallel.Rank(launch.example("torch", spec), spec, DeviceConfig())
    found = [living() for _ in rank.chunks(1)]
    print(*found, living())
"""


def test_a_driver_lets_go_of_the_group_before_it_ends(tmp_path: Path) -> None:
    """DistributedDataParallel, alive when the group is destroyed, may wait for ever."""
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost"}
    environment = alone | {"MASTER_PORT": free_port()}
    assert run_all([sys.executable, "-c", HEAD + HOLDS_ON], tmp_path, environment) == "1 1 0\n"


FAILING = """
import os, sys
from torch_impl import linear_regression
from twinstep.cli import process

def fail(*parts, log):
    raise ValueError("planted\\nfault")

if os.environ["RANK"] == "1":
    linear_regression.train = fail
sys.exit(process.main(["torch", *sys.argv[1:]]))
"""


def test_a_process_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "failing.py"
    program.write_text(FAILING)
    monkeypatch.setattr(launch, "PROCESS", (str(program),))
    spec = EXAMPLES["linear_regression"](steps=3)
    line = refused(lambda: twinstep.run(spec, "torch", devices=2))
    assert re.search(r"process 1: ValueError: planted fault \(.*:7\)", line)


SAYS = f"{process.NAME}: error: "
LOST_ITS_PEER = f"{SAYS}PyTorch's process 0: RuntimeError: Connection closed\n"
SUMMARY = """
  rank      : {} (local_rank: 0)
  exitcode  : {} (pid: 17)
"""


@pytest.mark.parametrize(
    ("log", "says"),
    [
        (LOST_ITS_PEER + SUMMARY.format(0, 1) + SUMMARY.format(1, -9), "process 1 was killed by"),
        (LOST_ITS_PEER + SUMMARY.format(1, -15) + SUMMARY.format(0, 1), "Connection closed"),
        (f"{SAYS}no data\n" + LOST_ITS_PEER, "no data"),
        (LOST_ITS_PEER + f"{SAYS}no data\n", "no data"),
        (f"{SAYS}no data\n" + SUMMARY.format(0, -6) + SUMMARY.format(1, 1), "no data"),
        (LOST_ITS_PEER + SUMMARY.format(0, 1) + SUMMARY.format(1, -6), "process 1 was killed by"),
        ("usage\nunknown option\n\n", "ended with 2: unknown option"),
        ("", "ended with 2: it said nothing"),
    ],
)
def test_what_is_said_of_processes_that_failed(log: str, says: str) -> None:
    """As torchrun's summary has it: the one that was killed, not the one that misses it."""
    failure = twinstep.torch.parallel.failure(log, 2)
    assert says in str(failure)
    assert isinstance(failure, LostError if "killed" in says else InputError)  # 70, or 2


def processes_of(folder: Path) -> list[str]:
    """The processes whose command line names a folder."""
    return [words for _, _, words in running() if str(folder) in words]


@needs_proc
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "killed"])
def test_no_process_is_left_behind(how: signal.Signals, tmp_path: Path) -> None:
    line = "run linear_regression --framework torch --devices 2 --epochs 10000000"
    words = (sys.executable, "-m", "twinstep", *line.split())
    parent = started(*words, env=ENVIRONMENT | {"TMPDIR": str(tmp_path)})
    try:
        assert wait_until(lambda: bool(list(tmp_path.glob("*/trace/*.json")))), "they never met"
        assert len(processes_of(tmp_path)) >= 3  # torchrun and two processes
        parent.send_signal(how)
        error = parent.communicate(timeout=LONG)[1]
    finally:
        parent.kill()
    if how is signal.SIGINT:
        assert (parent.returncode, error) == (130, "twinstep: interrupted\n")
        assert not processes_of(tmp_path)
        assert not list(tmp_path.iterdir())
    assert wait_until(lambda: not processes_of(tmp_path))


IN_JAX = """
import re
import jax
import jax.numpy as jnp
import twinstep
from twinstep.errors import InputError

def spec_of(name, **fields):
    return EXAMPLES[name](dtype="float64", steps=4, **fields)

for name, devices, verdict in (
    ("linear_regression", 4, "rounding"),  # the first: what JAX is told before it starts stays
    ("linear_regression", 3, "rounding"),
    ("without_zero_grad", 3, "rounding"),
    ("sgd_single_sample", 2, "equal"),
):
    measured = name == "linear_regression"
    many = twinstep.run(spec_of(name), "jax", devices=devices, rounding_noise=measured)
    one = twinstep.run(spec_of(name), "jax", rounding_noise=False)
    assert many.metadata.device == f"cpu x {devices}"
    assert twinstep.compare(one, many).verdict == verdict, (name, devices)

driver = launch.driver("jax", spec_of("linear_regression"), DeviceConfig(devices=3))
list(driver.chunks(2))
assert driver.scan._cache_size() == 1

spec = spec_of("mnist_rnn", hidden_size=7, batch_size=44)
driver = launch.driver("jax", spec, DeviceConfig(devices=4))
with driver.settings():
    chunk = next(driver.spec.batches().chunks(2))
    text = driver.scan.lower(
        jax.tree.leaves(driver.replicated(driver.start)), None, driver.data,
        driver.replicated(jnp.asarray(chunk.indices)), None, steps=2).compile().as_text()
assert " all-reduce(" in text
shapes = re.findall(r"f64\\[([\\d,]+)\\]", text)
sizes = {int(size) for shape in shapes for size in shape.split(",")}
assert 11 in sizes, "each device computes with its part of 44 images"
assert 44 not in sizes, "and none with more"
try:
    twinstep.run(spec_of("linear_regression"), "jax", devices=5)
except InputError as error:
    print(error)
"""


def test_several_jax_devices(tmp_path: Path) -> None:
    assert run_all([sys.executable, "-W", "error", "-c", HEAD + IN_JAX], tmp_path) == (
        "devices is 5, but JAX found 4 cpu, started before: "
        'first jax.config.update("jax_num_cpu_devices", 5)\n'
    )


def test_more_devices_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twinstep.torch.parallel.devices, "find", lambda _: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert len(twinstep.torch.parallel.find("gpu", 2)) == 2
    says = "devices is 3, but PyTorch found 2 gpu"
    refused(lambda: twinstep.torch.parallel.find("gpu", 3), says)


@pytest.mark.parametrize(
    ("framework", "arguments", "says"),
    [
        ("", "", "unknown framework ''"),
        ("jaxx", "zero_grad", "did you mean jax"),
        ("torch", "zero_grad", "start it with torchrun"),
        ("torch", "", "takes an example first"),
        ("jax", "zero_grad --processes 2", "process is None, expected 0 to 1"),
        ("jax", "zero_grad --processes 2 --process 2", "process is 2, expected 0 to 1"),
        ("jax", "zero_grad --processes 2 --process 0 --devices 3", "a multiple of the 2 processes"),
    ],
)
def test_bad_input_of_a_single_process(framework: str, arguments: str, says: str) -> None:
    said = command(framework, *arguments.split(), call=process.main)
    assert says in said.refusal(process.NAME)
