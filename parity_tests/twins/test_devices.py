"""Where a run computes and in which precision: refused, kept to and said truly, on a CPU alone.

What needs a GPU is test_gpu.py's. Here a device that is not there is described (PyTorch's `meta`,
a platform's name), and a fast mode is planted.
"""

import contextlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import torch
from faults.plants_anywhere import rewritten
from helpers.commands import command, refusal
from helpers.synthetic_traces import refused
from torch._subclasses.fake_tensor import FakeTensorMode

import torch_impl.mnist_rnn
import twinstep
import twinstep.jax.devices
import twinstep.jax.nn.linear
import twinstep.torch.devices
from twinstep.cli.verify import _specs_to_verify
from twinstep.device_config import DeviceConfig
from twinstep.problems import EXAMPLES, Spec
from twinstep.problems.mnist_rnn import MnistRnn
from twinstep.report.verdicts import print_verifications
from twinstep.runs import launch
from twinstep.torch.conversion import load_params
from twinstep.torch.driver import take

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
META = torch.device("meta")


def described(platform: str) -> Any:
    """A JAX device as far as its kind goes."""
    return SimpleNamespace(platform=platform, device_kind=f"a {platform}")


def train_on_meta(spec: Spec) -> None:
    """Makes and trains what a run does, on a device that no CPU tensor may meet."""
    example = launch.example("torch", spec)
    given = spec.batches()
    kept: list[Any] = []

    def kept_loss(*given: torch.Tensor) -> torch.Tensor:
        kept.append(criterion(*given))
        return kept[-1]

    with FakeTensorMode(allow_non_fake_inputs=True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "item", lambda tensor: 1.0)  # printed losses, Adam's counts
        with META:
            model, criterion, optimizer = example.build(spec)
            load_params(model, spec.initial_params())
            data = {name: torch.tensor(array) for name, array in given.data.items()}
        batches: Any = [tuple(b.values()) for b in take(data, next(given.chunks(2)))]
        epochs = batches if given.batch_size is None else [batches]
        example.train(model, kept_loss, optimizer, epochs, log=lambda line: None)
        kept += [tensor for batch in batches for tensor in batch]
        kept += [tensor for p in model.parameters() for tensor in (p, p.grad)]
        if (test_set := spec.test_set()) is not None:
            kept += example.evaluate(model, *(torch.tensor(a, device=META) for a in test_set))
        assert {tensor.device for tensor in kept} == {META}


def test_pytorch_keeps_to_its_device(name: str) -> None:
    train_on_meta(EXAMPLES[name]())


def test_tensor_left_behind_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    left = rewritten("train", "images.reshape(-1, 28, 28) / 255", "torch.zeros(images.shape)")
    left(monkeypatch, torch_impl.mnist_rnn)
    with pytest.raises(RuntimeError, match="at cpu and parameter tensor at meta"):
        train_on_meta(EXAMPLES["mnist_rnn"](steps=1))


def test_float64_on_mps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine whose GPU PyTorch reaches by mps; CUDA comes before it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert twinstep.torch.devices.find("gpu") == torch.device("mps")
    assert twinstep.torch.devices.find("cpu", "float64") == CPU
    line = "run zero_grad --framework torch --device gpu --dtype float64"
    says = "dtype is 'float64', but an Apple GPU (mps) has none, expected float32"
    assert refusal(*line.split()) == says
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert twinstep.torch.devices.find("gpu", "float64") == CUDA


