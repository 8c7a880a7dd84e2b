"""Reads a saved trace, shard by shard: what `writing` writes.

Nothing is unpickled, and what is not what was written is refused.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from twinstep import files, memory
from twinstep.device_config import Dtype
from twinstep.errors import InputError
from twinstep.trace import dtypes, ranks
from twinstep.trace.inputs import SavedBatches
from twinstep.trace.joining import concatenate
from twinstep.trace.ledger import Metadata, Trace
from twinstep.trace.stages import LEAVES
from twinstep.trace.writing import (
    EVALUATION,
    FORMAT,
    INPUTS,
    MANIFEST,
    MAX_MANIFEST,
    ROWS,
    seal,
    shard_name,
)

SIDES = ("torch", "jax")
"""What `twinstep run --out FOLDER` calls its traces."""


@dataclass(frozen=True)
class StoredTrace(SavedBatches):
    """A saved trace, read shard by shard.

    Attributes:
        folder: Where it lies.
        metadata: What ran.
        metrics: {name: value} measured when the training was over.
        complete: Whether the run that wrote it came to its end.
        program: What the recorder saw of the program.
        leaves: The names of the shards' arrays, in the ledger's order as far as they came at once.
        shards: The manifest's entry of each file.
    """

    folder: Path
    metadata: Metadata
    metrics: Mapping[str, float]
    complete: bool
    program: Mapping[str, Any]
    leaves: tuple[str, ...]
    shards: tuple[Mapping[str, Any], ...]

    @property
    def steps(self) -> int:
        """How many steps it holds."""
        return sum(shard["steps"] for shard in self.shards)

    def chunks(self) -> Iterator[Trace]:
        """The steps, shard by shard.

        Yields:
            The trace of consecutive steps.

        Raises:
            InputError: For a shard that is missing, damaged or larger than the memory.
        """
        for shard in self.shards:
            yield self._read(shard)

    def _read(self, shard: Mapping[str, Any]) -> Trace:
        from safetensors import SafetensorError
        from safetensors.numpy import load

        path = self.folder / shard["file"]
        if shard["bytes"] > memory.available():
            taken, available = map(memory.gib, (shard["bytes"], memory.available()))
            raise InputError(
                f"trace shard {path} takes {taken} of memory, {available} are to be had"
            )
        try:
            content = files.read(path, shard["bytes"])
        except OSError as error:
            raise InputError(f"trace shard {path} cannot be read: {error.strerror}") from None
        except InputError as error:
            raise InputError(f"trace shard {error}") from None
        if hashlib.sha256(content).hexdigest() != shard["sha256"]:
            raise InputError(f"trace shard {path} is damaged: its bytes are not those written")
        try:
            arrays = load(content)
        except (SafetensorError, KeyError) as error:  # KeyError: a type that NumPy lacks
            raise InputError(f"trace shard {path} is no safetensors file: {error}") from None
        return self.chunk(shard, arrays)

    def chunk(self, shard: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Trace:
        """The trace that a shard's arrays are. InputError where they are not what is listed."""
        path = self.folder / shard["file"]
        try:
            tensors = dict(dtypes.read(name, array) for name, array in arrays.items())
        except ValueError as error:
            raise InputError(f"trace shard {path} holds no trace: {error}") from None
        if len(tensors) != len(arrays):
            raise InputError(f"trace shard {path} holds no trace: a leaf is there twice")
        kinds = EVALUATION, INPUTS, ROWS
        others = {name: array for name, array in tensors.items() if name.startswith(kinds)}
        raw = {f"grads/{leaf}": f"raw_grads/{leaf}" for leaf in shard["held_once"]}
        held = tensors | {name: tensors[of] for name, of in raw.items() if of in tensors}
        expected = set(self.leaves[: shard["leaves"]]) - set(shard["absent"])
        if held.keys() - others.keys() != expected:
            raise InputError(f"trace shard {path} does not hold the leaves that are listed")
        # a safetensors file has an order of its own
        ordered = {name: held[name] for name in self.leaves if name in expected}
        chunk = self._trace(ordered, others, shard["start"])
        if problem := chunk.validation_error():
            raise InputError(f"trace shard {path} holds no trace: {problem}")
        if len(chunk) != shard["steps"]:
            raise InputError(
                f"trace shard {path} holds {len(chunk)} steps, expected {shard['steps']}"
            )
        return chunk

    def _trace(
        self, held: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray], start: int
    ) -> Trace:
        leaves: dict[str, Any] = {stage.field: below(f"{stage.name}/", held) for stage in LEAVES}
        return Trace(
            metadata=self.metadata,
            losses=held["loss"],
            **leaves,
            rounding_noise=below("rounding_noise/", held) or None,
            rounding_scale=below("rounding_scale/", held) or None,
            start=start,
            metrics=self.metrics,
            evaluation=below(EVALUATION, others),
            inputs=_inputs(others),
            program=self.program,
            rows=below(ROWS, others),
        )


