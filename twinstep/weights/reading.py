"""A file of weights of whatever kind, by its name: its arrays, by their names."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

from twinstep import files
from twinstep.errors import InputError
from twinstep.weights import checkpoints, pickled, safetensors_file, sharded

SAFETENSORS = ".safetensors"
WRAPPERS = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile write before every name."""
Value = TypeVar("Value")


def read_state_dict(name: files.Name) -> dict[str, np.ndarray]:
    """The arrays of a state_dict's file: .safetensors, an index of several, or PyTorch's own.

    Raises InputError for a file of another kind, and for one that is not what its name says.
    """
    path = files.checked_path("weights", name)
    if path.name.endswith(sharded.SUFFIX):
        return sharded.read(path, _read_one)
    return _read_one(path)


def read_weights(name: files.Name) -> dict[str, np.ndarray]:
    """The same, or the arrays of an orbax checkpoint's folder by their dotted paths."""
    path = files.checked_path("weights", name)
    found = checkpoints.read(path) if path.is_dir() else read_state_dict(path)
    if not found:
        raise InputError(f"{path} has no arrays")
    return found


def files_of(name: files.Name) -> list[Path]:
    """All that is read of a file of weights: of an index, its shards too."""
    path = Path(name)
    return [path, *sharded.shards(path)] if path.name.endswith(sharded.SUFFIX) else [path]


def unwrapped(named: Mapping[str, Value], expected: Iterable[str] = ()) -> dict[str, Value]:
    """The same without what DDP and torch.compile put before every name.

    It stays where it is only before some, and where all names that are expected have it.
    """
    found, expected = dict(named), [*expected]
    while found:
        for prefix in WRAPPERS:
            own = prefix if expected and all(n.startswith(prefix) for n in expected) else ""
            if all(name.startswith(own + prefix) for name in found):
                found = {name.removeprefix(prefix): value for name, value in found.items()}
                break
        else:
            break
    return found


def _read_one(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == SAFETENSORS:
        return safetensors_file.read(path)
    if path.suffix in pickled.SUFFIXES:
        return pickled.read(path)
    kinds = ", ".join((SAFETENSORS, SAFETENSORS + sharded.SUFFIX, *pickled.SUFFIXES))
    raise InputError(f"{path}: expected a file of weights, which ends in one of {kinds}")
