"""Which device runs, in which precision.

Mirror: torch_impl/devices.py
"""

import contextlib
from collections.abc import Iterator

import jax

from twinstep.errors import InputError

_PLATFORMS = {"cpu": "cpu", "gpu": "gpu", "tpu": "tpu"}


def find(device: str) -> jax.Device:
    """The first device of a kind: cpu, gpu or tpu. InputError says what was found instead."""
    try:
        return jax.devices(_PLATFORMS[device])[0]
    except (KeyError, RuntimeError):
        found = ", ".join(sorted({d.platform for d in jax.devices()}))
        raise InputError(f"device is {device!r}, but JAX found only: {found}") from None


@contextlib.contextmanager
def settings(dtype: str, device: jax.Device, precision: str = "highest") -> Iterator[None]:
    """float64 where asked for, matrix products of `precision`, arrays on `device`."""
    with (
        jax.enable_x64(dtype == "float64"),
        jax.default_matmul_precision(precision),
        jax.default_device(device),
    ):
        yield


def versions() -> dict[str, str]:
    """What takes part in a run, by name."""
    import flax
    import optax

    return {"jax": jax.__version__, "flax": flax.__version__, "optax": optax.__version__}
