"""Weights in orbax's checkpoints: folders of a tree, whose leaves go by their dotted paths.

orbax, which comes with Flax and brings JAX, is imported by name where such a folder is named.
"""

import importlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from twinstep import extras
from twinstep.errors import InputError
from twinstep.trace import dtypes
from twinstep.weights.tensors import CODES

_TREE = "_METADATA"  # the file that says what tree a folder holds
_VARIABLE = ".value"  # what an nnx.State adds to the path of each array


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint by dotted paths. InputError for a folder that is none."""
    if not (path / _TREE).is_file():
        inside = sorted(child.parent for child in path.glob(f"*/{_TREE}"))
        hint = f", did you mean {inside[0]}?" if inside else ""
        raise InputError(f"{path} is a folder, but no checkpoint of orbax's{hint}")
    check_installed(path)
    checkpoint = _orbax()
    try:
        with checkpoint.PyTreeCheckpointer() as checkpointer:
            where = path.absolute()
            form = checkpointer.metadata(where).item_metadata.tree
            as_numpy = _mapped(form, lambda _: checkpoint.RestoreArgs(restore_type=np.ndarray))
            restored = checkpointer.restore(where, restore_args=as_numpy)
    except Exception as error:  # of a damaged file: tensorstore's, JSON's, orbax's own
        said = str(error).partition("\n")[0]
        raise InputError(f"{path} cannot be read as a checkpoint of orbax's: {said}") from None
    found: dict[str, np.ndarray] = {}
    for name, leaf in _flat(restored):
        array = np.asarray(leaf)
        if name in found:
            raise InputError(f"{path} has {name!r} twice, expected dotted paths of their own")
        if dtypes.name(array.dtype) not in CODES and array.dtype != np.complex128:
            raise InputError(f"{path}: {name!r} is {array.dtype}, expected {', '.join(CODES)}")
        found[name] = array
    if all(name.endswith(_VARIABLE) for name in found):
        found = {name.removesuffix(_VARIABLE): array for name, array in found.items()}
    return found


def write(path: Path, named: Mapping[str, np.ndarray]) -> None:
    """Writes a new folder, whole or not at all. InputError for what it cannot hold."""
    tree = _nested(named)
    for name, array in named.items():
        if not array.size:
            raise InputError(
                f"{path}: {name!r} is of shape {array.shape}, which orbax keeps nothing of"
            )
    checkpoint = _orbax()
    path = path.absolute()
    part = path.with_name(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with checkpoint.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(part, tree)
        part.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        for left in path.parent.glob(f"{part.name}*"):
            shutil.rmtree(left, ignore_errors=True)


def check_installed(path: Path) -> None:
    """InputError for a folder that cannot be read or written, as orbax is not installed."""
    extras.check_installed("jax", str(path))
    if not extras.installed("orbax.checkpoint"):
        raise InputError(f"{path} needs orbax, not installed: pip install orbax-checkpoint")


def _orbax() -> Any:
    return importlib.import_module("orbax.checkpoint")


def _mapped(tree: Any, leaf: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _mapped(value, leaf) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_mapped(value, leaf) for value in tree]
    return None if tree is None else leaf(tree)


def _flat(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _flat(value, (*path, str(key)))
    elif isinstance(tree, (list, tuple)):
        for number, value in enumerate(tree):
            yield from _flat(value, (*path, str(number)))
    elif tree is not None:
        yield ".".join(path), tree


def _nested(named: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Dicts in dicts, by the dots of the names. InputError for an array in whose place one is."""
    tree: dict[str, Any] = {}
    for name, array in named.items():
        *path, last = name.split(".")
        node = _inside(tree, path, name)
        if last in node:
            raise InputError(f"{name!r} is an array and holds others, expected one of both")
        node[last] = np.array(array, order="C")
    return tree


def _inside(tree: dict[str, Any], path: Sequence[str], name: str) -> dict[str, Any]:
    for key in path:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise InputError(f"{name!r} is in {key!r}, which is an array, expected one of both")
    return tree
