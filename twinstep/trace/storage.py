"""A saved trace: a folder of safetensors shards and a JSON manifest that lists them.

The manifest is replaced, in one move, after each shard is on disk: a killed run leaves a readable
trace of the steps that it finished. Nothing is unpickled. The manifest holds the size and the
checksum of each shard and its own checksum, and what is not what was written is refused.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, get_args

import numpy as np

from twinstep import files, memory
from twinstep.errors import InputError
from twinstep.files import replace as _replace
from twinstep.place import Dtype
from twinstep.trace.ledger import Metadata, Trace, flaw, join
from twinstep.trace.stages import LEAVES

MANIFEST = "manifest.json"
FORMAT = 3
MOST_MANIFEST = 64 * 2**20
"""Bytes of a manifest: some 300,000 shards."""


def refuse_used(folder: str | os.PathLike[str]) -> None:
    """Raises InputError for what cannot become the folder of a new trace; leaves nothing behind."""
    path = files.named("output folder", folder)
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
        refuse_used(folder)
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
            "leaves": [],
            "joined": {},
            "shards": [],
        }
        self._write_manifest()

    def write(self, chunk: Trace) -> None:
        """Adds consecutive steps, from step 0 on, as one shard. Raises InputError for others."""
        from safetensors.numpy import save

        tensors, late = _tensors(chunk), _late(chunk.joined, chunk.start)
        shards = self._manifest["shards"]
        expected = sum(shard["steps"] for shard in shards)
        problem = flaw(chunk)
        if not len(chunk):
            problem = "it has no steps"
        elif chunk.start != expected:
            problem = f"it starts at step {chunk.start}, expected {expected}"
        elif shards and set(self._manifest["leaves"]) ^ tensors.keys() - late:
            problem = "its leaves are not those of the steps before"
        if problem:
            raise InputError(f"{self.folder}: a trace cannot be saved: {problem}")
        self._manifest["leaves"] = list(dict.fromkeys([*self._manifest["leaves"], *tensors]))
        self._manifest["joined"] = dict(chunk.joined)
        once = [leaf for leaf in chunk.grads if chunk.held_once(leaf)]
        stored = {n: a for n, a in tensors.items() if n not in {f"grads/{leaf}" for leaf in once}}
        content = save(stored | _others(chunk))
        name = _shard_name(chunk.start, len(chunk))
        self._put(name, content)
        shards.append(
            {
                "file": name,
                "start": chunk.start,
                "steps": len(chunk),
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
                "held_once": once,
            }
        )
        self._write_manifest()

    def finish(self, metrics: Mapping[str, float]) -> None:
        """Marks the trace as complete."""
        self._manifest |= {"complete": True, "metrics": {n: float(v) for n, v in metrics.items()}}
        self._write_manifest()

    def _write_manifest(self) -> None:
        sealed = self._manifest | {"sha256": _seal(self._manifest)}
        content = json.dumps(sealed, indent=1).encode()
        if len(content) > MOST_MANIFEST:  # `open_trace` would not read it
            raise InputError(f"{self.folder}: a trace cannot have so many shards: make them longer")
        self._put(MANIFEST, content)

    def _put(self, name: str, content: bytes) -> None:
        path = self.folder / name
        try:
            _replace(path, content)
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


@dataclass(frozen=True)
class StoredTrace:
    """A saved trace, read step by step.

    steps: how many it holds
    complete: whether the run that wrote it came to its end
    leaves: the names of a shard's arrays, in the ledger's order
    joined: {leaf: step} of those that came later
    """

    folder: Path
    metadata: Metadata
    metrics: Mapping[str, float]
    complete: bool
    leaves: tuple[str, ...]
    joined: Mapping[str, int]
    shards: tuple[Mapping[str, Any], ...]

    @property
    def steps(self) -> int:
        return sum(shard["steps"] for shard in self.shards)

    def chunks(self) -> Iterator[Trace]:
        """The steps, shard by shard. Raises InputError at a shard that is missing or damaged."""
        for shard in self.shards:
            yield self._read(shard)

    def _read(self, shard: Mapping[str, Any]) -> Trace:
        from safetensors import SafetensorError
        from safetensors.numpy import load

        path = self.folder / shard["file"]
        if shard["bytes"] > memory.at_most():
            needed, most = memory.gib(shard["bytes"]), memory.gib(memory.at_most())
            raise InputError(f"trace shard {path} takes {needed} of memory, {most} are to be had")
        try:
            content = files.read(path, shard["bytes"])
        except OSError as error:
            raise InputError(f"trace shard {path} cannot be read: {error.strerror}") from None
        except InputError as error:
            raise InputError(f"trace shard {error}") from None
        if hashlib.sha256(content).hexdigest() != shard["sha256"]:
            raise InputError(f"trace shard {path} is damaged: its bytes are not those written")
        try:
            tensors = load(content)
        except (SafetensorError, KeyError) as error:  # KeyError: a type that NumPy lacks
            raise InputError(f"trace shard {path} is no safetensors file: {error}") from None
        others = {name: a for name, a in tensors.items() if name.startswith(_OTHERS)}
        raw = {f"grads/{leaf}": f"raw_grads/{leaf}" for leaf in shard["held_once"]}
        held = tensors | {name: tensors[of] for name, of in raw.items() if of in tensors}
        end = shard["start"] + shard["steps"]
        expected = set(self.leaves) - _late(self.joined, end)
        if held.keys() - others.keys() != expected:
            raise InputError(f"trace shard {path} does not hold the leaves that are listed")
        # a safetensors file has an order of its own
        ordered = {name: held[name] for name in self.leaves if name in expected}
        chunk = self._trace(ordered, others, shard["start"], end)
        if problem := flaw(chunk):
            raise InputError(f"trace shard {path} holds no trace: {problem}")
        if len(chunk) != shard["steps"]:
            raise InputError(
                f"trace shard {path} holds {len(chunk)} steps, expected {shard['steps']}"
            )
        return chunk

    def _trace(
        self, held: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray], start: int, end: int
    ) -> Trace:
        leaves: dict[str, Any] = {stage.field: _below(f"{stage.name}/", held) for stage in LEAVES}
        return Trace(
            metadata=self.metadata,
            losses=held["loss"],
            **leaves,
            noise=_below("noise/", held) or None,
            scales=_below("scales/", held) or None,
            start=start,
            metrics=self.metrics,
            evaluation=_below(_EVALUATION, others),
            inputs=_inputs(others),
            joined={name: step for name, step in self.joined.items() if step < end},
        )


def open_trace(folder: str | os.PathLike[str]) -> StoredTrace:
    """Reads a trace's manifest, and no more. Raises InputError when the folder holds none."""
    path = files.named("trace folder", folder) / MANIFEST
    try:
        manifest = json.loads(files.read(path, MOST_MANIFEST).decode())
    except FileNotFoundError:
        raise InputError(f"{folder} is no trace: it has no {MANIFEST}") from None
    except NotADirectoryError:
        raise InputError(f"{folder} is no trace: expected a folder") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except InputError:
        raise
    except (ValueError, RecursionError):
        raise InputError(f"{path} is damaged: it is not JSON") from None
    form = manifest.get("format") if isinstance(manifest, dict) else None
    if type(form) is not int:
        raise InputError(f"{path} is no trace manifest: it names no format")
    if form != FORMAT:
        hint = "use a newer twinstep" if form > FORMAT else "an older twinstep wrote it, run again"
        raise InputError(f"{path} has format {form}, expected {FORMAT}: {hint}")
    try:
        if _get(manifest, "sha256", str) != _seal(manifest):
            raise ValueError("it is not what was written")
        stored = _stored(Path(folder), manifest)
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from None
    return stored


