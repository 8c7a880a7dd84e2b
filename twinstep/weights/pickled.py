"""Weights in files of PyTorch's own, .pt: tensors alone, which PyTorch reads and writes.

It is imported by name where such a file is named, and nowhere else: the JAX side, too, reads one
where PyTorch is installed.
"""

import importlib
import io
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from twinstep import extras, files
from twinstep.errors import InputError
from twinstep.trace import dtypes
from twinstep.weights.tensors import CODES, held

SUFFIXES = (".pt", ".pth", ".bin")
KEYS = ("state_dict", "model_state_dict", "model")
"""Under which of a checkpoint's keys its state_dict may be."""
_MAX_NAMED = 8


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a state_dict, saved alone or in a checkpoint. InputError for anything else."""
    check_installed(path)
    torch = importlib.import_module("torch")
    try:
        with files.opened(path) as file:
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f"asks for {found[1]}" if found else "is damaged"
        raise InputError(f"{path} {what}, expected a saved state_dict: tensors alone") from None
    except Exception as error:  # a zip archive that is cut short has many
        said = str(error).partition("\n")[0]
        raise InputError(f"{path} is no file of PyTorch's: {said}") from None
    return {name: _array(torch, path, name, t) for name, t in _state_dict(path, loaded).items()}


def encoded(named: Mapping[str, np.ndarray]) -> bytes:
    """What `torch.save` makes of a state_dict of the arrays."""
    torch = importlib.import_module("torch")
    file = io.BytesIO()
    torch.save({name: _tensor(torch, array) for name, array in named.items()}, file)
    return file.getvalue()


def check_installed(path: Path) -> None:
    """InputError for a file that cannot be read or written here, as PyTorch is not installed."""
    extras.check_installed("torch", str(path))


def _state_dict(path: Path, loaded: Any) -> Mapping[str, Any]:
    """A loaded file's state_dict: itself, or what stands under a key of a checkpoint."""
    if not isinstance(loaded, Mapping):
        raise InputError(f"{path} holds a {type(loaded).__name__}, expected a state_dict")
    if all(_is_tensor(value) for value in loaded.values()):
        return loaded
    under = [key for key in KEYS if isinstance(loaded.get(key), Mapping)]
    if len(under) != 1:
        keys = ", ".join(map(repr, [*loaded][:_MAX_NAMED]))
        more = ", ..." if len(loaded) > _MAX_NAMED else ""
        raise InputError(
            f"{path} has the keys {keys}{more}, expected tensors, or a state_dict under one of "
            f"{', '.join(KEYS)}"
        )
    inner: Mapping[str, Any] = loaded[under[0]]
    for name, value in inner.items():
        if not _is_tensor(value):
            kind = type(value).__name__
            raise InputError(f"{path}: {under[0]}[{name!r}] is a {kind}, expected a tensor")
    return inner


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "is_quantized")


def _array(torch: Any, path: Path, name: Any, tensor: Any) -> np.ndarray:
    """A copy of a tensor. InputError for a form that NumPy has not."""
    kind = str(tensor.dtype).removeprefix("torch.")
    layout = str(tensor.layout).removeprefix("torch.")
    if not isinstance(name, str):
        raise InputError(f"{path} has a tensor under {name!r}, expected names")
    if kind not in CODES and kind != "complex128":
        raise InputError(f"{path}: {name!r} is {kind}, expected one of {', '.join(CODES)}")
    if layout != "strided" or tensor.device.type != "cpu":
        where = f"a {layout} tensor on {tensor.device.type}"
        raise InputError(f"{path}: {name!r} is {where}, expected a dense one")
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    if kind == "bfloat16" or kind.startswith("float8"):
        raw = plain.view(torch.int16 if kind == "bfloat16" else torch.uint8)
        return np.array(raw.numpy()).view(held(kind))
    return np.array(plain.numpy())


def _tensor(torch: Any, array: np.ndarray) -> Any:
    """A copy of an array as a tensor of its dtype."""
    kind, copy = dtypes.name(array.dtype), np.array(array, order="C")
    if kind == "bfloat16" or kind.startswith("float8"):
        raw = copy.view(np.int16 if kind == "bfloat16" else np.uint8)
        return torch.from_numpy(raw).view(getattr(torch, kind))
    return torch.from_numpy(copy)
