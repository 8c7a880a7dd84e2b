"""Writes a trace: a folder of safetensors shards and a JSON manifest that lists them.

The manifest is replaced, in one move, after each shard is on disk: a killed run leaves a readable
trace of the steps that it finished. It holds the size and the checksum of each shard and its own.
`storage` reads what this writes.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from twinstep import files
from twinstep.errors import InputError
from twinstep.trace import dtypes
from twinstep.trace.stages import LEAVES

MANIFEST = "manifest.json"
FORMAT = 6
MAX_MANIFEST = 64 * 2**20
"""Bytes of a manifest: some 300,000 shards."""
EVALUATION = "evaluation/"
"""Of a shard's arrays, those of the test; in the last shard, where there is one."""
INPUTS = "inputs/"
"""And the batches, by NAME/FINGERPRINT, of a recording that keeps them."""
ROWS = "rows/"
"""And the steps of a leaf that has not one row at each."""
_MEASURED = ("rounding_noise", "rounding_scale")

Metadata = Any
Trace = Any  # `ledger.Trace`, whose `save` this is


def check_new_folder(folder: str | os.PathLike[str]) -> None:
    """Raises InputError for what cannot become the folder of a new trace; leaves nothing behind."""
    path = files.checked_path("output folder", folder)
    try:
        if any(path.iterdir()):
            raise InputError(f"output folder {path} is not empty: name a new one")
        above = path
    except FileNotFoundError:
        if path.is_symlink():
            raise InputError(f"output folder {path} is a link to nothing") from None
        above = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    except OSError as error:
        raise InputError(f"output folder {path} cannot be written: {error.strerror}") from None
    if not above.is_dir():
        raise InputError(f"output folder {path} cannot be written: {above} is no folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"output folder {path} cannot be written: no permission in {above}")


class TraceWriter:
    """Writes a trace shard by shard into a new or empty folder.

    Raises InputError when the folder cannot be made, cannot be written or already holds something.
    """

    def __init__(self, folder: str | os.PathLike[str], metadata: Metadata) -> None:
        check_new_folder(folder)
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"output folder {self.folder} cannot be written: {error.strerror}"
            ) from None
        self._manifest: dict[str, Any] = {
            "format": FORMAT,
            "complete": False,
            "metadata": dataclasses.asdict(metadata),
            "metrics": {},
            "program": {},
            "leaves": [],
            "shards": [],
        }
        self._write_manifest()

    def write(self, chunk: Trace) -> None:
        """Adds consecutive steps, from step 0 on, as one shard. Raises InputError for others."""
        shards = self._manifest["shards"]
        expected = sum(shard["steps"] for shard in shards)
        problem = chunk.validation_error()
        tensors = {} if problem else _tensors(chunk)
        if not problem and not len(chunk):
            problem = "it has no steps"
        elif not problem and chunk.start != expected:
            problem = f"it starts at step {chunk.start}, expected {expected}"
        measured = any(name.startswith(_MEASURED) for name in self._manifest["leaves"])
        if not problem and shards and measured is (chunk.rounding_noise is None):
            problem = "what rounding does to its leaves is known of some steps alone"
        if problem:
            raise InputError(f"{self.folder}: a trace cannot be saved: {problem}")
        leaves = self._manifest["leaves"] = list(
            dict.fromkeys([*self._manifest["leaves"], *tensors])
        )
        self._manifest["program"] = dict(chunk.program)
        once = [leaf for leaf in chunk.grads if chunk.held_once(leaf)]
        twice = {f"grads/{leaf}" for leaf in once}
        stored = {n: a for n, a in tensors.items() if n not in twice} | _others(chunk)
        content = _safetensors(dict(dtypes.stored(n, a) for n, a in stored.items()))
        name = shard_name(chunk.start, len(chunk))
        self._put(name, *content)
        checksum = hashlib.sha256()
        for part in content:
            checksum.update(part)
        shards.append(
            {
                "file": name,
                "start": chunk.start,
                "steps": len(chunk),
                "bytes": sum(part.nbytes for part in content),
                "sha256": checksum.hexdigest(),
                "held_once": once,
                "leaves": len(leaves),
                "absent": [leaf for leaf in leaves if leaf not in tensors],
            }
        )
        self._write_manifest()

    def finish(self, metrics: Mapping[str, float]) -> None:
        """Marks the trace as complete."""
        self._manifest |= {"complete": True, "metrics": {n: float(v) for n, v in metrics.items()}}
        self._write_manifest()

    def _write_manifest(self) -> None:
        sealed = self._manifest | {"sha256": seal(self._manifest)}
        content = json.dumps(sealed, indent=1).encode()
        if len(content) > MAX_MANIFEST:  # `open_trace` would not read it
            raise InputError(f"{self.folder}: a trace cannot have so many shards: make them longer")
        self._put(MANIFEST, memoryview(content))

    def _put(self, name: str, *content: memoryview) -> None:
        path = self.folder / name
        try:
            files.replace(path, *content)
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leaves what was written: it is a readable trace of the finished steps."""


def seal(manifest: Mapping[str, Any]) -> str:
    """The checksum of all that a manifest says."""
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def shard_name(start: int, steps: int) -> str:
    """The name of the file that holds these steps."""
    return f"steps-{start:08d}-{start + steps:08d}.safetensors"


_KINDS = {
    **{f"float{n}": f"F{n}" for n in (16, 32, 64)},
    **{f"{kind}{n}": f"{kind[0].upper()}{n}" for kind in ("int", "uint") for n in (8, 16, 32, 64)},
    "bool": "BOOL",
}
DTYPES = {kind: name for name, kind in _KINDS.items()}
"""{what a safetensors file calls it: NumPy's dtype}, of all that a trace is written in"""


def _safetensors(arrays: Mapping[str, np.ndarray]) -> list[memoryview]:
    """A safetensors file in parts, the arrays' own memory among them: no copy of all is made.

    Source: https://github.com/huggingface/safetensors#format
    """
    header: dict[str, Any] = {}
    parts: list[memoryview] = []
    end = 0
    # the larger numbers first, so that each stands where it is read without a copy
    for name in sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name)):
        array = np.ascontiguousarray(arrays[name])
        start, end = end, end + array.nbytes
        shape = list(arrays[name].shape)
        kind = _KINDS[array.dtype.name]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
        if array.nbytes:
            parts.append(array.reshape(-1).view(np.uint8).data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return [memoryview(len(text).to_bytes(8, "little")), memoryview(text), *parts]


def _tensors(chunk: Trace) -> dict[str, np.ndarray]:
    """Every array of a chunk under "stage/name", or under "rounding_noise/stage/name"."""
    tensors = {"loss": chunk.losses}
    for stage in LEAVES:
        leaves = chunk.leaves(stage).items()
        tensors |= {f"{stage.name}/{name}": array for name, array in leaves}
    for measured in _MEASURED:
        leaves = (getattr(chunk, measured) or {}).items()
        tensors |= {f"{measured}/{name}": array for name, array in leaves}
    return tensors


def _others(chunk: Trace) -> dict[str, np.ndarray]:
    """What is not of every step."""
    others = {EVALUATION + name: np.asarray(array) for name, array in chunk.evaluation.items()}
    others |= {ROWS + name: np.asarray(steps) for name, steps in chunk.rows.items()}
    for name, arrays in chunk.inputs.items():
        others |= {f"{INPUTS}{name}/{number}": np.asarray(a) for number, a in arrays.items()}
    return others
