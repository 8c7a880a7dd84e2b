"""A saved trace: a folder of safetensors shards and a JSON manifest that lists them.

The manifest is replaced, in one move, after each shard is on disk: a killed run leaves a readable
trace of the steps that it finished. Nothing is unpickled, and a shard that is not what the
manifest says it is is refused.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from twinstep.errors import InputError
from twinstep.trace import Metadata, Trace, join

MANIFEST = "manifest.json"
FORMAT = 1


class TraceWriter:
    """Writes a trace shard by shard into a new or empty folder.

    Raises InputError when the folder cannot be made, cannot be written or already holds something.
    """

    def __init__(self, folder: str | os.PathLike[str], metadata: Metadata) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if any(self.folder.iterdir()):
                raise InputError(f"output folder {self.folder} is not empty: name a new one")
            self._manifest: dict[str, Any] = {
                "format": FORMAT,
                "complete": False,
                "metadata": dataclasses.asdict(metadata),
                "metrics": {},
                "shards": [],
            }
            self._write_manifest()
        except OSError as error:
            raise InputError(
                f"output folder {self.folder} cannot be written: {error.strerror}"
            ) from None

    def write(self, chunk: Trace) -> None:
        """Adds consecutive steps as one shard."""
        from safetensors.numpy import save

        content = save(_tensors(chunk))
        name = f"steps-{chunk.start:08d}-{chunk.start + len(chunk):08d}.safetensors"
        try:
            _replace(self.folder / name, content)
            self._manifest["shards"].append(
                {
                    "file": name,
                    "start": chunk.start,
                    "steps": len(chunk),
                    "sha256": hashlib.sha256(content).hexdigest(),
                }
            )
            self._write_manifest()
        except OSError as error:
            raise InputError(f"{self.folder / name} cannot be written: {error.strerror}") from None

    def finish(self, metrics: Mapping[str, float]) -> None:
        """Marks the trace as complete."""
        self._manifest |= {"complete": True, "metrics": dict(metrics)}
        self._write_manifest()

    def _write_manifest(self) -> None:
        _replace(self.folder / MANIFEST, json.dumps(self._manifest, indent=1).encode())

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
    """

    folder: Path
    metadata: Metadata
    metrics: Mapping[str, float]
    complete: bool
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
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"trace shard {path} cannot be read: {error.strerror}") from None
        if hashlib.sha256(content).hexdigest() != shard["sha256"]:
            raise InputError(f"trace shard {path} is damaged: its bytes are not those written")
        try:
            tensors = load(content)
        except SafetensorError as error:
            raise InputError(f"trace shard {path} is no safetensors file: {error}") from None
        if "loss" not in tensors:
            raise InputError(f"trace shard {path} holds no losses")
        chunk = _trace(tensors, self.metadata, shard["start"], self.metrics)
        if len(chunk) != shard["steps"]:
            raise InputError(
                f"trace shard {path} holds {len(chunk)} steps, expected {shard['steps']}"
            )
        return chunk


def open_trace(folder: str | os.PathLike[str]) -> StoredTrace:
    """Reads a trace's manifest, and no more. Raises InputError when the folder holds none."""
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{folder} is no trace: it has no {MANIFEST}") from None
    except NotADirectoryError:
        raise InputError(f"{folder} is no trace: expected a folder") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise InputError(f"{path} is damaged: it is not JSON") from None
    form = manifest.get("format") if isinstance(manifest, dict) else None
    if not isinstance(form, int):
        raise InputError(f"{path} is no trace manifest: it names no format")
    if form != FORMAT:
        raise InputError(f"{path} has format {form}, expected {FORMAT}: use a newer twinstep")
    try:
        shards = tuple(
            {
                "file": Path(shard["file"]).name,
                "start": int(shard["start"]),
                "steps": int(shard["steps"]),
                "sha256": str(shard["sha256"]),
            }
            for shard in manifest["shards"]
        )
        stored = StoredTrace(
            folder=Path(folder),
            metadata=Metadata(**manifest["metadata"]),
            metrics=manifest["metrics"],
            complete=bool(manifest["complete"]),
            shards=shards,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error!r}") from None
    _check_gapless(path, shards)
    return stored


def load_trace(folder: str | os.PathLike[str]) -> Trace:
    """Reads a whole trace. Raises InputError when it is none, or a part is missing or damaged."""
    stored = open_trace(folder)
    if not stored.shards:
        raise InputError(f"trace {folder} holds no steps: its run ended before the first was done")
    return join(list(stored.chunks()))


def _check_gapless(path: Path, shards: tuple[Mapping[str, Any], ...]) -> None:
    expected = 0
    for shard in shards:
        if shard["start"] != expected:
            raise InputError(
                f"{path} is damaged: {shard['file']} starts at step {shard['start']}, "
                f"expected {expected}"
            )
        expected += shard["steps"]


def _replace(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


_STAGES = ("batch", "grads", "opt_state", "params")
_MEASURED = ("noise", "scales")


def _tensors(chunk: Trace) -> dict[str, np.ndarray]:
    """Every array of a chunk under "stage/name"; what is measured, under "noise/stage/name"."""
    tensors = {"loss": chunk.losses}
    for stage in _STAGES:
        tensors |= {f"{stage}/{name}": array for name, array in getattr(chunk, stage).items()}
    for measured in _MEASURED:
        leaves = getattr(chunk, measured) or {}
        tensors |= {f"{measured}/{name}": array for name, array in leaves.items()}
    return {name: np.ascontiguousarray(array) for name, array in tensors.items()}


def _trace(
    tensors: Mapping[str, np.ndarray], metadata: Metadata, start: int, metrics: Mapping[str, float]
) -> Trace:
    def below(prefix: str) -> dict[str, np.ndarray]:
        return {
            name.removeprefix(prefix): array
            for name, array in tensors.items()
            if name.startswith(prefix)
        }

    return Trace(
        metadata=metadata,
        losses=tensors["loss"],
        **{stage: below(f"{stage}/") for stage in _STAGES},
        **{measured: below(f"{measured}/") or None for measured in _MEASURED},
        start=start,
        metrics=metrics,
    )
