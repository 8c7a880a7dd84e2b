"""Weights in .safetensors files, one or several that an index lists, in every dtype these have."""

import json
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from twinstep import files
from twinstep.errors import InputError
from twinstep.trace import dtypes
from twinstep.weights.tensors import CODES, bits, held

MAX_FILE = 1 << 40
"""Bytes: as much as a file of weights has."""
_NAMES = {code: name for name, code in CODES.items()}
_ALIGNED = 8  # bytes: where a file's first array begins


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .safetensors file. InputError for what is none."""
    from safetensors import SafetensorError, deserialize

    try:
        content = files.read(path, MAX_FILE)
        found = deserialize(content)  # type: ignore[no-untyped-call]  # of safetensors
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except SafetensorError as error:
        raise InputError(f"{path} is no safetensors file: {error}") from None
    if odd := {entry["dtype"] for _, entry in found} - _NAMES.keys():
        expected = f"expected one of {', '.join(_NAMES)}"
        raise InputError(f"{path} has arrays of {', '.join(sorted(odd))}, {expected}")
    held_by = dict(found)  # in an order of its own
    return {name: _array(held_by[name]) for name in _header(content) if name in held_by}


def _header(content: bytes) -> dict[str, Any]:
    """What a sound file says at its beginning, in its order."""
    header: dict[str, Any] = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return header


def _array(entry: Mapping[str, Any]) -> np.ndarray:
    dtype = held(_NAMES[entry["dtype"]])
    return np.frombuffer(entry["data"], np.uint8).view(dtype).reshape(entry["shape"])


def encoded(named: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> bytes:
    """A .safetensors file of the arrays. InputError for a dtype that it cannot have.

    Written here, because NumPy has no bfloat16 where ml_dtypes is not installed.
    """
    kinds = {name: dtypes.name(array.dtype) for name, array in named.items()}
    for name, kind in kinds.items():
        if kind not in CODES:
            raise InputError(
                f"{name!r} is {kind}, which no safetensors file has, expected {', '.join(CODES)}"
            )
    # the widest first, so that each array begins at a multiple of its numbers' size
    widest = sorted(named, key=lambda name: -named[name].dtype.itemsize)
    ends = dict(zip(widest, accumulate(named[name].nbytes for name in widest), strict=True))
    entries = {
        name: {
            "dtype": CODES[kinds[name]],
            "shape": list(array.shape),
            "data_offsets": [ends[name] - array.nbytes, ends[name]],
        }
        for name, array in named.items()
    }
    own = {} if metadata is None else {"__metadata__": dict(metadata)}
    text = json.dumps(own | entries).encode()
    text += b" " * (-len(text) % _ALIGNED)
    parts = [bits(named[name]).data for name in widest]
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])
