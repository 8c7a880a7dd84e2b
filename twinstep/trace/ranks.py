"""A trace that several processes wrote, each its own part: read as one.

Each rank's folder holds what it had: of a leaf that is spread over the ranks its shard, with its
place in the whole, of others a replica, which has to be the others' bit for bit. Of the loss each
has its own samples' mean: the whole's is the mean of these. The batches are one after the other, by
rank, unless they have places too.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from twinstep.errors import InputError
from twinstep.trace.fingerprint import fingerprint, joined
from twinstep.trace.leaves import Reader, ReadLeaves
from twinstep.trace.ledger import Leaves, Trace
from twinstep.trace.stages import LEAVES, Stage

_NAME = re.compile(r"rank-(\d+)-of-(\d+)")
_OWN = "rng", "activations"
"""Stages of which each rank has its own, behind its number, unless its place is known."""


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
    found: dict[str, Any] = {}
    rows = {"loss/loss": first.rows["loss/loss"]} if "loss/loss" in first.rows else {}
    inputs: dict[str, dict[int, np.ndarray]] = {}
    for stage in LEAVES:
        held = [piece.leaves(stage) for piece in pieces]
        readers: dict[str, Reader] = {}
        once: set[str] = set()
        for leaf in dict.fromkeys(leaf for leaves in held for leaf in leaves):
            key = f"{stage.name}/{leaf}"
            if stage.name in _OWN and not _places(pieces, key):
                for rank, piece in enumerate(pieces):
                    if leaf in held[rank]:
                        readers[f"{leaf}.{rank}"] = partial(_of, held[rank], leaf)
                        if key in piece.rows:
                            rows[f"{key}.{rank}"] = piece.rows[key]
                continue
            steps = _steps(pieces, stage, leaf)
            if stage.name == "batch":
                numbers, of_steps, inputs[leaf] = _batch(pieces, leaf)
                readers[leaf] = partial(_of, {leaf: numbers}, leaf)
                if len(of_steps) != len(steps):
                    rows[key] = of_steps
                    continue
            elif stage.name == "micro_losses" and not _places(pieces, key):
                readers[leaf] = partial(_mean, held, leaf)
            elif stage.name == "grads" and all(piece.held_once(leaf) for piece in pieces):
                once.add(leaf)
                readers[leaf] = partial(_of, found["raw_grads"], leaf)
            else:
                readers[leaf] = partial(_whole, pieces, key, held, leaf)
            if key in first.rows:
                rows[key] = first.rows[key]
        lazy = any(isinstance(leaves, ReadLeaves) for leaves in held)
        found[stage.field] = (
            ReadLeaves(readers, once, found.get("raw_grads"))
            if lazy
            else {leaf: read() for leaf, read in readers.items()}
        )
    return dataclasses.replace(
        first,
        **found,
        losses=np.mean([piece.losses for piece in pieces], axis=0, dtype=first.losses.dtype),
        inputs={leaf: arrays for leaf, arrays in inputs.items() if arrays},
        rows=rows,
        program={name: value for name, value in first.program.items() if name != "shards"},
    )


def _steps(pieces: Sequence[Trace], stage: Stage, leaf: str) -> list[int]:
    """At which steps a leaf has rows. InputError where not every rank has these."""
    steps = [piece.steps_of(stage.name, leaf).tolist() for piece in pieces]
    for rank, piece in enumerate(pieces):
        there = leaf in piece.leaves(stage)
        if not there or steps[rank] != steps[0]:
            at = _differing(steps[0], steps[rank]) if there else piece.start + 1
            raise InputError(
                f"step {at}: {stage.name}, {leaf} is not there on every rank: rank {rank} "
                "differs from rank 0"
            )
    found: list[int] = steps[0]
    return found


def _of(leaves: Leaves, leaf: str) -> np.ndarray:
    return leaves[leaf]


def _mean(held: Sequence[Leaves], leaf: str) -> np.ndarray:
    """A leaf of which each rank has its own samples' mean."""
    arrays = [leaves[leaf] for leaves in held]
    mean: np.ndarray = np.mean(arrays, axis=0, dtype=arrays[0].dtype)
    return mean


def _batch(
    pieces: Sequence[Trace], leaf: str
) -> tuple[np.ndarray, np.ndarray, dict[int, np.ndarray]]:
    """Fingerprints of what all ranks trained on, their steps, and the arrays where they are kept.

    Where the parts of a step do not join they are one after the other, as of several calls. Of a
    batch whose places are known each call is put together, and then the calls are.
    """
    numbers, steps, whole = list[int](), list[int](), dict[int, np.ndarray]()
    of_rank = [piece.batch[leaf].tolist() for piece in pieces]
    kept = all(leaf in piece.inputs for piece in pieces)
    calls: dict[int, list[list[int]]] = {}
    for step, *each in zip(pieces[0].steps_of("batch", leaf), *of_rank, strict=True):
        calls.setdefault(int(step), []).append(each)
    for step, of_step in calls.items():
        if kept and _places(pieces, f"batch/{leaf}"):
            made = _calls(pieces, leaf, step, of_step)
        else:
            made = [part for each in of_step for part in _of_ranks(pieces, leaf, each, kept)]
        for number, array in made:
            numbers.append(number)
            steps.append(step)
            if array is not None:
                whole[number] = array
    return np.array(numbers, np.uint32), np.array(steps), whole


