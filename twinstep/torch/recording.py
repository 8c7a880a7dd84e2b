"""Runs an example and records the ledger of every step: a plain loop, looked at after each step.

Mirror: twinstep/jax/recording.py
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch._dynamo  # by the first optimizer anyway: here the collector rests meanwhile

from twinstep.place import CPU, Place
from twinstep.problems.base import Spec
from twinstep.problems.batches import IndexChunk
from twinstep.problems.chunking import steps_at_once
from twinstep.torch import devices
from twinstep.torch.conversion import opt_state
from twinstep.torch.state import Batch, Step, TrainState
from twinstep.trace.ledger import Metadata, Trace


@dataclass(frozen=True)
class Recorder:
    """An example's module, what it trains, and where."""

    example: ModuleType
    spec: Spec
    place: Place = CPU

    @cached_property
    def metadata(self) -> Metadata:
        return Metadata(
            example=self.spec.name,
            spec=self.spec.hyper_parameters(),
            framework="torch",
            dtype=self.spec.dtype,
            device=_device_name(self._device),
            precision=self._precision,
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
                evaluation, metrics = self.evaluated(state) if last else ({}, {})
            yield self._trace(chunk, ledger, evaluation, metrics)

    def _run(self, state: TrainState, data: Batch, chunk: IndexChunk) -> "Ledger":
        ledger = Ledger(state, chunk.steps)
        for i, batch in enumerate(take(data, chunk)):
            state, step = self.example.train_step(state, batch)
            ledger.record(i, batch, step)
        return ledger

    def _trace(
        self,
        chunk: IndexChunk,
        ledger: "Ledger",
        evaluation: dict[str, np.ndarray],
        metrics: dict[str, float],
    ) -> Trace:
        return Trace(
            metadata=self.metadata,
            losses=ledger.losses,
            batch=ledger.batch,
            grads={name: room.array() for name, room in ledger.grads.items()},
            opt_state={name: room.array() for name, room in ledger.opt_state.items()},
            params={name: room.array() for name, room in ledger.params.items()},
            start=chunk.start,
            metrics=metrics,
            evaluation=evaluation,
        )

    def evaluated(self, state: TrainState) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """What its test makes of a state, for an example that has one, and the figures."""
        if (test_set := self.spec.test_set()) is None:
            return {}, {}
        images, labels = (torch.tensor(array, device=self._device) for array in test_set)
        outputs, predictions, correct = self.example.evaluate(state, images, labels)
        found = {"outputs": outputs.cpu().numpy(), "predictions": predictions.cpu().numpy()}
        return found, {"correct": float(correct), "test_images": float(len(labels))}

    def settings(self) -> Any:
        return devices.settings(self.spec.dtype, self._device, self.place.precision)

    @cached_property
    def _device(self) -> torch.device:
        return devices.find(self.place.device, self.spec.dtype)

    @property
    def _precision(self) -> str:
        with self.settings():  # asked of PyTorch there, not taken from the place
            return devices.in_force(self.spec.dtype, self._device)

    @cached_property
    def initial(self) -> TrainState:
        return self.example.init(self.spec)

    @cached_property
    def data(self) -> Batch:
        return to_device(self.spec)


class Ledger:
    """The entries of some steps, copied into rooms made beforehand.

    Every entry is a copy: PyTorch changes parameters, optimizer state and, unless they are
    cleared, gradients in place. Rooms, not lists of tensors: those would keep Python's garbage
    collector busy for longer than the copies take.
    """

    def __init__(self, state: TrainState, steps: int) -> None:
        self._state = state
        self._steps = steps
        parameters = dict(state.model.named_parameters())
        self.losses = torch.empty(steps).numpy()  # in the run's dtype
        self.batch: dict[str, np.ndarray] = {}
        self.grads = {name: Room(steps, p) for name, p in parameters.items()}
        self.opt_state: dict[str, Room] = {}
        self.params = {name: Room(steps + 1, p) for name, p in parameters.items()}
        self._rooms = [(p, self.grads[name], self.params[name]) for name, p in parameters.items()]
        self._seen: dict[str, tuple[torch.Tensor | None, int, int]] = {}
        for parameter, _, params in self._rooms:
            params.put(0, parameter)

    def record(self, i: int, batch: Batch, step: Step) -> None:
        """Copies what step i left."""
        self.losses[i] = step.loss.item()
        for parameter, grads, params in self._rooms:
            grad = parameter.grad
            if grad is None:
                grad = torch.zeros_like(parameter)
            elif grad.is_sparse:
                grad = grad.coalesce().to_dense()  # summed as the optimizer sums it
            grads.put(i, grad)
            params.put(i + 1, parameter)
        if self._state.optimizer.state:
            for name, tensor in opt_state(self._state.model, self._state.optimizer).items():
                if name not in self.opt_state:
                    self.opt_state[name] = Room(self._steps, tensor)
                self.opt_state[name].put(i, tensor)
        for name, tensor in batch.items():
            self._record_batch(i, name, tensor)

    def _record_batch(self, i: int, name: str, tensor: torch.Tensor) -> None:
        if i == 0:
            self.batch[name] = np.empty(self._steps, np.uint32)
        # the very tensor of the last step, unwritten since, has the same fingerprint
        seen, version, value = self._seen.get(name, (None, 0, 0))
        if seen is not tensor or version != tensor._version:
            value = fingerprint(tensor)
            self._seen[name] = (tensor, tensor._version, value)
        self.batch[name][i] = value


class Room:
    """Rows for what a tensor holds at each step, (rows, ...), on the tensor's device.

    A counter is kept in the run's dtype, whatever it is counted in (by fused Adam, float32).
    On the CPU NumPy copies, in half the time that PyTorch takes for a small tensor, through a view
    that stays as long as the tensor keeps its memory.
    """

    def __init__(self, rows: int, like: torch.Tensor) -> None:
        dtype = like.dtype if like.ndim else torch.get_default_dtype()
        self._tensor = torch.zeros((rows, *like.shape), dtype=dtype, device=like.device)
        self._array = self._tensor.numpy() if like.device.type == "cpu" else None
        self._pointer = 0
        self._view: np.ndarray | None = None

    def put(self, i: int, tensor: torch.Tensor) -> None:
        """Copies a tensor into row i."""
        if self._array is None:
            self._tensor[i] = tensor.detach()
            return
        pointer = tensor.data_ptr()
        if pointer != self._pointer or self._view is None:
            if tensor.requires_grad:
                tensor = tensor.detach()
            self._pointer, self._view = pointer, tensor.numpy()
        self._array[i] = self._view

    def array(self) -> np.ndarray:
        """All rows, (rows, ...)."""
        return self._tensor.cpu().numpy()


def to_device(spec: Spec) -> dict[str, torch.Tensor]:
    """The spec's samples as tensors, on the default device."""
    return {name: torch.tensor(array) for name, array in spec.batches().data.items()}


def take(data: Batch, chunk: IndexChunk) -> Iterator[Batch]:
    """The samples that each update of a chunk trains on."""
    if chunk.indices is None:
        for _ in range(chunk.steps):
            yield data
        return
    device = next(iter(data.values())).device  # one copy there, not one a step
    for index in torch.tensor(chunk.indices.copy(), device=device).unbind():
        yield {name: tensor[index] for name, tensor in data.items()}


def fingerprint(tensor: torch.Tensor) -> int:
    """The sum of a tensor's 32-bit words, modulo 2**32, whatever the order of its samples."""
    if tensor.is_floating_point():
        tensor = tensor.contiguous().view(torch.int32)
    return int(tensor.sum(dtype=torch.int64)) & 0xFFFFFFFF


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
