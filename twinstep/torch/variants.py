"""Ways to make one training, for measuring what each costs: the optimizer's kinds, torch.compile.

Mirror: twinstep/jax/variants.py

No example is changed: its optimizer is made anew with a flag, its loss is handed to the compiler.
"""

import dataclasses
import logging
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any, cast

import torch

from twinstep.place import CPU, Place
from twinstep.problems.base import Spec
from twinstep.problems.chunking import steps_at_once
from twinstep.torch import devices
from twinstep.torch.conversion import load_params
from twinstep.torch.recording import Recorder, take
from twinstep.torch.state import Batch, TrainState
from twinstep.trace.ledger import Trace
from twinstep.trace.ways import Left, Way

OPTIMIZERS: dict[str, dict[str, bool]] = {
    "eager": {},  # as the example makes it: what PyTorch chooses
    "foreach": {"foreach": True, "fused": False},
    "fused": {"foreach": False, "fused": True},
}


def variants(
    example: ModuleType, spec: Spec, place: Place = CPU, *, compiled: bool = False
) -> dict[str, Way | str]:
    """Each way by name, or why there is none.

    compiled: also torch.compile, which takes it a while
    """
    found: dict[str, Way | str] = {}
    for name, flags in OPTIMIZERS.items():
        loop = Loop(_with_flags(example, flags), spec, place)
        try:
            loop.start  # noqa: B018  # an optimizer that has no such kind says so when it is made
        except (RuntimeError, TypeError, ValueError) as error:
            if not flags:
                raise
            found[name] = _first_line(error)
        else:
            found[name] = loop
    if compiled:
        found["compile"] = _compiled(example, spec, place)
    return found


@dataclass
class Loop:
    """The document's loop: a Python call a step, nothing recorded."""

    example: ModuleType
    spec: Spec
    place: Place
    _loss: torch.Tensor = field(default_factory=lambda: torch.tensor(torch.nan))

    def settings(self) -> AbstractContextManager[None]:
        return self._recorder.settings()

    def fresh(self) -> None:
        """In place: for another model and another optimizer torch.compile would start again."""
        state, _ = self.start
        load_params(state.model, self.spec.initial_params())
        for parameter in state.model.parameters():
            parameter.grad = None
        for moments in state.optimizer.state.values():
            for moment in moments.values():
                if isinstance(moment, torch.Tensor):
                    moment.zero_()

    def run(self) -> None:
        state, data = self.start
        train_step = self.example.train_step
        for chunk in self._chunks:
            for batch in take(data, chunk):
                state, step = train_step(state, batch)
        self._loss = step.loss
        if self._loss.is_cuda:
            torch.cuda.synchronize(self._loss.device)

    def left(self) -> Left:
        params = {
            name: parameter.detach().cpu().numpy().copy()
            for name, parameter in self.start[0].model.named_parameters()
        }
        return Left(self._loss.detach().cpu().numpy().reshape(1).copy(), params)

    def recorded(self) -> Iterator[Trace]:
        with self.settings():
            self.fresh()
        return self._recorder.chunks()

    @cached_property
    def start(self) -> tuple[TrainState, Batch]:
        """The one state, which every run changes, and the samples."""
        with self.settings(), devices.find(self.place.device, self.spec.dtype):
            return self._recorder.initial, self._recorder.data

    @cached_property
    def _chunks(self) -> list[Any]:
        return list(self.spec.batches().chunks(steps_at_once(self.spec)))

    @cached_property
    def _recorder(self) -> Recorder:
        return Recorder(self.example, self.spec, self.place)


def _with_flags(example: ModuleType, flags: dict[str, bool]) -> ModuleType:
    """The example with its optimizer made of another kind."""

    def init(spec: Spec) -> TrainState:
        state = example.init(spec)
        if not flags:
            return state
        old = state.optimizer
        kind = cast(Any, type(old))
        groups = [{k: v for k, v in g.items() if k not in flags} for g in old.param_groups]
        return dataclasses.replace(state, optimizer=kind(groups, **{**old.defaults, **flags}))

    return cast(ModuleType, SimpleNamespace(**{**vars(example), "init": init}))


def _compiled(example: ModuleType, spec: Spec, place: Place) -> Way:
    """The loop with torch.compile of the model and its loss, forward and backward.

    Not of the optimizer: compiled Adam corrects its bias in the run's dtype, where the one that is
    not does it in Python's float64; in float32 that is off by some 1e-5 of an update.
    """
    import torch._inductor.config as inductor

    inductor.force_disable_caches = True  # compiled here and now,
    torch.compiler.reset()  # and not for another run in this process
    logging.getLogger("torch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="torch")
    names = {**vars(example), "loss_fn": torch.compile(example.loss_fn)}
    step = example.train_step
    names["train_step"] = FunctionType(
        step.__code__, names, step.__name__, step.__defaults__, step.__closure__
    )  # the same code, which finds another `loss_fn`
    return Loop(cast(ModuleType, SimpleNamespace(**names)), spec, place)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