def load_trace(folder: str | os.PathLike[str]) -> Trace:
    """Reads a whole trace. Raises InputError when it is none, or a part is missing or damaged."""
    stored = open_trace(folder)
    if not stored.shards:
        raise InputError(f"trace {folder} holds no steps: its run ended before the first was done")
    return join(list(stored.chunks()))


def _stored(folder: Path, manifest: Mapping[str, Any]) -> StoredTrace:
    """A manifest's content, each value of its type; ValueError says what is not."""
    metadata = _get(manifest, "metadata", dict)
    fields = {field.name for field in dataclasses.fields(Metadata)}
    if metadata.keys() != fields:
        raise ValueError(f"metadata has {sorted(metadata)}, expected {sorted(fields)}")
    for name in fields:
        if metadata[name] is not None or name not in ("example", "spec"):
            _get(metadata, name, dict if name in ("spec", "versions") else str)
    if metadata["dtype"] not in get_args(Dtype):
        raise ValueError(f"dtype is {metadata['dtype']!r}, expected one of {get_args(Dtype)}")
    metrics = _get(manifest, "metrics", dict)
    for name in metrics:
        _get(metrics, name, float)
    leaves = _get(manifest, "leaves", list)
    shards = _get(manifest, "shards", list)
    if shards and ("loss" not in leaves or not all(isinstance(name, str) for name in leaves)):
        raise ValueError("leaves lists no loss, or what is no name")
    joined = _get(manifest, "joined", dict)
    for name in joined:
        if _get(joined, name, int) < 1 or name not in leaves:
            raise ValueError(f"joined has {name!r} at {joined[name]}, expected a leaf and a step")
    expected = 0
    for shard in shards:
        if not isinstance(shard, dict):
            raise ValueError("a shard is no object")
        file, start = _get(shard, "file", str), _get(shard, "start", int)
        steps = _get(shard, "steps", int)
        _get(shard, "sha256", str)
        if not all(isinstance(leaf, str) for leaf in _get(shard, "held_once", list)):
            raise ValueError("held_once lists what is no name")
        if start != expected:
            raise ValueError(f"{file!r} starts at step {start}, expected {expected}")
        if _get(shard, "bytes", int) < 0:
            raise ValueError(f"{file!r} has {shard['bytes']} bytes, expected at least 0")
        if steps < 1:
            raise ValueError(f"{file!r} has {steps} steps, expected at least 1")
        if file != _shard_name(start, steps):  # and so no path leads out of the folder
            raise ValueError(f"a shard is named {file!r}, expected {_shard_name(start, steps)!r}")
        expected += steps
    return StoredTrace(
        folder=folder,
        metadata=Metadata(**metadata),
        metrics=metrics,
        complete=_get(manifest, "complete", bool),
        leaves=tuple(leaves),
        joined=joined,
        shards=tuple(shards),
    )


