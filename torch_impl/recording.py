"""Runs an example and records the ledger of every step: a plain loop, looked at after each step.

Mirror: jax_impl/recording.py
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
import torch

from torch_impl import devices
from torch_impl.conversion import opt_state
from torch_impl.state import Batch, Step, TrainState
from twinstep.chunking import steps_at_once
from twinstep.specs.base import Spec
from twinstep.specs.batches import IndexChunk
from twinstep.trace import Metadata, Trace


@dataclass(frozen=True)
class Recorder:
    """An example's module, what it trains, and where."""

    example: ModuleType
    spec: Spec
    device: str = "cpu"

    @cached_property
    def metadata(self) -> Metadata:
        return Metadata(
            example=self.spec.name,
            spec=self.spec.hyper_parameters(),
            framework="torch",
            dtype=self.spec.dtype,
            device=_device_name(self._device),
            precision="highest",
            versions=devices.versions(),
        )

    def chunks(self, most: int | None = None) -> Iterator[Trace]:
        """Trains; the steps in pieces of at most `most`."""
        batches = self.spec.batches()
        with self.settings(), self._device:
            state, data = self.initial, self.data
        for chunk in batches.chunks(most or steps_at_once(self.spec)):
            with self.settings():
                ledger = self._run(state, data, chunk)
                last = chunk.start + chunk.steps == batches.total_steps
                metrics = self._evaluate(state) if last else {}
            yield self._trace(chunk, ledger, metrics)

    def plain(self, chunk: IndexChunk) -> Any:
        """A call without arguments that trains `chunk`, recording nothing; for measuring speed."""
        with self.settings(), self._device:
            state, data = self.initial, self.data

        def call() -> None:
            with self.settings():
                for batch in take(data, chunk):
                    self.example.train_step(state, batch)

        return call

    def _run(self, state: TrainState, data: Batch, chunk: IndexChunk) -> "Ledger":
        ledger = Ledger(state, chunk.steps)
        for i, batch in enumerate(take(data, chunk)):
            _, step = self.example.train_step(state, batch)
            ledger.record(i, batch, step)
        return ledger

    def _trace(self, chunk: IndexChunk, ledger: "Ledger", metrics: dict[str, float]) -> Trace:
        return Trace(
            metadata=self.metadata,
            losses=to_array(ledger.losses),
            batch=ledger.batch,
            grads={name: to_array(rows) for name, rows in ledger.grads.items()},
            opt_state={name: to_array(rows) for name, rows in ledger.opt_state.items()},
            params={name: to_array(rows) for name, rows in ledger.params.items()},
            start=chunk.start,
            metrics=metrics,
        )

    def _evaluate(self, state: TrainState) -> dict[str, float]:
        """How many test images are named rightly, for an example that has them."""
        if not hasattr(self.example, "evaluate"):
            return {}
        images, labels = self.spec.images.test_images, self.spec.images.test_labels
        tensors = [torch.tensor(array, device=self._device) for array in (images, labels)]
        correct = self.example.evaluate(state, *tensors)
        return {"correct": float(correct), "test_images": float(len(labels))}

    def settings(self) -> Any:
        return devices.settings(self.spec.dtype)

    @cached_property
    def _device(self) -> torch.device:
        return devices.find(self.device)

    @cached_property
    def initial(self) -> TrainState:
        return self.example.init(self.spec)

    @cached_property
    def data(self) -> Batch:
        return to_device(self.spec)


class Ledger:
    """Room for the entries of some steps, filled step by step.

    Every entry is copied: PyTorch changes parameters, optimizer state and, unless they are
    cleared, gradients in place.
    """

    def __init__(self, state: TrainState, steps: int) -> None:
        self._state = state
        self._parameters = dict(state.model.named_parameters())
        self._steps = steps
        self.losses = torch.empty(steps)
        self.batch: dict[str, np.ndarray] = {}
        self.grads = {name: self._room(p) for name, p in self._parameters.items()}
        self.params = {name: self._room(p, 1) for name, p in self._parameters.items()}
        self.opt_state: dict[str, torch.Tensor] = {}
        self._seen: dict[str, tuple[torch.Tensor | None, int, int]] = {}
        # the rows of all rooms, cut once: cutting one a step costs more than copying into it
        self._loss_rows = self.losses.unbind()
        self._rows = [
            (p, self.grads[name].unbind(), self.params[name].unbind())
            for name, p in self._parameters.items()
        ]
        self._opt_rows: list[tuple[str, tuple[torch.Tensor, ...]]] = []
        with torch.no_grad():
            for parameter, _, rows in self._rows:
                rows[0].copy_(parameter)

    @torch.no_grad()
    def record(self, i: int, batch: Batch, step: Step) -> None:
        """Copies what step i left."""
        self._loss_rows[i].copy_(step.loss)
        for parameter, grads, params in self._rows:
            if parameter.grad is None:
                grads[i].zero_()
            else:
                grads[i].copy_(parameter.grad)
            params[i + 1].copy_(parameter)
        if self._state.optimizer.state:
            self._record_opt_state(i)
        self._record_batch(i, batch)

    def _record_opt_state(self, i: int) -> None:
        entries = opt_state(self._state.model, self._state.optimizer)
        if not self._opt_rows:
            self.opt_state = {name: self._room(tensor) for name, tensor in entries.items()}
            self._opt_rows = [(name, room.unbind()) for name, room in self.opt_state.items()]
        for name, rows in self._opt_rows:
            rows[i].copy_(entries[name])

    def _record_batch(self, i: int, batch: Batch) -> None:
        for name, tensor in batch.items():
            if i == 0:
                self.batch[name] = np.empty(self._steps, np.uint32)
            # the very tensor of the last step, unwritten since, has the same fingerprint
            seen, version, value = self._seen.get(name, (None, 0, 0))
            if seen is not tensor or version != tensor._version:
                value = fingerprint(tensor)
                self._seen[name] = (tensor, tensor._version, value)
            self.batch[name][i] = value

    def _room(self, tensor: torch.Tensor, extra: int = 0) -> torch.Tensor:
        return torch.empty(
            (self._steps + extra, *tensor.shape), dtype=tensor.dtype, device=tensor.device
        )


def to_array(rows: torch.Tensor) -> np.ndarray:
    """A room as NumPy; nothing writes to it any more."""
    return rows.cpu().numpy()


def to_device(spec: Spec) -> dict[str, torch.Tensor]:
    """The spec's samples as tensors, on the default device."""
    return {name: torch.tensor(array) for name, array in spec.batches().data.items()}


def take(data: Batch, chunk: IndexChunk) -> Iterator[Batch]:
    """The samples that each update of a chunk trains on."""
    if chunk.indices is None:
        for _ in range(chunk.steps):
            yield data
        return
    for index in torch.as_tensor(chunk.indices.copy()).unbind():
        yield {name: tensor[index] for name, tensor in data.items()}


def fingerprint(tensor: torch.Tensor) -> int:
    """The sum of a tensor's 32-bit words, modulo 2**32, whatever the order of its samples."""
    if tensor.is_floating_point():
        tensor = tensor.contiguous().view(torch.int32)
    return int(tensor.sum(dtype=torch.int64)) & 0xFFFFFFFF


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
