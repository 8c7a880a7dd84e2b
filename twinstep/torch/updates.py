"""Writes each update of a program as a row of its trace: what was before, and what it left."""

import functools
from collections.abc import Mapping, Sequence, Set

import numpy as np
import torch
from torch import nn

from twinstep.torch import reading
from twinstep.torch.naming import Names
from twinstep.trace.keep import Keep
from twinstep.trace.ledger import Metadata
from twinstep.trace.rows import Rows, rows_at_once
from twinstep.trace.streaming import Stream

Named = Mapping[nn.Parameter, str]


class Updates:
    """The rows of a recording.

    names: of parameters and buffers; keep: which leaves are kept
    metadata: of a loop that is driven; rows: how many are held at once, where that is known
    """

    def __init__(
        self,
        names: Names,
        stream: Stream,
        keep: Keep,
        metadata: Metadata | None,
        rows: int | None,
    ) -> None:
        self._names, self._stream, self._leaps = names, stream, keep.leaps
        self._metadata, self._piece, self._driven = metadata, rows, metadata is not None
        self._rows: Rows | None = None
        self._views = reading.Views()
        self._states: dict[str, Set[str]] = {}
        self._left: dict[str, tuple[torch.Tensor, int]] = {}
        self._raw: dict[nn.Parameter, np.ndarray] = {}
        self._memory: dict[nn.Parameter, np.ndarray] = {}
        self._buffers: dict[torch.Tensor, np.ndarray] = {}
        self._is_kept = functools.cache(keep.has_leaf)
        self._placed: set[str] = set()
        self.shards: dict[str, dict[str, list[int]]] = {}

    @property
    def made(self) -> int:
        """How many rows are finished."""
        return 0 if self._rows is None else self._rows.start + self._rows.made

    def open(self) -> Rows:
        """The rows; what there is before the first one is put there first."""
        if self._rows is None:
            names = self._names.parameters
            self._metadata = self._metadata or reading.metadata(names)
            dtype = self._metadata.dtype
            bytes_a_step = sum(4 * p.numel() for p in names) * np.dtype(dtype).itemsize
            self._rows = Rows(self._piece or rows_at_once(bytes_a_step), dtype)
            self._begin("params", {n: self._views.of(n, p) for p, n in names.items()})
            self._first_buffers()
        return self._rows

    def _first_buffers(self) -> None:
        """What buffers are before the first row: as their modules were called, if they were."""
        for name, buffer in self._names.buffers() if self._names.has_buffers else ():
            if self._is_kept(name) and self.open().last("buffers", name) is None:
                first = self._buffers.get(buffer)
                array = reading.array(buffer) if first is None else first
                self.open().initial("buffers", name, array)

    def _begin(self, stage: str, arrays: Mapping[str, np.ndarray]) -> None:
        """What stands before a leaf's first row; and before this one where it is not the last."""
        rows = self.open()
        for name, array in arrays.items():
            if self._is_kept(name):
                last = rows.last(stage, name)
                if last is None:
                    rows.initial(stage, name, array)
                elif stage == "params" and not reading.same(last, array):
                    rows.put("before", f"{stage}/{name}", array)

    def begin(
        self,
        of: str,
        numbers: Mapping[str, float],
        params: Named,
        state: Mapping[str, torch.Tensor],
    ) -> None:
        """An update begins: its hyper-parameters, and what is not as the last one left it.

        state: its optimizer's; where there is none that was there, that has been renewed
        """
        rows = self.open()
        if new := {p: n for p, n in params.items() if f"params/{n}" not in self._placed}:
            reading.check_own(new)
            reading.dtype_of_run(self._names.parameters)
            for parameter, name in new.items():
                self._place(parameter, f"raw_grads/{name}", f"grads/{name}", f"params/{name}")
        rows.hyper_parameters(numbers, of)
        if self._driven:  # of which no one else changes anything
            return
        self._begin("params", {n: self._views.of(n, p) for p, n in params.items()})
        self._first_buffers()
        for key, tensor in state.items():
            seen, times = self._left.get(key, (None, 0))
            if self._is_kept(key) and (seen is not tensor or times != tensor._version):
                array = reading.array(tensor)
                if not rows.was("opt_state", key, array):
                    rows.put("before", f"opt_state/{key}", array)
        if rows.has("before") and not self._leaps:
            rows.put("update", "changed_outside", np.array(1))
        if self._states.get(of, set()) - state.keys():
            rows.put("update", "renewed", np.array(1))

    def _place(self, tensor: torch.Tensor, *keys: str) -> None:
        """Notes where the shards of leaves stand in the whole, if they are some."""
        if keys[0] not in self._placed:
            self._placed.update(keys)
            if (place := reading.place(tensor)) is not None:
                self.shards |= dict.fromkeys((*keys, f"before/{keys[-1]}"), place)

    def backpropagated(self, parameters: Sequence[nn.Parameter]) -> None:
        """Keeps gradients as they are now: they may be clipped before they are used."""
        if self._driven:  # whose update comes next is known
            names, rows = self._names.parameters, self.open()
            for parameter in parameters:
                rows.put("raw_grads", names[parameter], self._views.grad(parameter))
            return
        for parameter in parameters:
            grad = self._views.grad(parameter)
            memory = self._memory.get(parameter)
            if memory is None or memory.shape != grad.shape or memory.dtype != grad.dtype:
                memory = self._memory[parameter] = np.empty_like(grad)
            np.copyto(memory, grad)
            self._raw[parameter] = memory

    def grads(self, params: Named, given: Named, scale: float, fused: float) -> None:
        """Those that were backpropagated, and those that an optimizer is given.

        scale: by how much a GradScaler has multiplied the first; fused: the second too, where the
        optimizer itself divides by it
        """
        rows = self.open()
        for parameter, name in params.items() if self._raw else ():
            raw = self._raw.get(parameter)
            if raw is not None and self._is_kept(name):
                rows.put("raw_grads", name, raw if scale == 1 else raw / raw.dtype.type(scale))
        for parameter, name in given.items():
            if parameter.grad is not None and self._is_kept(name):
                grad = self._views.grad(parameter)
                rows.given(name, grad if fused == 1 else grad / grad.dtype.type(fused))

    def end(self, of: str, params: Named, state: Mapping[str, torch.Tensor]) -> None:
        """What an update has left, all but its loss and batch."""
        rows = self.open()
        self._states[of] = state.keys()
        for key, tensor in state.items():
            if self._is_kept(key):
                if key not in self._left:
                    self._place(tensor, f"opt_state/{key}")
                rows.put("opt_state", key, self._views.of(key, tensor))
                self._left[key] = tensor, tensor._version
        for parameter, name in params.items():
            if self._is_kept(name):
                rows.put("params", name, self._views.of(name, parameter))
        for name, buffer in self._names.buffers() if self._names.has_buffers else ():
            if self._is_kept(name):
                rows.put("buffers", name, reading.array(buffer))

    def called(self, module: nn.Module) -> None:
        """A module is about to be called for the first time: what its buffers are before."""
        for buffer in module.buffers():
            self._buffers.setdefault(buffer, reading.array(buffer).copy())

    def finish(self, loss: float | None) -> None:
        """The row is complete."""
        rows = self.open()
        rows.finish(loss)
        if rows.full:
            self.flush()

    def discard(self) -> None:
        """The row that is being filled is none."""
        if self._rows is not None:
            self._rows.discard()

    def used(self, parameters: Sequence[nn.Parameter]) -> None:
        """Gradients are of no use any more: a loop that clears them wants their memory."""
        for parameter in parameters if self._raw else ():
            self._raw.pop(parameter, None)
        self._views.forget()

    def flush(self) -> None:
        """Gives the finished rows away."""
        if self._rows is not None and self._metadata is not None:
            self._rows.flush(self._metadata, self._stream)