def test_float64_on_a_tpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "devices", lambda kind=None: [described(kind or "tpu")])
    assert twinstep.jax.devices.find("tpu").platform == "tpu"
    assert twinstep.jax.devices.find("cpu", "float64").platform == "cpu"
    says = "dtype is 'float64', but a TPU has none, expected float32"
    # with both frameworks, before PyTorch trains
    for line in ("run zero_grad --framework jax", "run zero_grad", "verify zero_grad"):
        assert refusal(*line.split(), "--device", "tpu", "--dtype", "float64") == says


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("run zero_grad --device gpu", "device is 'gpu', but PyTorch found only: cpu"),
        ("run zero_grad --device tpu --framework jax", "device is 'tpu', but JAX found only: "),
        ("verify zero_grad --device gpu", "device is 'gpu'"),
        ("run linear_regression --devices 2 --device gpu", "device is 'gpu', but PyTorch found"),
    ],
)
def test_a_device_that_no_command_finds(line: str, says: str) -> None:
    if "gpu" in line and torch.cuda.is_available():
        pytest.skip("there is a GPU here, and it is no bad input")
    assert says in refusal(*line.split())


@pytest.mark.parametrize("device", ["gpu", "tpu"])
def test_device_that_is_not_there(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "devices", lambda kind=None: [described("cpu")])
    says = f"device is '{device}', but JAX found only: cpu"
    refused(lambda: twinstep.jax.devices.find(device), says)


@pytest.mark.parametrize(
    ("flags", "dtypes"),
    [
        ([], ["float64", "float32"]),
        (["--device", "gpu"], ["float64", "float32"]),
        (["--device", "tpu"], ["float32"]),
        (["--precision", "default"], ["float32"]),
        (["--device", "tpu", "--dtype", "float64"], ["float64"]),  # refused where it trains
    ],
)
def test_dtypes_are_those_that_the_device_has(flags: list[str], dtypes: list[str]) -> None:
    for names in (["zero_grad"], ["zero_grad", "chain_rule"]):
        specs = _specs_to_verify(names, flags)[1]
        assert [spec.dtype for spec in specs if spec.name == "zero_grad"] == dtypes


def test_places_beside_a_tpu() -> None:
    device_config = DeviceConfig("tpu", 4, "default")
    assert device_config.for_torch() == DeviceConfig("cpu", 4, "default")
    # a TPU has no float64 for the reference
    assert device_config.single_device() == DeviceConfig("cpu", 1, "highest")
    assert DeviceConfig("gpu", 4, "default").single_device() == DeviceConfig("gpu", 1, "highest")


def switches() -> dict[str, Any]:
    """All that PyTorch lets a user say about products."""
    said: dict[str, Any] = {"matmul": torch.get_float32_matmul_precision()}
    with contextlib.suppress(RuntimeError):  # refused where newer switches contradict it
        said["cudnn"] = torch.backends.cudnn.allow_tf32
    for backend in (torch.backends.cudnn, torch.backends.mkldnn):
        for operation in twinstep.torch.devices._operations(backend):
            said[repr(operation)] = operation.fp32_precision
    return said


