"""A saved trace whose leaves are read when they are asked for, and not kept.

What is small (losses, fingerprints, hyper-parameters, which steps have rows) is read at once, and
each shard is checked against the checksum of what was written, without its being held.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from twinstep import files
from twinstep.errors import InputError
from twinstep.trace import dtypes, ranks
from twinstep.trace.joining import concatenate
from twinstep.trace.leaves import ReadLeaves
from twinstep.trace.ledger import Trace
from twinstep.trace.stages import LEAVES
from twinstep.trace.storage import RankedTrace, StoredTrace, open_steps
from twinstep.trace.writing import DTYPES, INPUTS

_SMALL = "batch", "hyper_parameters", "micro_losses", "update"
"""Stages of a few numbers a step."""
_LARGE = [stage for stage in LEAVES if stage.name not in _SMALL]
_READ_LATER = (*(f"{stage.name}/" for stage in _LARGE), INPUTS)


def lazy_trace(folder: str | os.PathLike[str]) -> Trace:
    """Opens a saved trace of any size: a leaf is read when it is asked for, and not kept.

    `trace.params["weight"]` is then all steps of this leaf, read anew each time; no other takes
    memory meanwhile. `slice`, `save` and `outcome` read what they give. Of several processes a leaf
    is put together from the ranks' parts, one of which is held beside it; their batches, if they
    were kept, are held.

    Args:
        folder: What `Trace.save`, a recorder or a command wrote.

    Returns:
        The trace, leaf by leaf as `load_trace` reads it.

    Raises:
        InputError: For a folder that holds no trace or one of no steps, and for a shard that is
            missing or damaged; when a leaf is asked for, for a shard that was changed since, and
            for replicas that differ.

    Example:
        >>> import tempfile
        >>> import twinstep
        >>> trace = twinstep.run(twinstep.examples()["zero_grad"](steps=2), framework="torch")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trace.save(folder)
        ...     lazy = twinstep.lazy_trace(folder)
        ...     print(lazy.losses.shape, [*lazy.params][:1], lazy.params["2.weight"].shape)
        (2,) ['0.weight'] (3, 1, 5)
    """
    stored = open_steps(folder)
    if isinstance(stored, RankedTrace):
        return ranks.merged([_opened(rank, stored.steps) for rank in stored.ranks])
    return _opened(stored, stored.steps)


class _Place(NamedTuple):
    """Where an array stands in a file: its first byte, the dtype and shape that it is stored in."""

    name: str
    start: int
    dtype: np.dtype
    shape: tuple[int, ...]


class _Shard:
    """A file of a trace, of which parts are read. InputError for one that is not what was written.

    places: {key: where the array stands}
    """

    def __init__(self, path: Path, entry: Mapping[str, Any]) -> None:
        self._path, self.held_once = path, frozenset(entry["held_once"])
        try:
            with files.opened(path) as file:
                self._seen = _state(file.fileno())
                files.check_size(path, self._seen[0], entry["bytes"])
                checksum = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"trace shard {path} cannot be read: {error.strerror}") from None
        except InputError as error:
            raise InputError(f"trace shard {error}") from None
        if checksum != entry["sha256"]:
            raise InputError(f"trace shard {path} is damaged: its bytes are not those written")
        self.places = self._places()

    def _places(self) -> dict[str, _Place]:
        """What the file's header says, when safetensors has found it sound."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._path, "numpy"):
                pass
            with files.opened(self._path) as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(length))
            found = [
                _Place(
                    name,
                    8 + length + said["data_offsets"][0],
                    np.dtype(DTYPES[said["dtype"]]),
                    tuple(said["shape"]),
                )
                for name, said in header.items()
                if name != "__metadata__"
            ]
        except (SafetensorError, KeyError) as error:  # KeyError: a type that NumPy lacks
            raise InputError(f"trace shard {self._path} is no safetensors file: {error}") from None
        return {dtypes.key_of(place.name): place for place in found}

    def skeleton(self) -> dict[str, np.ndarray]:
        """{name: array}: what is small itself, of the rest as many rows of nothing.

        So what a trace has to be is seen, and pieces are joined, without a leaf in memory.
        """
        return {
            place.name: np.empty((place.shape[0], 0, *place.shape[1:]), place.dtype)
            if key.startswith(_READ_LATER) and place.shape
            else self._read(place, place.shape)
            for key, place in self.places.items()
        }

    def read(self, key: str, low: int, high: int) -> np.ndarray:
        """Some rows of a leaf."""
        place = self.places[key]
        one = int(np.prod(place.shape[1:], dtype=np.int64)) * place.dtype.itemsize
        rows = self._read(place, (high - low, *place.shape[1:]), low * one)
        return dtypes.read(place.name, rows)[1]

    def whole(self, key: str) -> np.ndarray:
        """An array that has no rows."""
        place = self.places[key]
        return dtypes.read(place.name, self._read(place, place.shape))[1]

    def _read(self, place: _Place, shape: tuple[int, ...], skipped: int = 0) -> np.ndarray:
        try:
            with files.opened(self._path) as file:
                if _state(file.fileno()) != self._seen:
                    raise InputError(f"trace shard {self._path} was changed since it was opened")
                file.seek(place.start + skipped)
                count = int(np.prod(shape, dtype=np.int64))
                return np.fromfile(file, place.dtype, count).reshape(shape)
        except OSError as error:
            raise InputError(f"trace shard {self._path} cannot be read: {error.strerror}") from None


