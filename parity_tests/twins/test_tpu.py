"""Every example compiled for a TPU v5e, one chip and four, by the TPU's own compiler; none is here.

`make test-tpu` installs libtpu, which holds that compiler, and runs this. Nothing is computed: what
the programs give is test_lowering.py's to say, up to the platform's own rounding.
"""

import importlib.util
import os
import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from helpers import programs
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding
from twins.test_lowering import LOOPS, program

from twinstep.device_config import DeviceConfig
from twinstep.problems import EXAMPLES
from twinstep.runs import launch

MISSING = "" if importlib.util.find_spec("libtpu") else "the TPU's compiler, libtpu, is not here"
if not MISSING and os.environ.get("JAX_PLATFORMS") != "cpu":
    MISSING = "JAX may look for a TPU, which it need not have"
pytestmark = [
    pytest.mark.tpu,
    pytest.mark.skipif(bool(MISSING), reason=f"{MISSING}: make test-tpu sees to it"),
]

MEMORY = 16 * 2**30  # of a v5e chip
TOPOLOGIES: dict[int, dict[str, Any]] = {
    1: {"topology_name": "v5e:1x1", "chips_per_host_bounds": (1, 1, 1)},
    4: {"topology_name": "v5e:2x2"},
}


@pytest.fixture(autouse=True)
def cache_disabled() -> Iterator[None]:
    """A program for a TPU that was kept cannot be read back where there is none."""
    with launch.cache_disabled("jax"):
        yield


@pytest.fixture(scope="session")
def chips() -> dict[int, tuple[jax.Device, ...]]:
    """A single chip, and four: described, not there."""
    # no question to a metadata server; several processes may compile; no search for other hosts
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    }
    found = {
        count: tuple(topologies.get_topology_desc(platform="tpu", **names).devices)
        for count, names in TOPOLOGIES.items()
    }
    assert {count: len(devices) for count, devices in found.items()} == {1: 1, 4: 4}
    return found


def on(chip: jax.Device, *shape: int) -> jax.ShapeDtypeStruct:
    """An array of float32 on a chip."""
    return jax.ShapeDtypeStruct(shape, np.float32, sharding=SingleDeviceSharding(chip))


def less_than_float32(text: str) -> list[str]:
    """The lines of a compiled program that hold bfloat16, or a product that need not be float32."""
    product = re.compile(r" (dot|convolution)\(")
    return [
        line
        for line in text.splitlines()
        if "bf16" in line
        or (product.search(line) and "operand_precision={highest,highest}" not in line)
    ]


def check(compiled: Any) -> str:
    """Float32 throughout, and within a chip's memory; the compiled program's text."""
    text = compiled.as_text()
    assert less_than_float32(text) == []
    memory = compiled.memory_analysis()
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    assert 0 < used < MEMORY
    assert compiled.cost_analysis()["flops"] > 0
    return text


@pytest.mark.parametrize("loop", LOOPS)
def test_one_chip(name: str, loop: str, chips: dict[int, tuple[jax.Device, ...]]) -> None:
    check(program(loop, EXAMPLES[name]()).compile(chips[1][0]))


def test_four_chips(name: str, chips: dict[int, tuple[jax.Device, ...]]) -> None:
    spec = EXAMPLES[name]()
    driver = programs.Described(
        launch.example("jax", spec), spec, DeviceConfig("tpu", devices=4), chips=chips[4]
    )
    compiled = programs.training(driver).compile(driver.replicated_sharding)
    text = check(compiled)
    assert "num_partitions=4" in text
    assert re.search(r"all-reduce|all-gather", text), "the chips never meet"
    for leaf in jax.tree.leaves(compiled.output_shardings):
        assert len(leaf.device_set) == 4
        assert leaf.is_fully_replicated


def test_bfloat16_is_noticed(chips: dict[int, tuple[jax.Device, ...]]) -> None:
    """What a TPU does where nothing is asked for is what the tests above do not let pass."""
    spec = EXAMPLES["mnist_rnn"](steps=2)
    loop = program("training", spec, DeviceConfig(precision="default"))
    text = loop.compile(chips[1][0]).as_text()
    assert any("bf16" in line for line in less_than_float32(text or ""))


def test_product_without_a_precision_is_noticed(chips: dict[int, tuple[jax.Device, ...]]) -> None:
    """A product alone is compiled to one that takes bfloat16 inside, and does not say so."""
    square = on(chips[1][0], 128, 128)
    for precision, found in (("default", 1), ("highest", 0)):
        with jax.default_matmul_precision(precision):
            traced = jax.jit(lambda a, b: a @ b).trace(square, square)
            lowered = traced.lower(lowering_platforms=("tpu",))
        text = lowered.compile().as_text()
        assert "bf16" not in text
        assert len(less_than_float32(text)) == found


def test_program_that_is_too_large_is_noticed(chips: dict[int, tuple[jax.Device, ...]]) -> None:
    traced = jax.jit(lambda a: a + 1).trace(on(chips[1][0], 2**17, 2**16))
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        traced.lower(lowering_platforms=("tpu",)).compile()
