"""Which device runs, in which precision.

Mirror: twinstep/jax/devices.py
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from twinstep.errors import InputError

_MATMUL = {"highest": "highest", "high": "tf32", "medium": "bfloat16"}


def find(device: str, dtype: str = "float32") -> torch.device:
    """The device of a kind: cpu or gpu (CUDA, else mps). InputError says what was found instead.

    dtype: what it has to compute in; mps has no float64
    """
    found = {"cpu": "cpu"}
    if torch.backends.mps.is_available():
        found["gpu"] = "mps"
    if torch.cuda.is_available():
        found["gpu"] = "cuda"
    if device not in found:
        raise InputError(f"device is {device!r}, but PyTorch found only: {', '.join(found)}")
    if found[device] == "mps" and dtype == "float64":
        raise InputError(f"dtype is {dtype!r}, but an Apple GPU (mps) has none, expected float32")
    return torch.device(found[device])


@contextlib.contextmanager
def settings(dtype: str, device: torch.device, precision: str = "highest") -> Iterator[None]:
    """The run's dtype as default, matrix products of `precision`, the user's draws untouched.

    precision: "highest" is float32 throughout; "default" allows TF32 on a CUDA GPU, and nothing
        elsewhere: there a fast mode, where there is one, is not what JAX has by default
    """
    default = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with _products(tf32=precision != "highest" and device.type == "cuda"), _draws(device):
            yield
    finally:
        torch.set_default_dtype(default)


def in_force(dtype: str, device: torch.device) -> str:
    """The least that a product may be computed in at present, asked of PyTorch: highest, tf32, ...

    "highest" is the run's own dtype; nothing less is there on mps, nor for float64.
    """
    if dtype == "float64" or device.type == "mps":
        return "highest"
    allowed = {_MATMUL[torch.get_float32_matmul_precision()]}
    backend = torch.backends.cudnn if device.type == "cuda" else torch.backends.mkldnn
    for operation in _operations(backend):
        allowed.add(operation.fp32_precision)
    if device.type == "cuda" and _cudnn_tf32():
        allowed.add("tf32")
    return next((mode for mode in ("bfloat16", "bf16", "tf32") if mode in allowed), "highest")


def set_threads(threads: int) -> None:
    """How many threads an operation may use."""
    torch.set_num_threads(threads)


def name(device: torch.device) -> str:
    """What a device is called in a trace."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def versions() -> dict[str, str]:
    """What takes part in a run, by name."""
    return {"torch": torch.__version__}


@contextlib.contextmanager
def _products(*, tf32: bool) -> Iterator[None]:
    """float32 products in float32, or on a GPU in TF32, whatever the user has set; then as it was.

    The two older switches are set first: PyTorch refuses to run where they and an operation's own
    contradict each other.
    """
    matmul, cudnn = torch.get_float32_matmul_precision(), _cudnn_tf32()
    operations = [*_operations(torch.backends.cudnn), *_operations(torch.backends.mkldnn)]
    before = _own_modes(operations)
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    for operation in _operations(torch.backends.cudnn):
        operation.fp32_precision = "tf32" if tf32 else "ieee"
    for operation in _operations(torch.backends.mkldnn):
        operation.fp32_precision = "ieee"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = cudnn
        for operation, mode in zip(operations, before, strict=True):
            operation.fp32_precision = mode


def _operations(backend: Any) -> list[Any]:
    """The operations of a backend that have a switch of their own, `fp32_precision`, since 2.9.

    Where it says nothing it inherits `torch.backends.fp32_precision`, which may say TF32.
    """
    found = [getattr(backend, name, None) for name in ("conv", "rnn")]
    return [operation for operation in found if hasattr(operation, "fp32_precision")]


def _own_modes(operations: list[Any]) -> list[str]:
    """What each operation says itself, "none" where it inherits."""
    backends: Any = torch.backends  # whose switch is of 2.9, as its operations' are
    if not operations:
        return []
    inherited, backends.fp32_precision = backends.fp32_precision, "none"
    own = [operation.fp32_precision for operation in operations]
    backends.fp32_precision = inherited
    return own


def _cudnn_tf32() -> bool:
    """The older switch, which PyTorch refuses to read where newer ones contradict it."""
    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return any(op.fp32_precision == "tf32" for op in _operations(torch.backends.cudnn))


@contextlib.contextmanager
def _draws(device: torch.device) -> Iterator[None]:
    """Leaves the random generators of the CPU and of `device` as they were.

    A module draws initial values where it is made, though the spec's own take their place.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        mps = torch.mps.get_rng_state() if device.type == "mps" else None
        try:
            yield
        finally:
            if mps is not None:
                torch.mps.set_rng_state(mps)
