"""Arrays that are spread over processes: what one holds of them, and where it stands in the whole.

Nothing is gathered: each process writes what its own devices hold into a part of one folder, of
what is there twice one copy; `trace.ranks` reads the parts as one.
"""

from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from twinstep.errors import InputError
from twinstep.trace.ranks import folder_of

INPUTS = "batch", "rng"
"""Stages in which each process has its own, unless an array is known to be all of them's."""


class Axis(NamedTuple):
    """Which entries of an axis are here.

    length: how many all processes have; runs: [start, stop) of those that this one has
    """

    length: int
    runs: tuple[tuple[int, int], ...]

    @property
    def whole(self) -> bool:
        return self.runs == ((0, self.length),)


Place = tuple[Axis, ...]
"""Where what is here stands in the whole, an entry an axis."""


def part_of(out: str | PathLike[str] | None) -> str | PathLike[str] | None:
    """The folder that this process writes, where several train together."""
    ranks = jax.process_count()
    return out if out is None or ranks == 1 else Path(out) / folder_of(jax.process_index(), ranks)


def is_spread(leaf: Any) -> bool:
    """Whether devices of other processes hold it too, or parts of it."""
    array = isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
    return array and not leaf.is_fully_addressable


def held(what: str, leaf: jax.Array) -> tuple[np.ndarray, Place]:
    """What this process holds of an array, each entry once, and its place.

    InputError where it holds nothing, or what does not make up rows by columns.
    """
    pieces: dict[tuple[tuple[int, int], ...], Any] = {}
    for shard in leaf.addressable_shards:
        ends = (part.indices(size) for part, size in zip(shard.index, leaf.shape, strict=True))
        pieces.setdefault(tuple((start, stop) for start, stop, _ in ends), shard.data)
    if not pieces:
        raise InputError(f"{what} is on devices of other processes alone, expected a part on each")
    parts = [sorted({piece[axis] for piece in pieces}) for axis in range(leaf.ndim)]
    shape = [sum(stop - start for start, stop in runs) for runs in parts]
    if np.prod([len(runs) for runs in parts], dtype=int) != len(pieces):
        raise InputError(
            f"{what}: the {len(pieces)} shards that this process holds are no rows by columns of "
            f"its shape {leaf.shape}"
        )
    place = tuple(Axis(size, _joined(runs)) for size, runs in zip(leaf.shape, parts, strict=True))
    if len(pieces) == 1:
        return np.asarray(*pieces.values()), place
    array = np.empty(shape, leaf.dtype)
    for piece, data in pieces.items():
        array[tuple(map(_within, parts, piece))] = np.asarray(data)
    return array, place


def _joined(runs: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The same entries, with runs that touch as one."""
    found: list[tuple[int, int]] = []
    for start, stop in runs:
        if found and found[-1][1] == start:
            start = found.pop()[0]
        found.append((start, stop))
    return tuple(found)


def _within(runs: list[tuple[int, int]], run: tuple[int, int]) -> slice:
    """Where one run stands among those that are here."""
    at = sum(stop - start for start, stop in runs[: runs.index(run)])
    return slice(at, at + run[1] - run[0])


class Places:
    """Where what this process records stands in the whole, by stage and leaf.

    Of a batch, whose shape may change from update to update, by the shape of what is here, too.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, tuple[int, ...]], Place | None] = {}
        self._written: dict[str, Any] | None = None

    def note(
        self, what: str, stage: str, leaf: str, shape: tuple[int, ...], place: Place | None
    ) -> None:
        """Takes where it stands; None: it is not spread. InputError where that was another before.

        what: the leaf, for people; shape: of what is here
        """
        if place is not None and stage not in INPUTS and all(axis.whole for axis in place):
            place = None  # a replica, as any other
        key = stage, leaf, shape if stage == "batch" else ()
        if key not in self._known:
            self._known[key] = place
            self._written = None
        elif self._known[key] != place:
            raise InputError(
                f"{what} is spread over the processes in another way than before, expected the "
                "same sharding at every step, as by jit's out_shardings"
            )

    def shards(self) -> dict[str, Any]:
        """What `trace.ranks` reads of all of them, as JSON values."""
        if self._written is None:
            found: dict[str, Any] = {}
            for (stage, leaf, shape), place in self._known.items():
                if place is not None:
                    _write(found, stage, leaf, shape, place)
            self._written = found
        return self._written


def _write(
    found: dict[str, Any], stage: str, leaf: str, shape: tuple[int, ...], place: Place
) -> None:
    starts = [a.runs[0][0] if len(a.runs) == 1 else [*map(list, a.runs)] for a in place]
    written = {"shape": [axis.length for axis in place], "at": starts}
    if stage == "batch":
        found.setdefault(f"batch/{leaf}", {})["x".join(map(str, shape))] = written
        return
    found[f"{stage}/{leaf}"] = written
    if stage == "raw_grads":  # of which those that are given may be no more than a name
        found.setdefault(f"grads/{leaf}", written)
    if stage in ("params", "opt_state"):
        found[f"before/{stage}/{leaf}"] = written
