"""Which device runs, in which precision.

Mirror: jax_impl/devices.py
"""

import contextlib
from collections.abc import Iterator

import torch

from twinstep.errors import InputError


def find(device: str) -> torch.device:
    """The device of a kind: cpu or gpu. InputError says what was found instead."""
    found = ["cpu"] + (["gpu"] if torch.cuda.is_available() else [])
    if device not in found:
        raise InputError(f"device is {device!r}, but PyTorch found only: {', '.join(found)}")
    return torch.device("cuda" if device == "gpu" else "cpu")


@contextlib.contextmanager
def settings(dtype: str, precision: str = "highest") -> Iterator[None]:
    """The run's dtype as default, matrix products of `precision`, the user's draws untouched.

    precision: "highest" is float32 throughout; "default" allows TF32
    """
    default, tf32 = torch.get_default_dtype(), torch.backends.cudnn.allow_tf32
    matmul = torch.get_float32_matmul_precision()
    torch.set_default_dtype(getattr(torch, dtype))
    torch.set_float32_matmul_precision("highest" if precision == "highest" else "high")
    torch.backends.cudnn.allow_tf32 = precision != "highest"
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_default_dtype(default)
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = tf32


def set_threads(threads: int) -> None:
    """How many threads an operation may use."""
    torch.set_num_threads(threads)


def versions() -> dict[str, str]:
    """What takes part in a run, by name."""
    return {"torch": torch.__version__}
