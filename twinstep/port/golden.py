"""A golden: a PyTorch training in a few hundred kB, to hold a port against wherever it is tested.

A folder to be committed: a manifest that people can read, with losses and hyper-parameters; the
start and the batches as they are; and sketches (see `trace.sketch`) of what each step made.
Gradients and later parameters themselves are not in it: a step more is a batch and little else.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from collections.abc import Mapping as Named
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from twinstep import files
from twinstep.errors import InputError
from twinstep.judge.findings import json_number
from twinstep.port.mapping import Mapping, load_mapping
from twinstep.trace import dtypes
from twinstep.trace.ledger import Metadata, Trace
from twinstep.trace.sketch import CHECKSUM, MAXIMUM, sketch
from twinstep.trace.storage import below
from twinstep.trace.writing import check_new_folder, seal

FORMAT = 1
MANIFEST, DATA, MAP = "golden.json", "golden.safetensors", "map.json"
MAX_MANIFEST = 64 << 20  # bytes: of a million steps
MAX_DATA = 1 << 36  # bytes: as much as parameters have
_SKETCHED = ("raw_grads", "params", "buffers")


@dataclass(frozen=True)
class Golden:
    """What a port is held against.

    Attributes:
        metadata, program: As the trace had them.
        hyper_parameters: {"group.name": the value, or one for each update where they differ}.
        losses: (T,) of the run's dtype, nan where none was recorded.
        params, buffers: {PyTorch's name: what it was before the first step}.
        batches: {name: array} of each step; of several calls whose shapes differ, lists of arrays.
        sketches: {"raw_grads/name": (T, 7)}, nan where there was no gradient, and
            {"params/name", "buffers/name": (T + 1, 7)}, that of the start first.
        mapping: Which of them each leaf of the port is, where the folder has a map.
    """

    metadata: Metadata
    program: Named[str, Any]
    hyper_parameters: Named[str, Any]
    losses: np.ndarray
    params: Named[str, np.ndarray]
    buffers: Named[str, np.ndarray]
    batches: tuple[Named[str, Any], ...]
    sketches: Named[str, np.ndarray]
    mapping: Mapping | None = None

    def __len__(self) -> int:
        return len(self.losses)


def golden_of(trace: Trace, steps: int | None = None, mapping: Mapping | None = None) -> Golden:
    """What a golden keeps of a trace.

    Args:
        trace: Of a PyTorch program, with its batches' values; of a lazy one a leaf is held at once.
        steps: How many of its first steps; None: all.
        mapping: Which leaf of the port is which, to be kept with it.

    Returns:
        The golden.

    Raises:
        InputError: For a trace without the batches' values, one in which nothing moves or a loss
            is no number, and a number of steps that it does not have.

    Example:
        >>> import twinstep
        >>> from twinstep.port.golden import golden_of
        >>> trace = twinstep.run(twinstep.examples()["zero_grad"](steps=2), framework="torch")
        >>> try:
        ...     golden_of(trace, steps=3)
        ... except twinstep.InputError as error:
        ...     print(error)
        steps is 3, expected 1 to 2, as many as the trace has
    """
    count = len(trace) if steps is None else steps
    if not 1 <= count <= len(trace):
        raise InputError(f"steps is {steps}, expected 1 to {len(trace)}, as many as the trace has")
    golden = Golden(
        metadata=trace.metadata,
        program=trace.program,
        hyper_parameters=_hyper_parameters(trace, count),
        losses=_losses(trace, count),
        params={name: array[0] for name, array in trace.params.items()},
        buffers={name: array[0] for name, array in trace.buffers.items()},
        batches=tuple(_batch(trace, step) for step in range(count)),
        sketches=dict(_sketches(trace, count)),
        mapping=mapping,
    )
    if mapping is not None:
        check_fits(golden, mapping)
    if why := _unproved(golden):
        raise InputError(f"{why} in the first {count} steps: held against it, anything would pass")
    return golden


def save_golden(golden: Golden, folder: "str | os.PathLike[str]") -> int:
    """Writes a golden, whole or not at all.

    Args:
        golden: What is written.
        folder: A new or an empty one.

    Returns:
        How many bytes it has.

    Raises:
        InputError: For a folder that holds something or cannot be written.
    """
    from safetensors.numpy import save

    check_new_folder(folder)
    held = {f"start/params/{name}": array for name, array in golden.params.items()}
    held |= {f"start/buffers/{name}": array for name, array in golden.buffers.items()}
    held |= {f"sketches/{name}": array for name, array in golden.sketches.items()}
    listed = [{name: _keep(held, name, given) for name, given in b.items()} for b in golden.batches]
    data = save(dict(dtypes.stored(name, array) for name, array in held.items()))
    manifest = {
        "format": FORMAT,
        "metadata": dataclasses.asdict(golden.metadata),
        "hyper_parameters": dict(golden.hyper_parameters),
        "losses": [None if np.isnan(loss) else float(loss) for loss in golden.losses],
        "batches": listed,
        "program": dict(golden.program),
        "data_sha256": hashlib.sha256(data).hexdigest(),
    }
    text = json.dumps(manifest | {"sha256": seal(manifest)}, indent=1) + "\n"
    target = Path(os.path.realpath(folder))
    part = target.with_name(f".{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        files.replace(part / DATA, data)
        files.replace(part / MANIFEST, text.encode())
        if golden.mapping is not None:
            golden.mapping.save(part / MAP)
        size = sum(path.stat().st_size for path in part.iterdir())
        part.replace(target)  # an empty folder gives way
    except OSError as error:
        raise InputError(f"output folder {folder} cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(part)
    return size


def load_golden(folder: "str | os.PathLike[str]") -> Golden:
    """Reads a golden, and the map beside it if there is one.

    Args:
        folder: What `save_golden` or `twinstep golden` wrote.

    Returns:
        The golden, bit for bit as it was saved.

    Raises:
        InputError: For a folder that holds none, one of another format, and one that is damaged.
    """
    path = files.checked_path("golden", folder)
    manifest = _manifest(path)
    try:
        data = files.read(path / DATA, MAX_DATA)
    except OSError as error:
        raise InputError(f"{path / DATA} cannot be read: {error.strerror}") from None
    if hashlib.sha256(data).hexdigest() != manifest.get("data_sha256"):
        raise InputError(f"{path / DATA} is damaged: its bytes are not those written")
    try:
        golden = _read(manifest, data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is damaged: {type(error).__name__}: {error}") from None
    if not (path / MAP).exists():
        return golden
    mapping = load_mapping(path / MAP)
    check_fits(golden, mapping)
    return dataclasses.replace(golden, mapping=mapping)


def check_fits(golden: Golden, mapping: Mapping) -> None:
    """InputError for a map that leaves out a parameter, or is of other leaves."""
    known = {name: array.shape for name, array in {**golden.params, **golden.buffers}.items()}
    for name, shape in mapping.torch_shapes.items():
        if name not in known:
            raise InputError(f"the map names {name!r}, which PyTorch's trace does not have")
        if known[name] != tuple(shape):
            raise InputError(
                f"the map has {name!r} of shape {tuple(shape)}, PyTorch's trace of {known[name]}"
            )
    used = {piece.of for pieces in mapping.leaves.values() for piece in pieces}
    if left := [name for name in golden.params if name not in used]:
        raise InputError(f"the map leaves out {left[0]!r} of PyTorch's")


# From a trace


def _losses(trace: Trace, count: int) -> np.ndarray:
    losses = np.full(count, np.nan, trace.losses.dtype)
    known = [step for step in trace.steps_of("loss", "loss").tolist() if step < count]
    losses[known] = trace.losses[known]
    if odd := [step for step in known if not np.isfinite(losses[step])]:
        raise InputError(f"step {odd[0] + 1}: the loss is {losses[odd[0]]}, expected a number")
    return losses


def _batch(trace: Trace, step: int) -> dict[str, Any]:
    batch = trace.inputs_of(step)
    if not batch:
        raise InputError(f"step {step + 1} has no batch, expected its values: see rec.batch")
    return batch


def _hyper_parameters(trace: Trace, count: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, array in trace.hyper_parameters.items():
        rows = array[trace.steps_of("hyper_parameters", name) < count]
        values = [json_number(float(value)) for value in rows]
        found[name] = values[0] if values and len({*values}) == 1 else values
    return found


def _sketches(trace: Trace, count: int) -> Iterator[tuple[str, np.ndarray]]:
    for stage in _SKETCHED:
        initial = 0 if stage == "raw_grads" else 1
        for leaf, array in getattr(trace, stage).items():
            steps = trace.steps_of(stage, leaf)
            # how many rows each step has behind it: a leaf stays where a step does not change it
            rows = np.searchsorted(steps, np.arange(count), side="right")
            made = sketch(array[: initial + (rows[-1] if count else 0)])
            if initial:
                yield f"{stage}/{leaf}", made[[0, *rows]]
            else:
                none = np.full((count, made.shape[1]), np.nan)
                seen = np.isin(np.arange(count), steps)
                none[seen] = made[rows[seen] - 1]
                yield f"{stage}/{leaf}", none


def _unproved(golden: Golden) -> str | None:
    """Why it proves nothing; None: it may."""
    by_stage = {
        stage: [a for name, a in golden.sketches.items() if name.startswith(f"{stage}/")]
        for stage in _SKETCHED
    }
    if not any((array[1:, CHECKSUM] != array[:1, CHECKSUM]).any() for array in by_stage["params"]):
        return "no parameter ever moved"
    grads = by_stage["raw_grads"]
    if grads and not any((array[:, MAXIMUM] > 0).any() for array in grads):
        return "all gradients are zero"
    return None


# The file


def _keep(held: dict[str, np.ndarray], name: str, given: Any) -> Any:
    """Puts a batch's arrays where they are kept once; their keys."""
    if isinstance(given, list):
        return [_keep(held, name, one) for one in given]
    form = f"{dtypes.name(given.dtype)} {given.shape} ".encode()
    key = f"inputs/{name}/{hashlib.sha256(form + given.tobytes()).hexdigest()[:16]}"
    held[key] = given
    return key


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(files.read(path, MAX_MANIFEST).decode())
    except (FileNotFoundError, NotADirectoryError):
        is_trace = (folder / "manifest.json").exists()
        hint = f"; it is a trace: twinstep golden {folder} makes one" if is_trace else ""
        raise InputError(f"{folder} is no golden: it has no {MANIFEST}{hint}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except InputError:
        raise
    except (ValueError, RecursionError):
        raise InputError(f"{path} is damaged: it is not JSON") from None
    form = manifest.get("format") if isinstance(manifest, dict) else None
    if form != FORMAT:
        raise InputError(f"{path} has format {form!r}, expected {FORMAT}: make it again")
    if manifest.get("sha256") != seal(manifest):
        raise InputError(f"{path} is damaged: it is not what was written")
    return manifest


def _read(manifest: dict[str, Any], data: bytes) -> Golden:
    """A golden; ValueError and the like for what was not written so."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        held = dict(dtypes.read(name, array) for name, array in load(data).items())
    except SafetensorError as error:
        raise ValueError(error) from None
    metadata = Metadata(**manifest["metadata"])
    losses = [np.nan if loss is None else loss for loss in manifest["losses"]]
    golden = Golden(
        metadata=metadata,
        program=manifest["program"],
        hyper_parameters=manifest["hyper_parameters"],
        losses=np.array(losses, metadata.dtype),
        params=below("start/params/", held),
        buffers=below("start/buffers/", held),
        batches=tuple(
            {name: _kept(held, key) for name, key in batch.items()} for batch in manifest["batches"]
        ),
        sketches=below("sketches/", held),
    )
    if not len(golden) or len(golden.batches) != len(golden):
        raise ValueError(f"{len(golden)} losses, {len(golden.batches)} batches")
    for stage, leaves in (("params", golden.params), ("buffers", golden.buffers)):
        for name in leaves:
            if len(golden.sketches[f"{stage}/{name}"]) != len(golden) + 1:
                raise ValueError(f"{stage}, {name}: expected {len(golden) + 1} sketches")
    return golden


def _kept(held: Named[str, np.ndarray], key: Any) -> Any:
    return [_kept(held, one) for one in key] if isinstance(key, list) else held[key]
