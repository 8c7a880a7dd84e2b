"""A trace that several processes wrote, each its own part: read as one.

Each rank's folder holds what it had: of a leaf that is spread over the ranks its shard, with its
place in the whole, of others a replica, which has to be the others' bit for bit. Of the loss each
has its own samples' mean: the whole's is the mean of these. The batches are one after the other, by
rank.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from twinstep.errors import InputError
from twinstep.trace.fingerprint import fingerprint, joined
from twinstep.trace.ledger import Trace
from twinstep.trace.stages import LEAVES

_NAME = re.compile(r"rank-(\d+)-of-(\d+)")
_OWN = "rng", "activations"
"""Stages of which each rank has its own, behind its number."""


def folder_of(rank: int, ranks: int) -> str:
    """What a rank's folder is called."""
    return f"rank-{rank}-of-{ranks}"


def folders(above: Path) -> list[Path]:
    """The ranks' folders in one, in their order; none where it holds none.

    InputError where one is missing, or they are of several runs.
    """
    found = {}
    for path in above.iterdir() if above.is_dir() else ():
        if match := _NAME.fullmatch(path.name):
            found[int(match[1]), int(match[2])] = path
    if len(counts := {ranks for _, ranks in found}) > 1:
        raise InputError(
            f"trace {above} holds parts of runs of {sorted(counts)} processes: one run"
        )
    for rank in range(max(counts, default=0)):
        if not any(rank == one for one, _ in found):
            raise InputError(f"trace {above} lacks the part of rank {rank}")
    return [found[key] for key in sorted(found)]


def aligned(runs: Sequence[Iterator[Trace]], steps: int) -> Iterator[list[Trace]]:
    """The first `steps` steps of some runs in pieces of the same steps."""
    held = [next(run) for run in runs]
    while True:
        size = min(*(len(piece) for piece in held), steps - held[0].start)
        yield [piece.slice(0, size) for piece in held]
        if held[0].start + size == steps:
            return
        held = [
            piece.slice(size, len(piece)) if size < len(piece) else next(run)
            for piece, run in zip(held, runs, strict=True)
        ]


def merged(pieces: Sequence[Trace]) -> Trace:
    """The same steps of all ranks as one trace. InputError where replicas differ."""
    first = pieces[0]
    found: dict[str, Any] = {stage.field: {} for stage in LEAVES}
    rows = {"loss/loss": first.rows["loss/loss"]} if "loss/loss" in first.rows else {}
    inputs: dict[str, dict[int, np.ndarray]] = {}
    for stage in LEAVES:
        every = dict.fromkeys(leaf for piece in pieces for leaf in piece.leaves(stage))
        for leaf in every:
            arrays = [piece.leaves(stage).get(leaf) for piece in pieces]
            key = f"{stage.name}/{leaf}"
            if stage.name in _OWN:
                for rank, piece in enumerate(pieces):
                    if leaf in piece.leaves(stage):
                        found[stage.field][f"{leaf}.{rank}"] = piece.leaves(stage)[leaf]
                        if key in piece.rows:
                            rows[f"{key}.{rank}"] = piece.rows[key]
                continue
            steps = [piece.steps_of(stage.name, leaf).tolist() for piece in pieces]
            for rank, array in enumerate(arrays):
                if array is None or steps[rank] != steps[0]:
                    at = first.start + 1 if array is None else _differing(steps[0], steps[rank])
                    raise InputError(
                        f"step {at}: {stage.name}, {leaf} is not there on every rank: rank {rank} "
                        "differs from rank 0"
                    )
            held = [array for array in arrays if array is not None]
            if stage.name == "batch":
                found["batch"][leaf], of_steps, inputs[leaf] = _batch(pieces, leaf)
                if len(of_steps) != len(steps[0]):
                    rows[key] = of_steps
                    continue
            elif stage.name == "micro_losses":
                found["micro_losses"][leaf] = np.mean(held, axis=0, dtype=held[0].dtype)
            elif stage.name == "grads" and leaf in found["raw_grads"]:
                once = all(piece.held_once(leaf) for piece in pieces)
                raw = found["raw_grads"][leaf]
                found["grads"][leaf] = raw if once else _whole(pieces, key, held)
            else:
                found[stage.field][leaf] = _whole(pieces, key, held)
            if key in first.rows:
                rows[key] = first.rows[key]
    return dataclasses.replace(
        first,
        **found,
        losses=np.mean([piece.losses for piece in pieces], axis=0, dtype=first.losses.dtype),
        inputs={leaf: arrays for leaf, arrays in inputs.items() if arrays},
        rows=rows,
        program={name: value for name, value in first.program.items() if name != "shards"},
    )


