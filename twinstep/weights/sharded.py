"""Weights in several files, as an index lists them: `model.safetensors.index.json`."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from twinstep import files
from twinstep.errors import InputError

SUFFIX = ".index.json"
_MAX_INDEX = 64 << 20  # bytes: of a model of a hundred thousand tensors


def shards(path: Path) -> list[Path]:
    """The files that an index lists, each once. InputError for what is no index."""
    return [path.with_name(name) for name in dict.fromkeys(_weight_map(path).values())]


def read(path: Path, read_shard: Callable[[Path], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays of all shards, in the index's order.

    Raises InputError, for all in one line, where shards are missing, or hold others than listed.
    """
    weight_map = _weight_map(path)
    absent = [shard.name for shard in shards(path) if not shard.exists()]
    if absent:
        raise InputError(f"{path} lists what is not there: {', '.join(absent)}")
    held = {shard.name: read_shard(shard) for shard in shards(path)}
    if wrong := _misplaced(weight_map, held):
        raise InputError(f"{path}: {'; '.join(wrong)}")
    return {name: held[shard][name] for name, shard in weight_map.items()}


def _misplaced(
    weight_map: Mapping[str, str], held: Mapping[str, Mapping[str, np.ndarray]]
) -> list[str]:
    """What is not in the shard that the index says, all of it."""
    wrong = []
    for name, shard in weight_map.items():
        if name not in held[shard]:
            others = [other for other, arrays in held.items() if name in arrays]
            where = f"it is in {others[0]}" if others else "nor in another"
            wrong.append(f"{name!r} is not in {shard}, {where}")
    for shard, arrays in held.items():
        wrong += [f"{shard} has {n!r}, not listed" for n in arrays if n not in weight_map]
        wrong += [
            f"{shard} has {name!r}, listed in {weight_map[name]}, which has it too"
            for name in arrays
            if weight_map.get(name, shard) != shard and name in held[weight_map[name]]
        ]
    return wrong


def _weight_map(path: Path) -> dict[str, str]:
    """{name: the file that it is in}"""
    try:
        index = json.loads(files.read(path, _MAX_INDEX).decode(), object_pairs_hook=_once)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no index: {error}") from None
    listed = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(listed, dict) or not listed:
        raise InputError(f"{path} is no index: it has no weight_map of {{name: file}}")
    for name, shard in listed.items():
        # a file beside the index: what is downloaded names no other of this machine's
        if not isinstance(shard, str) or Path(shard).name != shard or shard.endswith(SUFFIX):
            raise InputError(f"{path}: {name!r} is in {shard!r}, expected a file beside it")
    return listed


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return found
