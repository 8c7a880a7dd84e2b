"""An example's compiled loops as programs for any platform, without running them.

What is compiled is the driver's own scan and the gate's own map, with arrays described and not
made: so a machine with a CPU alone can say what a GPU or a TPU would be given.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.export
import numpy as np
from jax.sharding import Mesh, Sharding, SingleDeviceSharding

from twinstep.jax import parallel
from twinstep.jax.batches import to_device
from twinstep.jax.driver import Driver
from twinstep.jax.replay import Replay

PLATFORMS = ("cpu", "cuda", "tpu")


@dataclass(frozen=True)
class Program:
    """A jitted function and the arguments of its first call, each leaf a shape and a dtype.

    settings: dtypes and precision that it is traced under
    """

    function: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    settings: Callable[[], AbstractContextManager[None]]

    def export(self, platforms: Sequence[str] = PLATFORMS) -> jax.export.Exported:
        """The program in StableHLO, for all of the platforms."""
        with self.settings():
            exported = jax.export.export(self.function, platforms=platforms)
            return exported(*self.arguments, **self.options)

    def compile(self, device: jax.Device | Sharding) -> jax.stages.Compiled:
        """The program as `device` would run it; one of a described topology will do.

        device: or how the arguments lie on several
        """
        sharding = device if isinstance(device, Sharding) else SingleDeviceSharding(device)
        arguments = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            self.arguments,
        )
        there: Any = sharding.device_set
        (platform,) = {chip.platform for chip in there}
        with self.settings():
            traced = self.function.trace(*arguments, **self.options)
            return traced.lower(lowering_platforms=(platform,)).compile()


@dataclass(frozen=True)
class Described(parallel.Driver):
    """Trains on devices that a topology describes: compiles for them, and never runs."""

    chips: tuple[jax.Device, ...] = ()

    @cached_property
    def _mesh(self) -> Mesh:
        return Mesh(np.array(self.chips), ("samples",))

    @cached_property
    def _device(self) -> jax.Device:
        return jax.devices("cpu")[0]  # where initial values are made


def training(driver: Driver) -> Program:
    """The training loop over the first chunk of steps, as the driver compiles it."""
    chunk = next(driver.spec.chunks())
    with driver.settings():
        state = driver.start
        unit, reruns = driver.unit, None
        if unit is not None:
            reruns = jax.eval_shape(driver._reruns, state, unit.eps)
        data = jax.eval_shape(lambda: to_device(driver.spec))
        arguments = (jax.tree.leaves(state), reruns, data, chunk.indices, unit)
    return Program(driver.scan, _described(arguments), {"steps": chunk.steps}, driver.settings)


def replaying(replay: Replay) -> Program:
    """The gate: a block of recorded steps, each made again from the state before it."""
    driver = replay._driver
    chunk = next(driver.spec.chunks())
    steps = min(replay.block, chunk.steps)
    indices = None if chunk.indices is None else chunk.indices[:steps]
    with driver.settings():
        one = jax.eval_shape(lambda: driver.ledger(driver.start))
        stages = {**one, "raw_grads": one["params"], "recorded": one["params"]}
        rows = _described(stages, steps)
        data = jax.eval_shape(lambda: to_device(driver.spec))
        arguments = (rows, indices, data, replay.unit)
    return Program(replay._map, _described(arguments), {}, driver.settings)


def _described(arguments: Any, *rows: int) -> Any:
    """What there would be of them; rows: how many of each."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct((*rows, *a.shape), a.dtype), arguments)
