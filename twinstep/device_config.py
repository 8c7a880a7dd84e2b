"""Where a run computes, and how precisely."""

import os
from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

from twinstep import memory
from twinstep.errors import InputError, unknown

MAX_DEVICES = 4096
MAX_THREADS = max(64, os.cpu_count() or 1)
"""More than a machine has cores is slow but right; far more, and none can be started."""
_PROCESS = 2**27  # bytes that PyTorch takes at least, in each of its processes

Device = Literal["cpu", "gpu", "tpu"]
Dtype = Literal["float32", "float64"]
Precision = Literal["highest", "default"]


@dataclass(frozen=True)
class DeviceConfig:
    """Where a run computes, and how precisely.

    Args:
        device: "cpu", "gpu" or "tpu".
        devices: How many of them share each batch.
        precision: Of float32 matrix products; "highest" is float32, which parity needs; "default"
            is what a framework does for speed (TF32 on a GPU, bfloat16 on a TPU).

    Raises:
        InputError: For a value that is none of these.

    Example:
        >>> from twinstep.device_config import DeviceConfig
        >>> DeviceConfig("tpu", devices=4).for_torch()
        DeviceConfig(device='cpu', devices=4, precision='highest')
    """

    device: str = "cpu"
    devices: int = 1
    precision: str = "highest"

    def __post_init__(self) -> None:
        for name, known in (("device", Device), ("precision", Precision)):
            value = getattr(self, name)
            if value not in get_args(known):
                raise InputError(unknown(name, value, get_args(known)))
        check_in_range("devices", self.devices, 1, MAX_DEVICES)

    def check_memory_for_processes(self) -> None:
        """Refuses more devices than the memory has room for PyTorch's processes, one a device.

        Raises:
            InputError: For so many.
        """
        needed, available = self.devices * _PROCESS, memory.available()
        if self.devices > 1 and needed > available:
            raise InputError(
                f"devices is {self.devices}: as many PyTorch processes need at least "
                f"{memory.gib(needed)}, {memory.gib(available)} are to be had"
            )

    def for_torch(self) -> Self:
        """PyTorch's beside this one of JAX: it stays on the CPU beside a TPU.

        Returns:
            The same, with "cpu" for "tpu".
        """
        return replace(self, device="cpu") if self.device == "tpu" else self

    def single_device(self) -> Self:
        """One device of the same kind, in full precision; a CPU for a TPU, which has no float64.

        Returns:
            The same, with one device and "highest".
        """
        device = "cpu" if self.device == "tpu" else self.device
        return replace(self, device=device, devices=1, precision="highest")


def check_in_range(name: str, value: object, low: int, high: int) -> None:
    """Refuses what is no whole number from low to high.

    Args:
        name: Of the value, for the message.
        value: What is checked.
        low, high: The least and the largest that are right.

    Raises:
        InputError: For any other value.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise InputError(f"{name} is {value!r}, expected at least {low}")
    if value > high:
        raise InputError(f"{name} is {value}, expected at most {high}")


CPU = DeviceConfig()
"""One CPU, in full precision."""
