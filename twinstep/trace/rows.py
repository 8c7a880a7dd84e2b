"""The ledger of some steps as it is filled: rows of memory that is there beforehand.

Every entry is a copy: PyTorch changes parameters, optimizer state and gradients in place, and JAX
gives memory away that a step was said to donate. Rows, not lists of arrays: those would keep
Python's garbage collector busy for longer than the copies take.
"""

import bisect
from collections.abc import Mapping
from typing import Any

import numpy as np

from twinstep.errors import InputError
from twinstep.trace import dtypes, validation
from twinstep.trace.fingerprint import fingerprint
from twinstep.trace.ledger import Leaves, Metadata, Trace
from twinstep.trace.stages import LEAVES, STAGES
from twinstep.trace.streaming import Stream

MAX_BYTES = 16 * 2**20
MAX_ROWS = 4096
Batch = Mapping[str, np.ndarray] | Mapping[str, int] | Mapping[str, list[np.ndarray]]


def rows_at_once(bytes_a_step: int) -> int:
    """How many steps are held at once: enough to make calls rare, few enough to bound memory."""
    return max(1, min(MAX_ROWS, MAX_BYTES // max(1, bytes_a_step)))


_INITIAL = [stage.name for stage in LEAVES if stage.initial]


class _Leaf:
    """The rows of one leaf. initial: how many stand before the first step's; steps: whose they are

    steps counts from the first that is held; given: the last row of those that were given away
    """

    __slots__ = ("array", "given", "initial", "shape", "spare", "steps")

    def __init__(self, array: np.ndarray, initial: int, steps: list[int] | None = None) -> None:
        self.array, self.initial, self.steps = array, initial, steps or []
        self.shape = array.shape[1:]
        self.spare: np.ndarray | None = None
        self.given: np.ndarray | None = None

    def finished(self, made: int) -> list[int]:
        """The steps of its rows that are over, before the one that is being filled."""
        return self.steps[: bisect.bisect_left(self.steps, made)]

    def row(self, step: int) -> np.ndarray | None:
        """What it is at the last step that has a row, if that is this one; a view."""
        at = self.steps and self.steps[-1] == step
        return self.array[len(self.steps) - 1 + self.initial, ...] if at else None


class Rows:
    """The entries of up to `max_rows` steps at a time; `flush` gives them away and goes on.

    Each leaf keeps the shape that it comes with, and has rows at the steps at which it is put.
    start: how many steps were given away; made: how many there are since
    program: what is known of the one that makes them
    """

    def __init__(self, max_rows: int, dtype: str) -> None:
        self.max_rows, self.start, self.made = max_rows, 0, 0
        self.program: Mapping[str, Any] = {}
        self._dtype = np.dtype(dtype)
        self._losses = np.empty(max_rows, dtype)
        self._known: list[int] = []
        self._held: dict[str, dict[str, _Leaf]] = {stage.name: {} for stage in LEAVES}
        self._inputs: dict[str, dict[int, np.ndarray]] = {}
        self._given: set[str] = set()
        self._settings: dict[str, tuple[Mapping[str, float], list[int]]] = {}

    @property
    def step(self) -> int:
        """The number of the step that is being filled, from 1, as people count."""
        return self.start + self.made + 1

    @property
    def full(self) -> bool:
        return self.made == self.max_rows

    def initial(self, stage: str, name: str, array: np.ndarray) -> None:
        """What a parameter or buffer is before the step that is being filled, the first it has."""
        self._open(stage, name, array).array[0] = array

    def last(self, stage: str, name: str) -> np.ndarray | None:
        """What a leaf was after the last step that has it, or before its first; a view."""
        leaf = self._held[stage].get(name)
        if leaf is None:
            return None
        at = len(leaf.steps) - 1 + leaf.initial
        return leaf.given if at < 0 else leaf.array[at, ...]

    def was(self, stage: str, name: str, array: np.ndarray) -> bool:
        """Whether a leaf was this after the last step that has it, as rows keep it."""
        last = self.last(stage, name)
        if last is None or last.shape != array.shape:
            return False
        kept = self._kept(stage, array.dtype, array.ndim)
        return last.dtype == kept and last.tobytes() == array.astype(kept).tobytes()

    def put(self, stage: str, name: str, array: np.ndarray, more: bool = False) -> None:
        """Copies what a leaf is at this step, or that it is this too, with `more`.

        InputError for another shape than it had.
        """
        leaf = self._held[stage].get(name) or self._open(stage, name, array)
        if leaf.shape != array.shape:
            raise InputError(
                f"step {self.step}: {stage}, {name} has shape {array.shape}, before it had "
                f"{leaf.shape}"
            )
        if leaf.array.dtype != array.dtype:
            self._check_dtype(
                stage, name, leaf.array.dtype, self._kept(stage, array.dtype, array.ndim)
            )
        steps, at = leaf.steps, len(leaf.steps) + leaf.initial
        if steps and steps[-1] == self.made and not more:
            leaf.array[at - 1] = array
            return
        if at == len(leaf.array):  # a step may have several
            leaf.array = np.concatenate([leaf.array, np.empty_like(leaf.array)])
        leaf.array[at] = array
        steps.append(self.made)

    def _check_dtype(self, stage: str, name: str, before: np.dtype, now: np.dtype) -> None:
        if before != now:
            raise InputError(
                f"step {self.step}: {stage}, {name} is {dtypes.name(now)}, before it was "
                f"{dtypes.name(before)}"
            )

    def given(self, name: str, array: np.ndarray) -> None:
        """Copies the gradient that the optimizer is given, unless it is what was backpropagated.

        As long as it is, both are one array.
        """
        self._given.add(name)
        known, raw = self._held["grads"].get(name), self._held["raw_grads"].get(name)
        row = None if raw is None else raw.row(self.made)
        if raw is not None and row is not None and known in (None, raw):
            # it may be scaled back into a wider dtype
            if known is raw:
                self._check_dtype("grads", name, raw.array.dtype, array.dtype)
            if (
                row.dtype == array.dtype
                and (known is raw or raw.steps == [self.made])
                and _same(row, array)
            ):
                self._held["grads"][name] = raw
                return
        if known is not None and known is raw:
            self._part(name, len(raw.steps) - (row is not None))
        self.put("grads", name, array)

    def _part(self, name: str, rows: int) -> None:
        """Of a leaf that is held once, makes two; the first rows of what was given stay."""
        raw = self._held["raw_grads"][name]
        self._held["grads"][name] = _Leaf(raw.array.copy(), 0, raw.steps[:rows])

    def batch(self, arrays: Batch, values: bool) -> None:
        """What the step was made on: its fingerprints, and with `values` the arrays, each once.

        Of several calls whose shapes differ, a list.
        """
        for name, given in arrays.items():
            for array in given if isinstance(given, list) else [given]:
                number = array if isinstance(array, int) else fingerprint(array)
                if values and not isinstance(array, int):
                    known = self._inputs.setdefault(name, {})
                    while number in known and not _alike(known[number], array):
                        number = (number + 1) % 2**32  # two of one number, once in 2**32
                    if number not in known:
                        known[number] = np.array(array)
                self.put("batch", name, np.array(number, np.uint32), more=True)

    def hyper_parameters(self, values: Mapping[str, float], of: str = "") -> None:
        """An optimizer's, at this update; the very same mapping where none has changed."""
        known, since = self._settings.get(of, ({}, []))
        if values is not known:
            self._settle(of)
            since = []
            self._settings[of] = values, since
            for name in values:  # in the optimizer's order
                if name not in self._held["hyper_parameters"]:
                    self._open("hyper_parameters", name, np.float64(0))
        since.append(self.made)

    def _settle(self, of: str) -> None:
        """Fills the rows of hyper-parameters, which are kept as they are until they change."""
        values, since = self._settings.get(of, ({}, []))
        for name, value in values.items():
            leaf = self._held["hyper_parameters"][name]
            leaf.array[len(leaf.steps) : len(leaf.steps) + len(since)] = value
            leaf.steps.extend(since)
        since.clear()

    def finish(self, loss: float | None) -> None:
        """The step is over. loss: None where nobody knows it"""
        for name, given in self._held["grads"].items():
            raw = self._held["raw_grads"].get(name)
            if given is raw and name not in self._given and given.row(self.made) is not None:
                self._part(name, len(given.steps) - 1)
        self._losses[self.made] = np.nan if loss is None else loss
        self._known += [] if loss is None else [self.made]
        self._given.clear()
        self.made += 1

    def has(self, stage: str) -> bool:
        """Whether anything of a stage is there at this step."""
        return any(leaf.row(self.made) is not None for leaf in self._held[stage].values())

    def discard(self) -> None:
        """Takes away what is there of this step: it is none."""
        for leaf in {id(x): x for held in self._held.values() for x in held.values()}.values():
            while leaf.steps and leaf.steps[-1] == self.made:
                leaf.steps.pop()
        for _, since in self._settings.values():
            if since and since[-1] == self.made:
                since.pop()
        self._given.clear()

    def flush(self, metadata: Metadata, to: Stream) -> None:
        """Gives the finished steps away; the memory of those before, if written, is filled anew."""
        if not self.made:
            return
        for of in self._settings:
            self._settle(of)
        found: dict[str, Any] = {}
        rows: dict[str, np.ndarray] = {}
        every = list(range(self.made))
        for stage in LEAVES:
            found[stage.field] = {}
            raw = self._held["raw_grads"]
            for name, leaf in self._held[stage.name].items():
                steps = leaf.finished(self.made)
                if not steps:
                    continue
                once = stage.name == "grads" and raw.get(name) is leaf
                found[stage.field][name] = (
                    found["raw_grads"][name] if once else leaf.array[: len(steps) + stage.initial]
                )
                if steps != every:
                    rows[f"{stage.name}/{name}"] = self.start + np.array(steps)
        if self._known != every:
            rows["loss/loss"] = self.start + np.array(self._known, int)
        trace = Trace(
            metadata=metadata,
            losses=self._losses[: self.made],
            start=self.start,
            inputs=self._inputs,
            program=self.program,
            rows=rows,
            **found,
        )
        to.add(trace)
        self._go_on(reuse=to.writes)

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
        leaves: dict[str, Any] = {stage.field: dict(found.get(stage.name, {})) for stage in LEAVES}
        for stage in _INITIAL:
            held = self._held[stage]
            if held.keys() != leaves[stage].keys():
                odd = min(held.keys() ^ leaves[stage].keys())
                raise InputError(f"step {self.step}: {stage}, {odd} is not what was there before")
            for name, array in leaves[stage].items():
                self._check_dtype(stage, name, held[name].array.dtype, array.dtype)
                if held[name].shape != array.shape[1:]:
                    raise InputError(
                        f"step {self.step}: {stage}, {name} has shape {array.shape[1:]}, before it "
                        f"had {held[name].shape}"
                    )
                leaves[stage][name] = np.concatenate([held[name].array[:1], array])
                held[name].array[0] = array[-1]
        for name, array in leaves["grads"].items():
            raw = leaves["raw_grads"].get(name)
            if array is not raw and raw is not None and array.dtype == raw.dtype:
                leaves["grads"][name] = raw if np.array_equal(array, raw) else array
        for one in LEAVES:
            for name, array in leaves[one.field].items():
                kept = self._kept(one.name, array.dtype, array.ndim - 1)
                if kept != array.dtype:  # counters, as rows keep them
                    leaves[one.field][name] = array.astype(kept)
        trace = Trace(
            metadata=metadata,
            losses=losses.astype(self._dtype),
            start=self.start,
            inputs=inputs,
            program=self.program,
            **leaves,
        )
        if problem := trace.validation_error():
            raise InputError(f"step {self.step}: {problem}")
        self.start += len(losses)
        return trace

    def _go_on(self, reuse: bool) -> None:
        """Makes room for the steps that follow those that are given away."""
        made, self.made, self._inputs, self._known = self.made, 0, {}, []
        self.start += made
        self._losses = np.empty_like(self._losses)
        every = {id(leaf): leaf for held in self._held.values() for leaf in held.values()}
        for leaf in every.values():  # what is held once, once
            count = len(leaf.finished(made))
            if not count:
                leaf.steps = [0] * len(leaf.steps)
                continue
            leaf.given = leaf.array[count - 1 + leaf.initial, ...]
            # the last row may be the first of what follows; what is not finished stays
            kept, array = leaf.array[count : len(leaf.steps) + leaf.initial], leaf.spare
            if not reuse or array is None or len(array) < len(kept):
                rows = max(self.max_rows + leaf.initial, len(kept))
                array = np.empty((rows, *leaf.shape), leaf.array.dtype)
            array[: len(kept)] = kept
            leaf.array, leaf.spare = array, leaf.array if reuse else None
            leaf.steps = [0] * (len(leaf.steps) - count)

    def _kept(self, stage: str, dtype: np.dtype, ndim: int) -> np.dtype:
        """The dtype in which a leaf of `ndim` axes is kept.

        A counter's is the run's, whatever it is counted in: by fused Adam in float32, by optax in
        int32.
        """
        counter = ndim == 0 and (dtype.kind in "biu" or dtypes.name(dtype) in dtypes.WIDE)
        return self._dtype if counter and STAGES[stage].numbers else dtype

    def _open(self, stage: str, name: str, array: np.ndarray | np.generic) -> _Leaf:
        """Rows for a leaf that comes now for the first time."""
        dtype, run = self._kept(stage, array.dtype, array.ndim), self._dtype.name
        if not validation.may_be(STAGES[stage], dtype, run):
            raise InputError(
                f"step {self.step}: {stage}, {name} is {dtypes.name(dtype)}, expected "
                f"{validation.expected(STAGES[stage], run)}"
            )
        initial = STAGES[stage].initial
        empty = np.empty((self.max_rows + initial, *array.shape), dtype)
        leaf = self._held[stage][name] = _Leaf(empty, initial)
        return leaf


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two batches are the same, bit for bit."""
    form = one.shape == other.shape and one.dtype == other.dtype
    return form and one.tobytes() == other.tobytes()


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays of one shape and dtype are the same; of a few numbers, their bytes."""
    return one.tobytes() == other.tobytes() if one.size < 1024 else np.array_equal(one, other)