_Call = tuple[int, np.ndarray | None]
"""What a step trained on: its fingerprint, and it itself where that is kept."""


def _of_ranks(pieces: Sequence[Trace], leaf: str, each: list[int], kept: bool) -> list[_Call]:
    """A call of all ranks, rank by rank; the ranks' fingerprints: each"""
    if not kept:
        return [(number, None) for number in each]
    return _joined([piece.inputs[leaf][n] for piece, n in zip(pieces, each, strict=True)])


def _calls(
    pieces: Sequence[Trace], leaf: str, step: int, of_step: Sequence[Sequence[int]]
) -> list[_Call]:
    """The calls of a step, each put together from what all ranks had in it, as one if they join."""
    wholes = []
    for each in of_step:
        arrays = [piece.inputs[leaf][n] for piece, n in zip(pieces, each, strict=True)]
        places = [
            of_shape.get("x".join(map(str, array.shape)))
            for of_shape, array in zip(_places(pieces, f"batch/{leaf}"), arrays, strict=True)
        ]
        what = f"step {step + 1}: batch, {leaf}"
        if None in places:
            raise InputError(f"{what} is spread over the ranks in one step, in another it is not")

        def check(one: np.ndarray, other: np.ndarray, rank: int, what: str = what) -> None:
            if one.tobytes() != other.tobytes():
                raise InputError(f"{what} of rank {rank} differs from rank 0's: no replica")

        wholes.append(_put_together(what, places, [array[None] for array in arrays], check)[0])
    return _joined(wholes)


def _joined(arrays: list[np.ndarray]) -> list[_Call]:
    """Arrays as one, if they join."""
    one = joined(arrays)
    return [(fingerprint(array), array) for array in (one if isinstance(one, list) else [one])]


def _places(pieces: Sequence[Trace], key: str) -> list[Any]:
    """Where the ranks' parts of a leaf stand; none where they are no parts."""
    found = [piece.program.get("shards", {}).get(key) for piece in pieces]
    return [] if found[0] is None else found


def _whole(pieces: Sequence[Trace], key: str, held: Sequence[Leaves], leaf: str) -> np.ndarray:
    """A leaf of all ranks: put together from its shards, or one of its replicas.

    held: what each rank has of the stage; of it one rank's part is looked at at a time
    """

    def check(one: np.ndarray, other: np.ndarray, rank: int) -> None:
        _check_replica(pieces[0], key, one, other, rank)

    if places := _places(pieces, key):
        return _put_together(key, places, (leaves[leaf] for leaves in held), check)
    whole = held[0][leaf]
    for rank, leaves in enumerate(held[1:], 1):
        check(whole, leaves[leaf], rank)
    return whole


def _put_together(
    what: str,
    places: Sequence[Any],
    arrays: Iterable[np.ndarray],
    check: Callable[[np.ndarray, np.ndarray, int], None],
) -> np.ndarray:
    """Shards, (T, ...) each, in their places. InputError where they leave a gap.

    A place is {"shape": the whole's, "at": where the shard begins along each axis, or the [start,
    stop) of each run of it}.
    check: is given what two ranks have of the same entries, and the second's number
    """
    shape = places[0]["shape"]
    whole, filled = np.empty(0), np.zeros(shape, bool)
    for rank, (place, array) in enumerate(zip(places, arrays, strict=True)):
        if rank == 0:
            whole = np.empty((len(array), *shape), array.dtype)
        part = _part(place["at"], array.shape[1:])
        here = (slice(None), *part)
        if filled[part].any():  # spread over some of the ranks, and the same on others
            check(whole[here], array, rank)
        whole[here] = array
        filled[part] = True
    if not filled.all():
        raise InputError(f"{what}: the ranks' shards do not make up its shape {shape}")
    return whole


def _part(at: Sequence[Any], shape: Sequence[int]) -> tuple[Any, ...]:
    """The index of a shard in the whole."""
    if all(isinstance(start, int) for start in at):
        return tuple(slice(start, start + size) for start, size in zip(at, shape, strict=True))
    runs = [
        [(start, start + size)] if isinstance(start, int) else start
        for start, size in zip(at, shape, strict=True)
    ]
    return np.ix_(*(np.concatenate([np.arange(*run) for run in of_axis]) for of_axis in runs))


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
