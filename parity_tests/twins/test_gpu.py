"""On a GPU that both frameworks find: parity in float32 and float64, TF32 off, what TF32 costs.

`make test-gpu` runs this; elsewhere it is skipped. What can be known of a GPU without one is
test_devices.py's and test_lowering.py's.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from helpers.commands import command

import twinstep
import twinstep.jax.devices
import twinstep.torch.devices
from twinstep.device_config import DeviceConfig
from twinstep.problems import EXAMPLES
from twinstep.runs import launch
from twinstep.torch.driver import take


def _found_by_jax() -> bool:
    try:
        return bool(jax.devices("gpu"))
    except RuntimeError:
        return False


@pytest.fixture(scope="session", autouse=True)
def _both_found_one() -> None:
    # not when this file is read: asking starts JAX, which other tests first have settings for
    found = {"PyTorch": torch.cuda.is_available(), "JAX": _found_by_jax()}
    if without := " and ".join(framework for framework in found if not found[framework]):
        pytest.skip(f"{without} found no GPU")


pytestmark = pytest.mark.gpu

GPU = DeviceConfig("gpu")
TF32 = 2.0**-11  # what a factor of a product is rounded to


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_both_train_alike(name: str, dtype: Any) -> None:
    result = twinstep.verify(EXAMPLES[name](dtype=dtype), "gpu")
    assert result.comparison.verdict.same, result.comparison.reason
    for run in result.runs.values():
        assert run.precision == "highest"
        assert run.device != "cpu"


@pytest.mark.parametrize("framework", launch.FRAMEWORKS)
def test_gpu_trains_as_the_cpu_does(name: str, framework: str) -> None:
    """What the GPU computes is not only alike on both sides: it is what the CPU computes."""
    spec = EXAMPLES[name](dtype="float64", steps=min(5, EXAMPLES[name]().total_steps))
    here = twinstep.run(spec, "jax")  # with its rounding noise, by which the other is judged
    there = twinstep.run(spec, framework, "gpu", rounding_noise=False)
    comparison = twinstep.compare(here, there)
    assert comparison.verdict.same, comparison.reason


def product(framework: str, precision: str) -> tuple[np.ndarray, str]:
    """A matrix product in float32 as a run would make it, and what is said of it."""
    a, b = matrices()
    if framework == "torch":
        device = twinstep.torch.devices.find("gpu")
        with twinstep.torch.devices.settings("float32", device, precision):
            made = torch.tensor(a, device=device) @ torch.tensor(b, device=device)
            return made.cpu().numpy(), twinstep.torch.devices.in_force("float32", device)
    there = twinstep.jax.devices.find("gpu")
    with twinstep.jax.devices.settings("float32", there, precision):
        return np.asarray(jnp.asarray(a) @ jnp.asarray(b)), twinstep.jax.devices.in_force(
            "float32", there
        )


def matrices() -> tuple[np.ndarray, np.ndarray]:
    """Two matrices of positive numbers, so that nothing cancels. (512, 512) each"""
    draw = np.random.default_rng(0)
    a, b = (draw.uniform(0.5, 1.5, (512, 512)).astype(np.float32) for _ in range(2))
    return a, b


@pytest.mark.parametrize("precision", ["highest", "default"])
@pytest.mark.parametrize("framework", launch.FRAMEWORKS)
def test_products_are_as_precise_as_said(framework: str, precision: str) -> None:
    a, b = matrices()
    exact = a.astype(np.float64) @ b.astype(np.float64)
    made, said = product(framework, precision)
    worst = float(np.max(np.abs(made - exact) / exact))
    if precision == "highest":
        assert said == "highest"
        assert worst < 2e-6
    else:
        assert said == "tf32"
        if torch.cuda.get_device_capability() >= (8, 0):  # older GPUs have no TF32
            assert 2e-6 < worst < TF32


def test_rnn_of_cudnn_is_in_float32() -> None:
    """cuDNN has a TF32 switch of its own, on unless it is turned off."""
    device = twinstep.torch.devices.find("gpu")
    with twinstep.torch.devices.settings("float64", device), device:
        torch.manual_seed(0)
        exact, x = torch.nn.RNN(64, 128, batch_first=True), torch.randn(8, 20, 64)
        true = exact(x)[0]
    away = {}
    for precision in ("highest", "default"):
        with twinstep.torch.devices.settings("float32", device, precision):
            away[precision] = float((exact.float()(x.float())[0] - true).abs().max())
        exact.double()
    assert away["highest"] < 1e-5
    if torch.cuda.get_device_capability() >= (8, 0):
        assert away["default"] > 4 * away["highest"]


def test_cost_of_tf32_is_measured() -> None:
    spec = EXAMPLES["mnist_rnn"](steps=5)
    result = twinstep.verify(spec, "gpu", precision="default")
    assert result.costs is not None
    for name, cost in result.costs.items():
        assert result.runs[name].precision == "tf32"
        if torch.cuda.get_device_capability() >= (8, 0):
            assert not cost.same_bits
            assert cost.fast.first_loss > cost.full.first_loss
    # the verdict is judged as ever: 1 where TF32 is more than rounding
    flags = ("--steps", 5, "--device", "gpu", "--precision", "default")
    said = command("verify", "mnist_rnn", *flags)
    assert said.code < 2
    assert "at --precision default" in said.out


def test_all_is_on_the_gpu(name: str) -> None:
    spec = EXAMPLES[name]()
    ours, theirs = (launch.driver(framework, spec, GPU) for framework in launch.FRAMEWORKS)
    chunk = next(spec.batches().chunks(1))
    tensors = [*ours.start[0].parameters(), *next(take(ours.data, chunk)).values()]
    assert {tensor.device.type for tensor in tensors} == {"cuda"}
    with theirs.settings():
        leaves = jax.tree.leaves((theirs.start, theirs.data))
    assert {device.platform for leaf in leaves for device in leaf.devices()} == {"gpu"}


@pytest.mark.parametrize("framework", launch.FRAMEWORKS)
def test_run_leaves_the_users_draws_alone(framework: str) -> None:
    torch.cuda.manual_seed(7)
    before = torch.cuda.get_rng_state()
    twinstep.run(EXAMPLES["zero_grad"](steps=2), framework, "gpu", rounding_noise=False)
    assert torch.equal(torch.cuda.get_rng_state(), before)
