"""The ledger of some steps as it is filled: rows of memory that is there beforehand.

Every entry is a copy: PyTorch changes parameters, optimizer state and gradients in place, and JAX
gives memory away that a step was said to donate. Rows, not lists of arrays: those would keep
Python's garbage collector busy for longer than the copies take.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from twinstep.errors import InputError
from twinstep.trace.fingerprint import fingerprint
from twinstep.trace.ledger import Leaves, Metadata, Trace
from twinstep.trace.stages import LEAVES, STAGES, Stage
from twinstep.trace.streaming import Stream

MOST_BYTES = 16 * 2**20
MOST_ROWS = 4096


def rows_at_once(bytes_a_step: int) -> int:
    """How many steps are held at once: enough to make calls rare, few enough to bound memory."""
    return max(1, min(MOST_ROWS, MOST_BYTES // max(1, bytes_a_step)))


class Rows:
    """The entries of up to `most` steps at a time; `hand_on` gives them away and goes on.

    Each leaf keeps the shape that it comes with; one that comes late has rows from then on.
    start: how many steps were given away; made: how many there are since
    """

    def __init__(self, most: int, dtype: str) -> None:
        self.most, self.start, self.made = most, 0, 0
        self._dtype = np.dtype(dtype)
        self._losses = np.empty(most, dtype)
        self._held: dict[str, dict[str, np.ndarray]] = {stage.name: {} for stage in LEAVES}
        self._joined: dict[str, int] = {}
        self._now: set[tuple[str, str]] = set()
        self._stacked: set[tuple[str, str]] = set()
        self._inputs: dict[str, dict[int, np.ndarray]] = {}

    @property
    def step(self) -> int:
        """The number of the step that is being filled, from 1, as people count."""
        return self.start + self.made + 1

    @property
    def full(self) -> bool:
        return self.made == self.most

    def before(self, stage: str, name: str, array: np.ndarray) -> None:
        """What a parameter or buffer is before the step that is being filled, the first it has."""
        self._open(stage, name, array, 1)[0] = array

    def put(self, stage: str, name: str, array: np.ndarray) -> None:
        """Copies what a leaf is at this step. InputError for another shape than it had."""
        held = self._held[stage].get(name)
        if held is None:
            held = self._open(stage, name, array, 0)
        if held.shape[1:] != array.shape:
            raise InputError(
                f"step {self.step}: {stage}, {name} has shape {array.shape}, before it had "
                f"{held.shape[1:]}"
            )
        held[self._row(stage, name) + STAGES[stage].before] = array
        self._now.add((stage, name))

    def given(self, name: str, array: np.ndarray) -> None:
        """Copies the gradient that the optimizer is given, unless it is what was backpropagated.

        As long as it is, both are one array.
        """
        held, raw = (self._held[stage] for stage in ("grads", "raw_grads"))
        if name in raw and held.get(name, raw[name]) is raw[name]:
            self._held_since(name)
            if np.array_equal(raw[name][self._row("raw_grads", name)], array):
                held[name] = raw[name]
                self._now.add(("grads", name))
                return
            held[name] = raw[name].copy()
        self.put("grads", name, array)

    def _held_since(self, name: str) -> None:
        """The gradient that is given has the rows of the one that was backpropagated."""
        if (first := self._joined.get(f"raw_grads/{name}")) is not None:
            self._joined[f"grads/{name}"] = first

    def batch(self, arrays: Mapping[str, np.ndarray] | Mapping[str, int], values: bool) -> None:
        """What the step was made on: its fingerprints, and with `values` the arrays, each once."""
        for name, array in arrays.items():
            number = array if isinstance(array, int) else fingerprint(array)
            self.put("batch", name, np.asarray(number, np.uint32))
            if values and not isinstance(array, int):
                known = self._inputs.setdefault(name, {})
                if number not in known:
                    known[number] = np.array(array)

    def hyper_parameters(self, values: Mapping[str, float]) -> None:
        """The optimizer's, at this update."""
        for name, value in values.items():
            self.put("hyper_parameters", name, np.asarray(value, float))

    def finish(self, loss: float) -> None:
        """The step is over. InputError for a leaf that it lacks."""
        if len(self._now) != sum(map(len, self._held.values())):
            held = {(stage, name) for stage, leaves in self._held.items() for name in leaves}
            stage, name = min(held - self._now)
            raise InputError(
                f"step {self.step}: {stage}, {name} is missing, the steps before had it"
            )
        self._losses[self.made] = loss
        self._now.clear()
        self.made += 1

    def hand_on(self, metadata: Metadata, to: Stream) -> None:
        """Gives the finished steps away; if they are written, their memory is filled anew."""
        if not self.made:
            return
        ends = {key: self._row(*key.split("/", 1)) for key in self._joined}

        def rows(stage: Stage, name: str, array: np.ndarray) -> np.ndarray:
            return array[: ends.get(f"{stage.name}/{name}", self.made) + stage.before]

        found: dict[str, Any] = {
            stage.name: {n: rows(stage, n, a) for n, a in self._held[stage.name].items()}
            for stage in LEAVES
        }
        raw, held = found["raw_grads"], self._held
        for name, array in held["grads"].items():
            if array is held["raw_grads"].get(name):
                found["grads"][name] = raw[name]
        trace = Trace(
            metadata=metadata,
            losses=self._losses[: self.made],
            start=self.start,
            inputs=self._inputs,
            joined=dict(self._joined),
            **found,
        )
        to.add(trace)
        self._go_on(found, reuse=to.writes)

    def stacked(
        self,
        metadata: Metadata,
        losses: np.ndarray,
        found: Mapping[str, Leaves],
        inputs: Mapping[str, Mapping[int, np.ndarray]],
    ) -> Trace:
        """T steps that are there at once, after those that were given away.

        losses: (T,); found: {stage: {leaf: (T, ...)}}. InputError for another form than before.
        """
        before = {stage: self._held[stage] for stage in ("params", "buffers")}
        leaves: dict[str, Any] = {stage.field: dict(found.get(stage.name, {})) for stage in LEAVES}
        for stage, held in before.items():
            if held.keys() != leaves[stage].keys():
                odd = min(held.keys() ^ leaves[stage].keys())
                raise InputError(f"step {self.step}: {stage}, {odd} is not what was there before")
            for name, array in leaves[stage].items():
                if held[name].shape[1:] != array.shape[1:]:
                    raise InputError(
                        f"step {self.step}: {stage}, {name} has shape {array.shape[1:]}, before it "
                        f"had {held[name].shape[1:]}"
                    )
                leaves[stage][name] = np.concatenate([held[name][:1], array])
                held[name][0] = array[-1]
        for name, array in leaves["grads"].items():
            raw = leaves["raw_grads"].get(name)
            if array is not raw and raw is not None and np.array_equal(array, raw):
                leaves["grads"][name] = raw
        kinds = {stage.field for stage in LEAVES if stage.numbers}
        for stage in kinds & leaves.keys():
            for name, array in leaves[stage].items():
                if array.ndim == 1 and array.dtype != self._dtype:  # counters, as rows keep them
                    leaves[stage][name] = array.astype(self._dtype)
        new = {(stage.name, name) for stage in LEAVES for name in leaves[stage.field]}
        known = {(stage, name) for stage, held in self._held.items() for name in held}
        if self.start:
            self._joined |= {
                f"{stage}/{name}": self.start for stage, name in new - known - self._stacked
            }
        self._stacked |= new
        trace = Trace(
            metadata=metadata,
            losses=losses.astype(self._dtype),
            start=self.start,
            inputs=inputs,
            joined=dict(self._joined),
            **leaves,
        )
        if problem := trace.flaw():
            raise InputError(f"step {self.step}: {problem}")
        self.start += len(losses)
        return trace

    def _go_on(self, found: Mapping[str, Leaves], reuse: bool) -> None:
        """Makes room for the steps that follow those that are given away."""
        self.start, self.made, self._inputs = self.start + self.made, 0, {}
        if not reuse:
            self._losses = np.empty_like(self._losses)
        for stage in LEAVES:
            for name, array in self._held[stage.name].items():
                last = found[stage.name][name][-1:] if stage.before else None
                if stage.name == "grads" and found["grads"][name] is found["raw_grads"].get(name):
                    self._held["grads"][name] = self._held["raw_grads"][name]
                    continue
                shape = (self.most + stage.before, *array.shape[1:])
                kept = reuse and array.shape == shape
                room = array if kept else np.empty(shape, array.dtype)
                self._held[stage.name][name] = room
                if last is not None:
                    room[:1] = last

    def _open(self, stage: str, name: str, array: np.ndarray, before: int) -> np.ndarray:
        """Room for a leaf that comes now for the first time."""
        floating = np.issubdtype(array.dtype, np.floating)
        kept = STAGES[stage].numbers and (array.ndim == 0 or floating)
        if STAGES[stage].numbers and array.ndim and array.dtype != self._dtype:
            raise InputError(
                f"step {self.step}: {stage}, {name} is {array.dtype}, expected {self._dtype} as "
                "the parameters"
            )
        # a counter is kept in the run's dtype, whatever it is counted in (by fused Adam, float32)
        dtype = self._dtype if kept else array.dtype
        if (now := self.start + self.made) and (stage, name) not in self._stacked:
            self._joined[f"{stage}/{name}"] = now
        rows = self.most - self.made + STAGES[stage].before
        room = self._held[stage][name] = np.empty((rows, *array.shape), dtype)
        return room

    def _row(self, stage: str, name: str) -> int:
        """Which row of a leaf is this step's."""
        return self.made - max(0, self._joined.get(f"{stage}/{name}", 0) - self.start)