def _batch(
    pieces: Sequence[Trace], leaf: str
) -> tuple[np.ndarray, np.ndarray, dict[int, np.ndarray]]:
    """Fingerprints of what all ranks trained on, their steps, and the arrays where they are kept.

    Where the parts of a step do not join they are one after the other, as of several calls.
    """
    numbers, steps, whole = list[int](), list[int](), dict[int, np.ndarray]()
    of_rank = [piece.batch[leaf].tolist() for piece in pieces]
    kept = all(leaf in piece.inputs for piece in pieces)
    for step, *each in zip(pieces[0].steps_of("batch", leaf), *of_rank, strict=True):
        arrays = [p.inputs[leaf][n] for p, n in zip(pieces, each, strict=True)] if kept else []
        if kept and not isinstance(one := joined(arrays), list):
            arrays, each = [one], [fingerprint(one)]
        numbers += each
        steps += [int(step)] * len(each)
        whole |= dict(zip(each, arrays, strict=False))
    return np.array(numbers, np.uint32), np.array(steps), whole


def _whole(pieces: Sequence[Trace], key: str, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """A leaf of all ranks: put together from its shards, or one of its replicas."""
    places = [piece.program.get("shards", {}).get(key) for piece in pieces]
    if places[0] is None:
        for rank, array in enumerate(arrays):
            _check_replica(pieces[0], key, arrays[0], array, rank)
        return arrays[0]
    whole = np.empty((len(arrays[0]), *places[0]["shape"]), arrays[0].dtype)
    filled = np.zeros(places[0]["shape"], bool)
    for rank, (place, array) in enumerate(zip(places, arrays, strict=True)):
        part = tuple(slice(o, o + n) for o, n in zip(place["at"], array.shape[1:], strict=True))
        here = (slice(None), *part)
        if filled[part].any():  # spread over some of the ranks, and the same on others
            _check_replica(pieces[0], key, whole[here], array, rank)
        whole[here] = array
        filled[part] = True
    if not filled.all():
        raise InputError(f"{key}: the ranks' shards do not make up its shape {places[0]['shape']}")
    return whole


def _check_replica(trace: Trace, key: str, one: np.ndarray, other: np.ndarray, rank: int) -> None:
    """InputError where a rank's replica is another than rank 0's, bit for bit."""
    stage, _, leaf = key.partition("/")
    if stage == "buffers":  # BatchNorm's are each rank's own; the first rank's are those in use
        return
    if one.shape != other.shape or one.dtype != other.dtype:
        raise InputError(
            f"{stage}, {leaf} has shape {one.shape[1:]} on rank 0, {other.shape[1:]} on rank {rank}"
        )
    if one.tobytes() == other.tobytes():
        return
    pairs = enumerate(zip(one, other, strict=True))
    row = next(i for i, (mine, yours) in pairs if mine.tobytes() != yours.tobytes())
    initial = len(one) - len(trace.steps_of(stage, leaf))
    step = 0 if row < initial else trace.steps_of(stage, leaf)[row - initial] + 1
    raise InputError(
        f"step {step}: {stage}, {leaf} of rank {rank} differs from rank 0's: no replica"
    )


def _differing(one: Sequence[int], other: Sequence[int]) -> int:
    """The first step, from 1, that only one of two has."""
    return int(min({*one} ^ {*other}, default=min(one, default=0))) + 1
