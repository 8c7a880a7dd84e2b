"""Drives an example's own loop, a piece of the training at a time, and records it from outside.

Mirror: twinstep/jax/driver.py
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from twinstep.device_config import CPU, DeviceConfig
from twinstep.problems.base import Spec
from twinstep.problems.batches import IndexChunk
from twinstep.torch import devices
from twinstep.torch.conversion import load_params
from twinstep.torch.recorder import Recorder
from twinstep.trace.fingerprint import fingerprint
from twinstep.trace.ledger import Metadata, Trace

Data = dict[str, torch.Tensor]
Started = tuple[nn.Module, Any, torch.optim.Optimizer]
"""What `build` makes: model, criterion, optimizer."""


@dataclass(frozen=True)
class Driver:
    """An example's module, what it trains, and where."""

    example: ModuleType
    spec: Spec
    device_config: DeviceConfig = CPU

    @cached_property
    def metadata(self) -> Metadata:
        return Metadata(
            example=self.spec.name,
            spec=self.spec.hyper_parameters(),
            framework="torch",
            dtype=self.spec.dtype,
            device=devices.name(self._device),
            precision=self._precision,
            versions=devices.versions(),
        )

    def chunks(self, max_steps: int | None = None) -> Iterator[Trace]:
        """Trains; the steps in pieces of at most `max_steps`."""
        batches, max_steps = self.spec.batches(), max_steps or self.spec.steps_at_once
        recorder = Recorder({"": self.start[0]}, metadata=self.metadata, rows=max_steps)
        drawn = torch.tensor(self.spec.generator().get_state())
        for chunk in batches.chunks(max_steps):
            with self.settings():
                torch.set_rng_state(drawn)
                trace = self._run(recorder, chunk)
                drawn = torch.get_rng_state()
                last = chunk.start + chunk.steps == batches.total_steps
                evaluation, metrics = self.evaluated() if last else ({}, {})
            yield dataclasses.replace(trace, evaluation=evaluation, metrics=metrics)

    def _run(self, recorder: Recorder, chunk: IndexChunk) -> Trace:
        feed = Feed(self.data, chunk, partial(recorder.made_on, draws=self.spec.draws))
        with recorder:
            self.train(*self.start, feed)
        return recorder.take()

    def train(self, model: nn.Module, criterion: Any, optimizer: Any, batches: Any) -> None:
        """The example's own loop over some batches: of an epoch each, or all of one epoch."""
        epochs = batches if self.spec.batches().batch_size is None else [batches]
        self.example.train(model, criterion, optimizer, epochs, log=_silent)

    def evaluated(self) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """What its test makes of the model, for an example that has one, and the figures."""
        if (test_set := self.spec.test_set()) is None:
            return {}, {}
        images, labels = (torch.tensor(array, device=self._device) for array in test_set)
        outputs, predictions, correct = self.example.evaluate(self.start[0], images, labels)
        found = {"outputs": outputs.cpu().numpy(), "predictions": predictions.cpu().numpy()}
        return found, {"correct": float(correct), "test_images": float(len(labels))}

    def settings(self) -> AbstractContextManager[None]:
        return devices.settings(self.spec.dtype, self._device, self.device_config.precision)

    @cached_property
    def _device(self) -> torch.device:
        return devices.find(self.device_config.device, self.spec.dtype)

    @property
    def _precision(self) -> str:
        with self.settings():  # asked of PyTorch there, not taken from the place
            return devices.in_force(self.spec.dtype, self._device)

    @cached_property
    def start(self) -> Started:
        """Model, criterion and optimizer as the example makes them, with the spec's parameters."""
        with self.settings(), self._device:
            model, criterion, optimizer = self.example.build(self.spec)
            load_params(model, self.spec.initial_params())
        return model, criterion, optimizer

    @cached_property
    def data(self) -> Data:
        """The spec's samples."""
        with self.settings(), self._device:
            return {name: torch.tensor(a) for name, a in self.spec.batches().data.items()}


class Feed:
    """The batches of a chunk as a loop asks for them, (x, y) each, told to a recorder, if any.

    first: which sample of each batch is the first, where this process takes a part of it
    """

    def __init__(
        self,
        data: Data,
        chunk: IndexChunk,
        made_on: Callable[[dict[str, int]], None] | None = None,
        first: int = 0,
    ) -> None:
        self._data, self._chunk, self._made_on, self._first = data, chunk, made_on, first
        self._seen: dict[str, tuple[torch.Tensor | None, int, int]] = {}

    def __len__(self) -> int:
        return self._chunk.steps

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        for batch in take(self._data, self._chunk):
            if self._made_on is not None:
                self._made_on({name: self._fingerprint(name, x) for name, x in batch.items()})
            yield tuple(batch.values())

    def _fingerprint(self, name: str, tensor: torch.Tensor) -> int:
        # the very tensor of the last step, unwritten since, has the same fingerprint
        seen, version, number = self._seen.get(name, (None, 0, 0))
        if seen is not tensor or version != tensor._version:
            array = tensor.cpu().numpy()
            words = array[0].nbytes // 4 if array.dtype.kind == "f" else array[0].size
            number = fingerprint(array, self._first * words)
            self._seen[name] = (tensor, tensor._version, number)
        return number


def take(data: Data, chunk: IndexChunk) -> Iterator[Data]:
    """The samples that each update of a chunk trains on."""
    if chunk.indices is None:
        for _ in range(chunk.steps):
            yield data
        return
    device = next(iter(data.values())).device  # one copy there, not one a step
    for index in torch.tensor(chunk.indices.copy(), device=device).unbind():
        yield {name: tensor[index] for name, tensor in data.items()}


def _silent(line: str) -> None:
    """Says nothing."""
