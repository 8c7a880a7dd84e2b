"""Which device runs, in which precision.

Mirror: twinstep/torch/devices.py
"""

import contextlib
from collections.abc import Iterator

import jax

from twinstep.errors import InputError

# What JAX may make of a float32 product where nothing else is asked for.
_FAST_MODES = {"cpu": "highest", "gpu": "tf32", "tpu": "bfloat16"}


def find(device: str, dtype: str = "float32") -> jax.Device:
    """The first device of a kind: cpu, gpu or tpu. InputError says what was found instead.

    dtype: what it has to compute in. A TPU is refused float64: XLA makes pairs of float32 of it
    there, some 48 bits of 53, so that the very parameters it starts from are not the same.
    """
    try:
        found = jax.devices(device if device in _FAST_MODES else None)[0]
    except RuntimeError:
        found = None
    if found is None or found.platform != device:
        kinds = ", ".join(sorted({"cpu"} | {d.platform for d in jax.devices()}))
        raise InputError(f"device is {device!r}, but JAX found only: {kinds}")
    if found.platform == "tpu" and dtype == "float64":
        raise InputError(f"dtype is {dtype!r}, but a TPU has none, expected float32")
    return found


@contextlib.contextmanager
def settings(dtype: str, device: jax.Device, precision: str = "highest") -> Iterator[None]:
    """float64 where asked for, matrix products of `precision`, arrays on `device`."""
    with (
        jax.enable_x64(dtype == "float64"),
        jax.default_matmul_precision(precision),
        jax.default_device(device),
    ):
        yield


def in_force(dtype: str, device: jax.Device) -> str:
    """The least that a product may be computed in at present, asked of JAX: highest, tf32, ...

    "highest" is the run's own dtype; nothing less is there on a CPU, nor for float64.
    """
    asked = getattr(jax.config, "jax_default_matmul_precision")  # noqa: B009 - no attribute to types
    if dtype == "float64" or asked in ("highest", "float32"):
        return "highest"
    return _FAST_MODES[device.platform]


def versions() -> dict[str, str]:
    """What takes part in a run, by name."""
    import flax
    import optax

    return {"jax": jax.__version__, "flax": flax.__version__, "optax": optax.__version__}
