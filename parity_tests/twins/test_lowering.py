"""Every example's loops are programs for CPU, CUDA and TPU alike, with every product in float32.

Nothing runs: JAX lowers for platforms that are not here. What a TPU's own compiler makes of it is
test_tpu.py's, what a GPU computes test_gpu.py's.
"""

import re
from typing import Any

import jax
import numpy as np
import pytest
from helpers import programs

import jax_impl.chain_rule
import twinstep.jax.nn.linear
from twinstep.device_config import CPU, DeviceConfig
from twinstep.problems import EXAMPLES, Spec
from twinstep.problems.mnist_rnn import MnistRnn
from twinstep.runs import launch

# a TPU has no float64
PLATFORMS = {"float32": ("cpu", "cuda", "tpu"), "float64": ("cpu", "cuda")}
LOOPS = ("training", "training and its rounding noise", "replay")


def program(loop: str, spec: Spec, device_config: DeviceConfig = CPU) -> programs.Program:
    """One of an example's compiled loops."""
    if loop == "replay":
        return programs.replaying(launch.replay(spec, device_config))
    rounding_noise = loop == "training and its rounding noise"
    return programs.training(
        launch.driver("jax", spec, device_config, rounding_noise=rounding_noise)
    )


def precisions(text: str) -> list[str]:
    """What each matrix product and convolution of a StableHLO module asks for."""
    found = []
    for line in text.splitlines():
        if re.search(r"stablehlo\.(dot|dot_general|convolution)\b", line):
            asked = re.search(r"precision(?:_config)? = \[(.*?)\]", line)
            found.append(asked[1] if asked else "DEFAULT, DEFAULT")
    return found


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("dtype", PLATFORMS)
def test_loop_lowers_for_every_platform(name: str, dtype: Any, loop: str) -> None:
    exported = program(loop, EXAMPLES[name](dtype=dtype)).export(PLATFORMS[dtype])
    assert exported.platforms == PLATFORMS[dtype]
    text = exported.mlir_module()
    assert "stablehlo.while" in text, "a loop, not its steps written out"
    assert set(precisions(text)) <= {"HIGHEST, HIGHEST"}
    dtypes = {array.dtype for array in exported.out_avals}
    assert {str(d) for d in dtypes if jax.dtypes.issubdtype(d, np.floating)} == {dtype}


@pytest.mark.parametrize("loop", LOOPS)
def test_default_precision_is_noticed(loop: str) -> None:
    """No loop passes because it has no matrix products."""
    spec = MnistRnn(steps=2, hidden_size=8)
    for precision, said in (("highest", "HIGHEST"), ("default", "DEFAULT")):
        text = program(loop, spec, DeviceConfig(precision=precision)).export().mlir_module()
        assert len(precisions(text)) > 5
        assert set(precisions(text)) == {f"{said}, {said}"}


def test_layer_with_a_precision_of_its_own_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fast(lhs: Any, rhs: Any, dimension_numbers: Any, **options: Any) -> jax.Array:
        return jax.lax.dot_general(lhs, rhs, dimension_numbers, precision="default")

    monkeypatch.setattr(twinstep.jax.nn.linear, "dot_general", fast)
    text = program("training", EXAMPLES["zero_grad"]()).export().mlir_module()
    assert set(precisions(text)) == {"DEFAULT, DEFAULT"}


def test_loop_for_one_platform_alone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_a_cpu_alone(output: jax.Array, target: jax.Array) -> jax.Array:
        error = (target - output).reshape(1, 1)
        return jax.numpy.sum(jax.scipy.linalg.schur(jax.lax.stop_gradient(error))[0])

    monkeypatch.setattr(jax_impl.chain_rule, "half_squared_error", on_a_cpu_alone)
    loop = program("training", EXAMPLES["chain_rule"]())
    assert loop.export(["cpu"]).platforms == ("cpu",)
    with pytest.raises(NotImplementedError, match="schur"):
        loop.export(["tpu"])


@pytest.mark.parametrize("example", ["zero_grad", "sgd_single_sample"])
def test_the_program_is_what_is_run(example: str) -> None:
    """The exported program, run here, gives the driver's very bits."""
    spec = EXAMPLES[example](steps=5)
    driver = launch.driver("jax", spec)
    chunk = next(spec.chunks())
    with driver.settings():
        leaves = jax.tree.leaves(driver.start)
        exported = programs.training(driver).export()
        got = exported.call(leaves, None, driver.data, chunk.indices, None)
        want = driver.scan(leaves, None, driver.data, chunk.indices, None, steps=chunk.steps)
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(ours, theirs)
