"""Where a run computes, and how precisely."""

from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

from twinstep.errors import InputError, unknown

Device = Literal["cpu", "gpu", "tpu"]
Precision = Literal["highest", "default"]


@dataclass(frozen=True)
class Place:
    """Where a run computes, and how precisely. Raises InputError for a value that is not one.

    device: cpu, gpu or tpu
    devices: how many of them share each batch
    precision: of float32 matrix products; "highest" is float32, which parity needs; "default" is
        what a framework does for speed (TF32 on a GPU, bfloat16 on a TPU)
    """

    device: str = "cpu"
    devices: int = 1
    precision: str = "highest"

    def __post_init__(self) -> None:
        for name, known in (("device", Device), ("precision", Precision)):
            value = getattr(self, name)
            if value not in get_args(known):
                raise InputError(unknown(name, value, get_args(known)))
        if not isinstance(self.devices, int) or self.devices < 1:
            raise InputError(f"devices is {self.devices!r}, expected at least 1")

    def for_torch(self) -> Self:
        """PyTorch's place beside this one of JAX: it stays on the CPU beside a TPU."""
        return replace(self, device="cpu") if self.device == "tpu" else self

    def alone(self) -> Self:
        """One device of the same kind, in full precision; a CPU for a TPU, which has no float64."""
        device = "cpu" if self.device == "tpu" else self.device
        return replace(self, device=device, devices=1, precision="highest")


CPU = Place()
"""One CPU, in full precision."""
