"""One batch over N devices: each has all parameters and computes with its part of the samples.

Mirror: twinstep/torch/parallel.py

Nothing of an example changes. JAX is told which arrays are whole on every device (state, data) and
which is cut up (the batch, along its samples); the loss is a mean over all of them, so XLA adds up
the devices' gradients itself. `python -m twinstep.cli.process jax EXAMPLE` is one of several
processes that do so together, on one machine or on several; something else starts them.
"""

import contextlib
import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from twinstep.errors import InputError
from twinstep.jax import devices, driver, rounding_scale
from twinstep.jax.batches import Data, take
from twinstep.trace.ledger import Metadata


def find(device: str, count: int) -> list[jax.Device]:
    """`count` devices of a kind, as many of each process. InputError where there are fewer.

    A CPU serves as any number of devices, if JAX is told so before it starts.
    """
    if device == "cpu" and not jax.distributed.is_initialized():
        with contextlib.suppress(RuntimeError):  # it has started: what it has may do
            known = getattr(jax.config, "jax_num_cpu_devices")  # noqa: B009 - no attribute to types
            jax.config.update("jax_num_cpu_devices", max(count, known))
    platform, processes = devices.find(device).platform, jax.process_count()
    each, rest = divmod(count, processes)
    if rest:
        raise InputError(f"devices is {count}, expected a multiple of the {processes} processes")
    found: list[list[jax.Device]] = [[] for _ in range(processes)]
    for one in jax.devices(platform):
        found[one.process_index].append(one)
    if (fewest := min(map(len, found))) < each:
        where = " in a process" if processes > 1 else ""
        late = f', started before: first jax.config.update("jax_num_cpu_devices", {each})'
        hint = late if device == "cpu" else ""
        raise InputError(f"devices is {count}, but JAX found {fewest} {device}{where}{hint}")
    return [one for ours in found for one in ours[:each]]


@dataclass(frozen=True)
class Driver(driver.Driver):
    """Runs an example on `place.devices` devices; the trace is that of one."""

    @cached_property
    def metadata(self) -> Metadata:
        kind = f"{self._device.device_kind} x {self.device_config.devices}"
        return dataclasses.replace(super().metadata, device=kind)

    @cached_property
    def data(self) -> Data:
        whole: Data = self.replicated(super().data)
        return whole

    def batch_of(self, data: Data, index: jax.Array | None) -> Data:
        """What an update trains on, in parts. A number of samples that N does not divide is fine:
        XLA fills the last part up and leaves what it filled in out of every sum.
        """
        if index is not None:  # so that each device looks up its own samples alone
            data = take(data, self._shard(index))
        return {name: self._shard(data[name]) for name in self.names}

    def replicated(self, tree: Any) -> Any:
        """The arrays, whole, on every device."""

        def put(leaf: Any) -> Any:
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                # of its own kind it cannot be put on another process's devices
                return jax.random.wrap_key_data(put(jax.random.key_data(leaf)))
            return jax.device_put(leaf, self.replicated_sharding)

        return jax.tree.map(put, tree)

    @property
    def replicated_sharding(self) -> NamedSharding:
        """Whole, on every device."""
        return NamedSharding(self._mesh, PartitionSpec())

    def _shard(self, array: jax.Array) -> jax.Array:
        """In parts along axis 0, one a device."""
        parts: jax.Array = jax.lax.with_sharding_constraint(
            array, NamedSharding(self._mesh, PartitionSpec("samples"))
        )
        return parts

    def evaluated(
        self, state: Any, reruns: Any = None, unit: rounding_scale.Unit | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        here = jax.tree.map(
            lambda leaf: leaf.addressable_data(0), (state[:1], reruns and (reruns[0][:1],))
        )
        return super().evaluated(here[0], here[1], unit)

    @cached_property
    def _mesh(self) -> Mesh:
        return Mesh(
            np.array(find(self.device_config.device, self.device_config.devices)), ("samples",)
        )

    @cached_property
    def _device(self) -> jax.Device:
        return self._mesh.local_devices[0]


def initialize(
    device: str, devices: int, coordinator: str | None, processes: int | None, process: int | None
) -> bool:
    """Meets the other processes; whether this one is the first. process: its number, from 0

    coordinator: HOST:PORT at which process 0 can be reached; None: what the cluster says, of all
    three. Raises InputError where they do not meet.
    """
    if processes is not None and (process is None or not 0 <= process < processes):
        raise InputError(f"process is {process}, expected 0 to {processes - 1}")
    if device == "cpu" and processes:
        if devices % processes:
            expected = f"a multiple of the {processes} processes"
            raise InputError(f"devices is {devices}, expected {expected}")
        jax.config.update("jax_num_cpu_devices", devices // processes)
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"the processes did not meet: {str(error).splitlines()[0]}") from None
    return jax.process_index() == 0
