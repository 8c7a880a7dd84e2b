"""Variants of one training, for measuring what each costs: the optimizer's kinds, torch.compile.

Mirror: twinstep/jax/variants.py

No example is changed: its loop is given the optimizer made anew with a flag, or a compiled model.
"""

import copy
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn

from twinstep.device_config import CPU, DeviceConfig
from twinstep.problems.base import Spec
from twinstep.torch.conversion import load_params
from twinstep.torch.driver import Driver, Feed, Started
from twinstep.trace.ledger import Trace
from twinstep.trace.variants import TrainingResult, Variant

OPTIMIZERS: dict[str, dict[str, bool]] = {
    "eager": {},  # as the example makes it: what PyTorch chooses
    "foreach": {"foreach": True, "fused": False},
    "fused": {"foreach": False, "fused": True},
}


def variants(
    example: ModuleType, spec: Spec, device_config: DeviceConfig = CPU, *, compiled: bool = False
) -> dict[str, Variant | str]:
    """Each way by name, or why there is none.

    compiled: also torch.compile, which takes it a while
    """
    found: dict[str, Variant | str] = {}
    for name, flags in OPTIMIZERS.items():
        loop = Loop(Changed(example, spec, device_config, change=partial(_made, flags)))
        try:
            loop.start  # noqa: B018  # an optimizer that has no such kind says so when it is made
        except (RuntimeError, TypeError, ValueError) as error:
            if not flags:
                raise
            found[name] = _first_line(error)
        else:
            found[name] = loop
    if compiled:
        found["compile"] = Loop(Changed(example, spec, device_config, change=_compiled))
    return found


@dataclass(frozen=True)
class Changed(Driver):
    """Drives the example's loop with something else than it builds."""

    change: Callable[[Started], Started] = lambda start: start

    @cached_property
    def start(self) -> Started:
        with self.settings(), self._device:
            return self.change(super().start)


@dataclass
class Loop:
    """The document's loop: a Python call a step, nothing recorded."""

    driver: Driver

    def settings(self) -> AbstractContextManager[None]:
        return self.driver.settings()

    def reset(self) -> None:
        """In place: for another model and another optimizer torch.compile would start again."""
        model, _, given = self.start
        load_params(_plain(model), self.driver.spec.initial_params())
        for parameter in model.parameters():
            parameter.grad = None
        for buffer, first in zip(model.buffers(), self._first.buffers, strict=True):
            buffer.copy_(first)
        optimizer, scheduler = _optimizer(given)
        for moments in optimizer.state.values():
            for moment in moments.values():
                if isinstance(moment, torch.Tensor):
                    moment.zero_()
        for group, lr in zip(optimizer.param_groups, self._first.rates, strict=True):
            group["lr"] = lr
        if scheduler is not None:
            scheduler.load_state_dict(self._first.schedule)
        torch.set_rng_state(torch.tensor(self.driver.spec.generator().get_state()))

    def run(self) -> None:
        model, criterion, optimizer = self.start
        for chunk in self._chunks:
            self.driver.train(model, criterion, optimizer, Feed(self.driver.data, chunk))
        if criterion.last.is_cuda:
            torch.cuda.synchronize(criterion.last.device)

    def result(self) -> TrainingResult:
        model, criterion, _ = self.start
        params = {
            name: parameter.detach().cpu().numpy().copy()
            for name, parameter in _plain(model).named_parameters()
        }
        return TrainingResult(criterion.last.detach().cpu().numpy().reshape(1).copy(), params)

    def recorded(self) -> Iterator[Trace]:
        with self.settings():
            self.reset()
        return self.driver.chunks()

    @cached_property
    def start(self) -> Started:
        """What every run changes; the criterion keeps the last loss."""
        model, criterion, optimizer = self.driver.start
        self.driver.data  # noqa: B018 - made by asking for it
        self._first  # noqa: B018 - before anything is trained
        return model, _Kept(criterion), optimizer

    @cached_property
    def _first(self) -> "_First":
        """What `reset` brings back, beside what the spec has."""
        model, _, given = self.driver.start
        optimizer, scheduler = _optimizer(given)
        return _First(
            [buffer.clone() for buffer in model.buffers()],
            [group["lr"] for group in optimizer.param_groups],
            {} if scheduler is None else copy.deepcopy(scheduler.state_dict()),
        )

    @cached_property
    def _chunks(self) -> list[Any]:
        spec = self.driver.spec
        return list(spec.chunks())


class _First(NamedTuple):
    """buffers: of the model; rates: of the optimizer's groups; schedule: its scheduler's state."""

    buffers: list[torch.Tensor]
    rates: list[float]
    schedule: dict[str, Any]


def _optimizer(given: Any) -> tuple[torch.optim.Optimizer, Any]:
    """What a loop is given as its optimizer: that, and the scheduler that may come with it."""
    optimizer, scheduler = given[:2] if isinstance(given, tuple) else (given, None)
    return optimizer, scheduler


class _Kept:
    """A criterion that keeps the last loss that it made."""

    def __init__(self, criterion: Any) -> None:
        self.criterion = criterion
        self.last = torch.tensor(torch.nan)

    def __call__(self, *args: Any) -> torch.Tensor:
        self.last = self.criterion(*args)
        return self.last


def _made(flags: dict[str, bool], start: Started) -> Started:
    """The same with an optimizer of another kind."""
    if not flags:
        return start
    model, criterion, optimizer = start
    if isinstance(optimizer, tuple):
        raise TypeError("its scheduler is one of the optimizer that it was made with")
    kind: Any = type(optimizer)
    flags = {name: value for name, value in flags.items() if value or name in optimizer.defaults}
    groups = [{k: v for k, v in g.items() if k not in flags} for g in optimizer.param_groups]
    return model, criterion, kind(groups, **{**optimizer.defaults, **flags})


def _compiled(start: Started) -> Started:
    """torch.compile of the model and of its loss, forward and backward.

    Not of the optimizer: compiled Adam corrects its bias in the run's dtype, where the one that is
    not does it in Python's float64; in float32 that is off by some 1e-5 of an update.
    """
    import torch._inductor.config as inductor

    inductor.force_disable_caches = True  # compiled here and now,
    torch.compiler.reset()  # and not for another run in this process
    logging.getLogger("torch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="torch")
    model, criterion, optimizer = start
    compiled: Any = torch.compile(model)
    return compiled, torch.compile(criterion), optimizer


def _plain(model: nn.Module) -> nn.Module:
    """The model itself, where torch.compile has wrapped it."""
    plain: nn.Module = getattr(model, "_orig_mod", model)
    return plain


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
