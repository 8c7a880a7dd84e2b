"""The ledger of some steps as it is filled: rows of memory that is there beforehand.

Every entry is a copy: PyTorch changes parameters, optimizer state and gradients in place, and JAX
gives memory away that a step was said to donate. Rows, not lists of arrays: those would keep
Python's garbage collector busy for longer than the copies take.
"""

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


def rows_at_once(bytes_a_step: int) -> int:
    """How many steps are held at once: enough to make calls rare, few enough to bound memory."""
    return max(1, min(MAX_ROWS, MAX_BYTES // max(1, bytes_a_step)))


_BEFORE = [stage.name for stage in LEAVES if stage.before]


class _Leaf:
    """The rows of one leaf. shift: of which row is a step's; filled: the last step that has one"""

    __slots__ = ("array", "filled", "shape", "shift")

    def __init__(self, array: np.ndarray, shift: int) -> None:
        self.array, self.shift, self.filled = array, shift, -1
        self.shape = array.shape[1:]


class Rows:
    """The entries of up to `max_rows` steps at a time; `flush` gives them away and goes on.

    Each leaf keeps the shape that it comes with; one that comes late has rows from then on.
    start: how many steps were given away; made: how many there are since
    """

    def __init__(self, max_rows: int, dtype: str) -> None:
        self.max_rows, self.start, self.made = max_rows, 0, 0
        self._dtype = np.dtype(dtype)
        self._losses = np.empty(max_rows, dtype)
        self._held: dict[str, dict[str, _Leaf]] = {stage.name: {} for stage in LEAVES}
        self._appears_at: dict[str, int] = {}
        self._stacked: set[tuple[str, str]] = set()
        self._inputs: dict[str, dict[int, np.ndarray]] = {}
        self._given = 0
        self._settings: Mapping[str, float] = {}
        self._since = 0

    @property
    def step(self) -> int:
        """The number of the step that is being filled, from 1, as people count."""
        return self.start + self.made + 1

    @property
    def full(self) -> bool:
        return self.made == self.max_rows

    def before(self, stage: str, name: str, array: np.ndarray) -> None:
        """What a parameter or buffer is before the step that is being filled, the first it has."""
        self._open(stage, name, array).array[0] = array

    def put(self, stage: str, name: str, array: np.ndarray) -> None:
        """Copies what a leaf is at this step. InputError for another shape than it had."""
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
        leaf.array[self.made + leaf.shift] = array
        leaf.filled = self.made

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
        held, raw = self._held["grads"], self._held["raw_grads"].get(name)
        self._given += 1
        known = held.get(name)
        apart = raw is not None and raw.array.dtype != array.dtype  # scaled back into a wider one
        if raw is not None and (known is raw or (known is None and not apart)):
            if (
                name not in held
                and (first := self._appears_at.get(f"raw_grads/{name}")) is not None
            ):
                self._appears_at[f"grads/{name}"] = first
            if apart:
                self._check_dtype("grads", name, raw.array.dtype, array.dtype)
            if _same(raw.array[self.made + raw.shift], array):
                held[name] = raw
                return
            held[name] = _Leaf(raw.array.copy(), raw.shift)
        self.put("grads", name, array)

    def batch(self, arrays: Mapping[str, np.ndarray] | Mapping[str, int], values: bool) -> None:
        """What the step was made on: its fingerprints, and with `values` the arrays, each once."""
        for name, array in arrays.items():
            number = array if isinstance(array, int) else fingerprint(array)
            leaf = self._held["batch"].get(name) or self._open("batch", name, np.uint32(number))
            leaf.array[self.made + leaf.shift] = number
            leaf.filled = self.made
            if values and not isinstance(array, int):
                known = self._inputs.setdefault(name, {})
                if number not in known:
                    known[number] = np.array(array)

    def hyper_parameters(self, values: Mapping[str, float]) -> None:
        """The optimizer's, at this update; the very same mapping where none has changed."""
        if values is self._settings:
            return
        if missing := self._settings.keys() - values.keys():
            raise InputError(
                f"step {self.step}: hyper_parameters, {min(missing)} is missing, the steps before "
                "had it"
            )
        self._settle()
        self._settings = values
        for name in values:  # in the optimizer's order
            if name not in self._held["hyper_parameters"]:
                self._open("hyper_parameters", name, np.float64(0))

    def _settle(self) -> None:
        """Fills the rows of the hyper-parameters, which are kept as they are until they change."""
        for name, value in self._settings.items():
            leaf = self._held["hyper_parameters"][name]
            leaf.array[self._since + leaf.shift : self.made + leaf.shift] = value
        self._since = self.made

    def finish(self, loss: float) -> None:
        """The step is over. InputError for a leaf that it lacks."""
        for stage, leaves in self._held.items():
            if stage == "hyper_parameters":
                continue
            raw = self._held["raw_grads"] if stage == "grads" else {}
            for name, leaf in leaves.items():
                if leaf.filled != self.made and raw.get(name) is not leaf:
                    raise InputError(
                        f"step {self.step}: {stage}, {name} is missing, the steps before had it"
                    )
        if self._given != len(self._held["grads"]):
            raise InputError(
                f"step {self.step}: the optimizer is given {self._given} gradients, before it was "
                f"given {len(self._held['grads'])}"
            )
        self._losses[self.made] = loss
        self._given = 0
        self.made += 1

    def flush(self, metadata: Metadata, to: Stream) -> None:
        """Gives the finished steps away; if they are written, their memory is filled anew."""
        if not self.made:
            return
        self._settle()
        found: dict[str, Any] = {}
        for stage in LEAVES:
            held, raw = self._held[stage.name], self._held["raw_grads"]
            found[stage.field] = {
                name: found["raw_grads"][name]
                if stage.name == "grads" and raw.get(name) is leaf
                else leaf.array[: self.made + leaf.shift]
                for name, leaf in held.items()
            }
        trace = Trace(
            metadata=metadata,
            losses=self._losses[: self.made],
            start=self.start,
            inputs=self._inputs,
            appears_at=dict(self._appears_at),
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
        before = {s: {n: leaf.array for n, leaf in self._held[s].items()} for s in _BEFORE}
        leaves: dict[str, Any] = {stage.field: dict(found.get(stage.name, {})) for stage in LEAVES}
        for stage, held in before.items():
            if held.keys() != leaves[stage].keys():
                odd = min(held.keys() ^ leaves[stage].keys())
                raise InputError(f"step {self.step}: {stage}, {odd} is not what was there before")
            for name, array in leaves[stage].items():
                self._check_dtype(stage, name, held[name].dtype, array.dtype)
                if held[name].shape[1:] != array.shape[1:]:
                    raise InputError(
                        f"step {self.step}: {stage}, {name} has shape {array.shape[1:]}, before it "
                        f"had {held[name].shape[1:]}"
                    )
                leaves[stage][name] = np.concatenate([held[name][:1], array])
                held[name][0] = array[-1]
        for name, array in leaves["grads"].items():
            raw = leaves["raw_grads"].get(name)
            if array is not raw and raw is not None and array.dtype == raw.dtype:
                leaves["grads"][name] = raw if np.array_equal(array, raw) else array
        for one in LEAVES:
            for name, array in leaves[one.field].items():
                kept = self._kept(one.name, array.dtype, array.ndim - 1)
                if kept != array.dtype:  # counters, as rows keep them
                    leaves[one.field][name] = array.astype(kept)
        new = {(stage.name, name) for stage in LEAVES for name in leaves[stage.field]}
        known = {(stage, name) for stage, held in self._held.items() for name in held}
        if self.start:
            self._appears_at |= {
                f"{stage}/{name}": self.start for stage, name in new - known - self._stacked
            }
        self._stacked |= new
        trace = Trace(
            metadata=metadata,
            losses=losses.astype(self._dtype),
            start=self.start,
            inputs=inputs,
            appears_at=dict(self._appears_at),
            **leaves,
        )
        if problem := trace.validation_error():
            raise InputError(f"step {self.step}: {problem}")
        self.start += len(losses)
        return trace

    def _go_on(self, reuse: bool) -> None:
        """Makes room for the steps that follow those that are given away."""
        made, self.made, self._since, self._inputs = self.made, 0, 0, {}
        self.start += made
        if not reuse:
            self._losses = np.empty_like(self._losses)
        every = {id(leaf): (s, leaf) for s in LEAVES for leaf in self._held[s.name].values()}
        for stage, leaf in every.values():  # what is held once, once
            last = leaf.array[made + leaf.shift - 1] if stage.before else None
            rows = self.max_rows + stage.before
            array = leaf.array
            if not (reuse and len(array) == rows):
                array = np.empty((rows, *leaf.shape), leaf.array.dtype)
            if last is not None:
                array[0] = last
            leaf.array, leaf.shift, leaf.filled = array, stage.before, -1

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
        if (now := self.start + self.made) and (stage, name) not in self._stacked:
            self._appears_at[f"{stage}/{name}"] = now
        else:
            now = 0
        late, before = (self.made if now else 0), STAGES[stage].before
        empty = np.empty((self.max_rows - late + before, *array.shape), dtype)
        leaf = self._held[stage][name] = _Leaf(empty, before - late)
        return leaf


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays of one shape and dtype are the same; of a few numbers, their bytes."""
    return one.tobytes() == other.tobytes() if one.size < 1024 else np.array_equal(one, other)
