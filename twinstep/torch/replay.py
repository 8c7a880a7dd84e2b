"""PyTorch's own losses and gradients at recorded states, and how far rounding moves them.

Mirror: twinstep/jax/replay.py

That one also makes the updates. This one stands in for it where a float32 run is to be measured in
float64 and JAX's float64 program is itself in doubt.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
import torch

from twinstep.device_config import CPU, DeviceConfig
from twinstep.judge import tolerance
from twinstep.problems.base import Spec
from twinstep.problems.batches import IndexChunk
from twinstep.torch.driver import Driver
from twinstep.torch.recorder import Recorder
from twinstep.trace.ledger import Leaves, Trace
from twinstep.trace.stages import STAGES

Batch = tuple[torch.Tensor, ...]

_PERTURBATION = 16  # eps: enough not to be rounded away, little enough for a first order
_MAX_SAMPLES = 32  # of a batch, evenly spread: each is a forward and a backward pass


@dataclass
class Replay:
    """Evaluates recorded steps of `spec` again, one by one, chunk after chunk.

    judged: the dtype of the recording ("": the spec's)
    """

    example: ModuleType
    spec: Spec
    device_config: DeviceConfig = CPU
    judged: str = ""
    cheap: bool = False  # only the steps that little explains are measured
    _recorded: Any = None
    _before: Any = None
    _indices: np.ndarray | None = None
    _drawn: torch.Tensor | None = None

    def load(self, recorded: Trace, chunk: IndexChunk) -> None:
        """Takes the states from which the steps of a chunk are made; chunks come in order."""
        if recorded.start == 0:
            self._before = {name: np.zeros_like(a[:1]) for name, a in recorded.raw_grads.items()}
        self._recorded, self._indices = recorded, chunk.indices
        self._preceding = {
            name: np.concatenate([self._before[name], array[:-1]])
            for name, array in recorded.raw_grads.items()
        }
        self._before = {name: array[-1:] for name, array in recorded.raw_grads.items()}

    def replay_rows(self, rows: np.ndarray) -> tuple[dict[str, Any], Leaves]:
        """{"loss": (rows,), "raw_grads": {name: (rows, ...)}} of some steps, what they round by.

        {"stage/leaf": (rows,)}, as twinstep/jax/rounding_scale.py has it
        """
        found = []
        for i in rows:
            drawn = self._recorded.rng.get("torch")
            self._drawn = None if drawn is None else torch.tensor(drawn[i])
            found.append(self._measured(self._params(i), self._batch(i), self._grads(i)))
        losses, grads, sizes = zip(*found, strict=True)
        named = {name: np.stack([each[name] for each in grads]) for name in grads[0]}
        ledger = {"loss": np.array(losses), "raw_grads": named}
        return ledger, {name: np.array([each[name] for each in sizes]) for name in sizes[0]}

    def evaluated(self, recorded: Trace) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """What the test makes of the last recorded parameters, how far rounding moves it."""
        eps = tolerance.eps(self.judged or self.spec.dtype)
        params = {n: array[-1].astype(self.spec.dtype) for n, array in recorded.params.items()}
        found, figures = self._tested(params)
        moves = [
            _largest(self._tested(off)[0]["outputs"] - found["outputs"]) / _PERTURBATION
            for off in _perturbed(params, eps)
        ]
        rounding = np.array(eps * _largest(found["outputs"]) + max(moves))
        return {**found, "rounding_scale": rounding}, figures

    def _tested(self, params: Leaves) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        with self._driver.settings():
            for name, parameter in self._driver.start[0].named_parameters():
                parameter.data.copy_(torch.tensor(params[name]))
            return self._driver.evaluated()

    def _measured(
        self, params: Leaves, batch: Batch, before: Leaves
    ) -> tuple[float, dict[str, np.ndarray], dict[str, float]]:
        """The loss, the gradients and what they round by, at one recorded state."""
        eps = tolerance.eps(self.judged or self.spec.dtype)
        max_distance = tolerance.max_perturbation_share(
            self.judged or self.spec.dtype, self.spec.dtype
        )
        loss, grads = self._evaluate(params, batch, before)
        samples = _samples(batch) if self.spec.separable else [batch]
        terms = [self._evaluate(params, one, {})[1] for one in samples]
        sizes = {n: np.mean([eps * np.abs(term[n]) for term in terms], axis=0) for n in params}
        parts = np.concatenate([(sizes[name] * params[name]).ravel() for name in params])
        made_of = {"loss/loss": eps * abs(loss) + float(_norm(parts))}
        made_of |= {
            f"raw_grads/{n}": float(max(eps * _largest(grads[n]), _largest(sizes[n])))
            for n in params
        }
        moves = dict.fromkeys(made_of, 0.0)
        for off in _perturbed(params, eps):
            moved, theirs = self._evaluate(off, batch, before)
            gaps = {"loss/loss": abs(moved - loss)}
            gaps |= {f"raw_grads/{n}": _largest(theirs[n] - grads[n]) for n in params}
            moves = {name: max(moves[name], gap / _PERTURBATION) for name, gap in gaps.items()}
        amount = {name: STAGES[name.partition("/")[0]].one_step for name in moves}
        rounds = {
            name: size + min(moves[name], max_distance / amount[name] * (size / eps))
            for name, size in made_of.items()
        }
        return loss, grads, rounds

    def _evaluate(
        self, params: Leaves, batch: Batch, before: Leaves
    ) -> tuple[float, dict[str, np.ndarray]]:
        """The loss and the gradients of a step; before: what it finds in `.grad`."""
        driver = self._driver
        with driver.settings():
            model, criterion, optimizer = driver.start
            for name, parameter in model.named_parameters():
                parameter.data.copy_(torch.tensor(params[name]))
                kept = before.get(name)  # cleared by the loop, if it clears at all
                parameter.grad = None if kept is None else torch.tensor(kept)
            if self._drawn is not None:  # where its random numbers stood before the step
                torch.set_rng_state(self._drawn)
            recorder = Recorder({"": model}, metadata=driver.metadata, rows=1)
            with recorder:
                driver.train(model, criterion, optimizer, [batch])
            trace = recorder.take()
        return trace.losses[0].item(), {name: a[0] for name, a in trace.raw_grads.items()}

    def _params(self, i: int) -> dict[str, np.ndarray]:
        return {n: array[i].astype(self.spec.dtype) for n, array in self._recorded.params.items()}

    def _grads(self, i: int) -> dict[str, np.ndarray]:
        return {name: array[i].astype(self.spec.dtype) for name, array in self._preceding.items()}

    def _batch(self, i: int) -> Batch:
        index = slice(None) if self._indices is None else torch.tensor(self._indices[i].copy())
        return tuple(tensor[index] for tensor in self._driver.data.values())

    @cached_property
    def _driver(self) -> Driver:
        return Driver(self.example, self.spec, self.device_config)


def _samples(batch: Batch) -> Iterator[Batch]:
    """Some samples, a batch of one each."""
    count = len(batch[0])
    for i in np.unique(np.linspace(0, count - 1, min(count, _MAX_SAMPLES)).astype(int)):
        yield tuple(tensor[i : i + 1] for tensor in batch)


def _perturbed(params: Leaves, eps: float) -> Iterator[dict[str, np.ndarray]]:
    """Twice: every parameter up or down by _PERTURBATION eps; then every other tensor reversed."""
    signs = np.random.RandomState(0)
    first = {name: signs.choice([-1, 1], array.shape) for name, array in params.items()}
    for flip in (1, -1):
        yield {
            name: array * (1 + flip**i * first[name] * _PERTURBATION * eps)
            for i, (name, array) in enumerate(params.items())
        }


def _largest(array: np.ndarray) -> float:
    return float(np.max(np.abs(array), initial=0))


def _norm(array: np.ndarray) -> float:
    """The root of the sum of squares, where a square may be no number though its root is one."""
    top = _largest(array) or 1.0
    return top * float(np.sqrt(np.sum(np.square(array / top))))