@pytest.fixture(params=["untouched", "older switches", "newer switches"])
def users(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a user may have set before."""
    if request.param == "newer switches" and not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("this PyTorch has none")
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    if request.param == "older switches":
        torch.set_float32_matmul_precision("medium")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "newer switches":
            patch.setattr(torch.backends, "fp32_precision", "tf32")
        yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.parametrize("precision", ["highest", "default"])
def test_pytorch_multiplies_as_it_says(precision: str, users: None) -> None:
    before = switches()
    in_force, fast = twinstep.torch.devices.in_force, precision == "default"
    with twinstep.torch.devices.settings("float32", CPU, precision):
        assert in_force("float32", CPU) == in_force("float32", CUDA) == "highest"
    assert switches() == before
    with twinstep.torch.devices._products(tf32=fast):  # what a GPU's settings are
        assert in_force("float32", CUDA) == ("tf32" if fast else "highest")
        assert in_force("float64", CUDA) == "highest"
        assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == fast
    assert switches() == before
    for operation in twinstep.torch.devices._operations(torch.backends.mkldnn):  # inherits still
        with pytest.MonkeyPatch.context() as patch:
            for mode in ("ieee", "tf32"):
                patch.setattr(torch.backends, "fp32_precision", mode)
                assert switches()[repr(operation)] == mode


def test_jax_multiplies_as_it_says() -> None:
    in_force, cpu = twinstep.jax.devices.in_force, jax.devices("cpu")[0]
    for kind, fast in (("cpu", "highest"), ("gpu", "tf32"), ("tpu", "bfloat16")):
        for asked, said in (("default", fast), ("highest", "highest")):
            with twinstep.jax.devices.settings("float32", cpu, asked):
                assert in_force("float32", described(kind)) == said
                assert in_force("float64", described(kind)) == "highest"


@pytest.mark.parametrize("framework", launch.FRAMEWORKS)
def test_trace_says_what_is_in_force(framework: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not what was asked for: settings that do not take are told."""
    spec = EXAMPLES["zero_grad"](steps=1)
    assert launch.driver(framework, spec).metadata.precision == "highest"
    for module in (twinstep.torch.devices, twinstep.jax.devices):
        monkeypatch.setattr(module, "settings", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    monkeypatch.setitem(twinstep.jax.devices._FAST_MODES, "cpu", "tf32")
    said = {"torch": "bfloat16", "jax": "tf32"}[framework]
    assert launch.driver(framework, spec).metadata.precision == said


def test_a_cpu_has_no_fast_mode(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    said = command("verify", "zero_grad", "--precision", "default", "--json", file)
    printed = said.printed()
    (result,) = json.loads(file.read_text())["results"]
    assert result["spec"]["dtype"] == "float32"
    assert {run["precision"] for run in result["runs"].values()} == {"highest"}
    for cost in result["cost_of_fast_modes"].values():
        assert cost["same_bits"]
        assert cost["default"] == cost["highest"]
        assert 0 < cost["default"]["params"] < 1e-6
    assert printed.count("no fast mode on cpu: the same bits") == 2
    assert "no proof of parity" in " ".join(printed.split())


@pytest.mark.parametrize("framework", launch.FRAMEWORKS)
def test_same_bits_where_there_are_matrix_products(framework: str) -> None:
    spec = MnistRnn(hidden_size=16, steps=3)
    run = partial(twinstep.run, spec, framework, rounding_noise=False)
    default, highest = run(precision="default"), run(precision="highest")
    assert twinstep.compare(default, highest).verdict == "equal"
    assert default.metadata.precision == "highest"


def test_cost_of_a_planted_fast_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX's products take bfloat16 at default precision, as a TPU's do: the verdict is not bent."""
    exact = twinstep.jax.nn.linear.dot_general

    def coarse(lhs: jax.Array, rhs: jax.Array, *args: Any, **options: Any) -> jax.Array:
        if getattr(jax.config, "jax_default_matmul_precision") == "default":  # noqa: B009
            lhs = lhs.astype(jnp.bfloat16).astype(lhs.dtype)
        return exact(lhs, rhs, *args, **options)

    monkeypatch.setattr(twinstep.jax.nn.linear, "dot_general", coarse)
    monkeypatch.setitem(twinstep.jax.devices._FAST_MODES, "cpu", "bfloat16")
    spec = EXAMPLES["zero_grad"]()
    result = twinstep.verify(spec, precision="default")
    assert result.comparison.verdict == "mismatch"
    assert [result.runs[n].precision for n in ("torch", "jax")] == ["highest", "bfloat16"]
    assert result.costs is not None
    cost = result.costs["jax"]
    assert result.costs["torch"].same_bits
    assert not cost.same_bits
    for what in ("first_loss", "loss", "params"):
        assert getattr(cost.fast, what) > 1e-5 > 1e-6 > getattr(cost.full, what), what
    printed = command(call=lambda _: print_verifications([result])).out
    assert f"bfloat16     {cost.fast.first_loss:.1e} ({cost.full.first_loss:.1e})" in printed
    assert "mismatch" in printed
    printed = command("run", "zero_grad", "--framework", "jax", "--precision", "default").printed()
    assert "== jax: zero_grad, float32, seed 0, products in bfloat16" in printed
