"""Files of weights for tests: as people have them, and as what is made of them is compared."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

Named = Mapping[str, np.ndarray]


def same(one: Named, other: Named) -> bool:
    """Whether names, dtypes, shapes and bits are the same."""
    return {n: _bits(a) for n, a in one.items()} == {n: _bits(a) for n, a in other.items()}


def _bits(array: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    return array.dtype.name, array.shape, array.tobytes()


def saved(folder: Path, named: Named, name: str = "in.safetensors") -> Path:
    """A .safetensors file of them."""
    save_file({n: np.array(a, order="C") for n, a in named.items()}, folder / name)
    return folder / name


def shards(folder: Path, named: Named) -> tuple[Path, dict[str, str]]:
    """An index and its two files, and what it says is where."""
    names = [*named]
    where: dict[str, str] = {}
    for number in (1, 2):
        part = {name: named[name] for name in names[number - 1 :: 2]}
        where |= dict.fromkeys(part, saved(folder, part, f"model-{number}.safetensors").name)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    return index, where