def _get(values: Mapping[str, Any], name: str, kind: type) -> Any:
    """The value of that name; ValueError when there is none, or one of another type."""
    if name not in values:
        raise ValueError(f"{name} is missing")
    value = values[name]
    if type(value) is not kind:  # True is no 1
        raise ValueError(f"{name} is of type {type(value).__name__}, expected {kind.__name__}")
    return value


def _seal(manifest: Mapping[str, Any]) -> str:
    """The checksum of all that a manifest says."""
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _shard_name(start: int, steps: int) -> str:
    return f"steps-{start:08d}-{start + steps:08d}.safetensors"


_EVALUATION = "evaluation/"  # in the last shard, where there is one
_INPUTS = "inputs/"  # NAME/FINGERPRINT, of a recording that keeps its batches
_OTHERS = (_EVALUATION, _INPUTS)
_MEASURED = ("noise", "scales")


def _late(joined: Mapping[str, int], step: int) -> set[str]:
    """The leaves that come with a step, or after it."""
    return {name for name, first in joined.items() if first >= step}


def _tensors(chunk: Trace) -> dict[str, np.ndarray]:
    """Every array of a chunk under "stage/name"; what is measured, under "noise/stage/name"."""
    tensors = {"loss": chunk.losses}
    for stage in LEAVES:
        leaves = chunk.leaves(stage).items()
        tensors |= {f"{stage.name}/{name}": array for name, array in leaves}
    for measured in _MEASURED:
        leaves = (getattr(chunk, measured) or {}).items()
        tensors |= {f"{measured}/{name}": array for name, array in leaves}
    return {name: np.ascontiguousarray(array) for name, array in tensors.items()}


def _others(chunk: Trace) -> dict[str, np.ndarray]:
    """What is not of every step."""
    others = {_EVALUATION + name: np.asarray(array) for name, array in chunk.evaluation.items()}
    for name, arrays in chunk.inputs.items():
        others |= {f"{_INPUTS}{name}/{number}": np.asarray(a) for number, a in arrays.items()}
    return others


def _below(prefix: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those whose names begin so, by the rest of their names."""
    return {
        name.removeprefix(prefix): array
        for name, array in tensors.items()
        if name.startswith(prefix)
    }


def _inputs(others: Mapping[str, np.ndarray]) -> dict[str, dict[int, np.ndarray]]:
    """{name: {fingerprint: array}}; ValueError for what is no fingerprint."""
    found: dict[str, dict[int, np.ndarray]] = {}
    for key, array in _below(_INPUTS, others).items():
        name, _, number = key.rpartition("/")
        found.setdefault(name, {})[int(number)] = array
    return found