@dataclass(frozen=True)
class RankedTrace(SavedBatches):
    """A saved trace of which each process wrote its part; read as one, as far as all have come.

    Attributes:
        folder: Where the parts lie.
        ranks: Their traces, by rank.
    """

    folder: Path
    ranks: tuple[StoredTrace, ...]

    @property
    def metadata(self) -> Metadata:
        """What ran."""
        return self.ranks[0].metadata

    @property
    def metrics(self) -> Mapping[str, float]:
        """{name: value} measured when the training was over."""
        return self.ranks[0].metrics

    @property
    def program(self) -> Mapping[str, Any]:
        """What the recorder saw of the program."""
        return {name: seen for name, seen in self.ranks[0].program.items() if name != "shards"}

    @property
    def complete(self) -> bool:
        """Whether the run came to its end on all of them."""
        return all(rank.complete for rank in self.ranks) and len({r.steps for r in self.ranks}) == 1

    @property
    def steps(self) -> int:
        """How many steps all of them hold."""
        return min(rank.steps for rank in self.ranks)

    @property
    def shards(self) -> tuple[Mapping[str, Any], ...]:
        """Files, by rank."""
        return tuple(shard for rank in self.ranks for shard in rank.shards) if self.steps else ()

    def chunks(self) -> Iterator[Trace]:
        """The steps, in pieces.

        Yields:
            The trace of consecutive steps.

        Raises:
            InputError: As of each part; and where what should be alike on all ranks is not.
        """
        for pieces in ranks.aligned([rank.chunks() for rank in self.ranks], self.steps):
            yield ranks.merged(pieces)


def open_trace(folder: str | os.PathLike[str]) -> StoredTrace | RankedTrace:
    """Opens a saved trace: reads its manifest, and no more.

    So a trace that is larger than the memory can be read piece by piece.

    Args:
        folder: What `Trace.save`, a recorder or a command wrote.

    Returns:
        The saved trace; its `chunks` reads the steps.

    Raises:
        InputError: For a folder that holds no trace, or a manifest that is damaged or of another
            format.

    Example:
        >>> import tempfile
        >>> import twinstep
        >>> trace = twinstep.run(twinstep.examples()["zero_grad"](steps=2), framework="torch")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trace.save(folder)
        ...     stored = twinstep.open_trace(folder)
        ...     print(stored.steps, stored.complete, [len(chunk) for chunk in stored.chunks()])
        2 True [2]
    """
    path = files.checked_path("trace folder", folder)
    if not (path / MANIFEST).exists() and (parts := ranks.folders(path)):
        return RankedTrace(path, tuple(open_part(part) for part in parts))
    return open_part(path)


def open_steps(folder: str | os.PathLike[str]) -> StoredTrace | RankedTrace:
    """The same; InputError for one of no steps."""
    stored = open_trace(folder)
    if not stored.shards:
        raise InputError(f"trace {folder} holds no steps: its run ended before the first was done")
    return stored


def open_part(folder: Path) -> StoredTrace:
    """Reads the manifest of one folder."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(files.read(path, MAX_MANIFEST).decode())
    except FileNotFoundError:
        below = [
            str(path.parent / side) for side in SIDES if (path.parent / side / MANIFEST).exists()
        ]
        hint = f"; {' and '.join(below)} {'are' if below[1:] else 'is'}" if below else ""
        raise InputError(f"{folder} is no trace: it has no {MANIFEST}{hint}") from None
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
        if _get(manifest, "sha256", str) != seal(manifest):
            raise ValueError("it is not what was written")
        stored = _stored(Path(folder), manifest)
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from None
    return stored


def load_trace(folder: str | os.PathLike[str]) -> Trace:
    """Reads a whole saved trace into memory.

    Args:
        folder: What `Trace.save`, a recorder or a command wrote.

    Returns:
        The trace, bit for bit as it was saved.

    Raises:
        InputError: For a folder that holds no trace or one of no steps, and for a part that is
            missing, damaged or larger than the memory.

    Example:
        >>> import tempfile
        >>> import twinstep
        >>> trace = twinstep.run(twinstep.examples()["zero_grad"](steps=2), framework="torch")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trace.save(folder)
        ...     again = twinstep.load_trace(folder)
        >>> twinstep.compare(trace, again).reason
        'the same bits'
    """
    return concatenate(list(open_steps(folder).chunks()))


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
    expected = 0
    for shard in shards:
        if not isinstance(shard, dict):
            raise ValueError("a shard is no object")
        file, start = _get(shard, "file", str), _get(shard, "start", int)
        steps = _get(shard, "steps", int)
        _get(shard, "sha256", str)
        for listed in ("held_once", "absent"):
            if not all(isinstance(leaf, str) for leaf in _get(shard, listed, list)):
                raise ValueError(f"{listed} lists what is no name")
        if not 1 <= _get(shard, "leaves", int) <= len(leaves):
            raise ValueError(f"{file!r} has {shard['leaves']} leaves, expected 1 to {len(leaves)}")
        if start != expected:
            raise ValueError(f"{file!r} starts at step {start}, expected {expected}")
        if _get(shard, "bytes", int) < 0:
            raise ValueError(f"{file!r} has {shard['bytes']} bytes, expected at least 0")
        if steps < 1:
            raise ValueError(f"{file!r} has {steps} steps, expected at least 1")
        if file != shard_name(start, steps):  # and so no path leads out of the folder
            raise ValueError(f"a shard is named {file!r}, expected {shard_name(start, steps)!r}")
        expected += steps
    if shards and shards[-1]["leaves"] != len(leaves):
        raise ValueError(f"it lists {len(leaves)} leaves, its shards have {shards[-1]['leaves']}")
    return StoredTrace(
        folder=folder,
        metadata=Metadata(**metadata),
        metrics=metrics,
        complete=_get(manifest, "complete", bool),
        program=_get(manifest, "program", dict),
        leaves=tuple(leaves),
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


def below(prefix: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those whose names begin so, by the rest of their names."""
    return {
        name.removeprefix(prefix): array
        for name, array in tensors.items()
        if name.startswith(prefix)
    }


def _inputs(others: Mapping[str, np.ndarray]) -> dict[str, dict[int, np.ndarray]]:
    """{name: {fingerprint: array}}; ValueError for what is no fingerprint."""
    found: dict[str, dict[int, np.ndarray]] = {}
    for key, array in below(INPUTS, others).items():
        name, _, number = key.rpartition("/")
        found.setdefault(name, {})[int(number)] = array
    return found