class _Piece(NamedTuple):
    """What a shard has of a leaf: under which key, and how many rows, the initial ones too."""

    shard: _Shard
    key: str
    rows: int


def _opened(stored: StoredTrace, steps: int) -> Trace:
    """The first steps of a trace that one process wrote."""
    shards: list[_Shard] = []
    chunks: list[Trace] = []
    for entry in stored.shards:
        if entry["start"] < steps:
            shards.append(_Shard(stored.folder / entry["file"], entry))
            chunk = stored.chunk(entry, shards[-1].skeleton())
            left = steps - chunk.start
            chunks.append(chunk.slice(0, left) if left < len(chunk) else chunk)
    skeleton = concatenate(chunks)
    found: dict[str, Any] = {}
    for stage in _LARGE:
        readers = {}
        for leaf in skeleton.leaves(stage):
            pieces = [
                _Piece(shard, _stored_key(shard, stage.name, leaf), len(chunk.leaves(stage)[leaf]))
                for shard, chunk in zip(shards, chunks, strict=True)
                if leaf in chunk.leaves(stage)
            ]
            readers[leaf] = partial(_joined, pieces, stage.initial)
        once = [leaf for leaf in readers if stage.name == "grads" and skeleton.held_once(leaf)]
        found[stage.field] = ReadLeaves(readers, once, found.get("raw_grads"))
    return dataclasses.replace(skeleton, **found, inputs=_inputs(shards, skeleton))


def _stored_key(shard: _Shard, stage: str, leaf: str) -> str:
    """Under which key a shard has a leaf: a gradient that is held once is there as one."""
    once = stage == "grads" and leaf in shard.held_once
    return f"raw_grads/{leaf}" if once else f"{stage}/{leaf}"


def _joined(pieces: Sequence[_Piece], initial: int) -> np.ndarray:
    """A leaf's rows of all shards; what stands before the first row is the first one's."""
    if len(pieces) == 1:
        return pieces[0].shard.read(pieces[0].key, 0, pieces[0].rows)
    total = sum(piece.rows - initial for piece in pieces) + initial
    whole, at = np.empty(0), 0
    for i, (shard, key, rows) in enumerate(pieces):
        part = shard.read(key, initial if i else 0, rows)
        if not i:
            whole = np.empty((total, *part.shape[1:]), part.dtype)
        whole[at : at + len(part)] = part
        at += len(part)
    return whole


def _inputs(shards: Sequence[_Shard], skeleton: Trace) -> dict[str, Mapping[int, np.ndarray]]:
    """{name: {fingerprint: array}}, read when they are asked for."""
    where = {key: shard for shard in shards for key in shard.places}
    found: dict[str, Mapping[int, np.ndarray]] = {}
    for name, numbers in skeleton.inputs.items():
        keys = {number: f"{INPUTS}{name}/{number}" for number in numbers}
        found[name] = ReadLeaves({n: partial(where[key].whole, key) for n, key in keys.items()})
    return found


def _state(descriptor: int) -> tuple[int, ...]:
    """What of a file is another when it was changed."""
    found = os.fstat(descriptor)
    return found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev
