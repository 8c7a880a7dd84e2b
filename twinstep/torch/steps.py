"""Follows a program from backward pass to backward pass and from update to update.

Told by the hooks, it says which backward passes an update is made of, and when it is one.
"""

import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from twinstep.errors import InputError
from twinstep.torch import reading
from twinstep.torch.calls import Calls
from twinstep.torch.naming import Names
from twinstep.torch.optimizers import Optimizers, parameters_of
from twinstep.torch.passes import Pass, Passes
from twinstep.torch.updates import Updates
from twinstep.trace.keep import EVERYTHING, Keep

_STEP = "torch.optim.optimizer"
BY_HAND = "by_hand"
"""What updates that no optimizer makes are called."""


class Options(NamedTuple):
    """What of a program is recorded, as `record` says it.

    everything: all that any optimizer updates; driven: whether the program is one of ours
    """

    keep: Keep = EVERYTHING
    everything: bool = False
    driven: bool = False


class _Step:
    """An optimizer's step that is running.

    frame: its own, which nobody tells of if it raises; wraps: whether it has another optimizer step
    passes: what its gradients come from, once they are there; losses: of each evaluation
    """

    def __init__(self, optimizer: Any, name: str, recorded: bool, scale: float) -> None:
        self.optimizer, self.name, self.recorded, self.scale = optimizer, name, recorded, scale
        self.frame, self.wraps = _frame(_STEP), False
        self.passes: list[Pass] | None = None
        self.losses: list[float | None] = []


class Steps:
    """The updates of a program, as they come.

    ignoring: whether it looks away; failed: what has ended the recording
    """

    def __init__(
        self, names: Names, optimizers: Optimizers, updates: Updates, options: Options
    ) -> None:
        self.names, self.optimizers, self.updates = names, optimizers, updates
        self._options = options
        self.ignoring = False
        self.passes = Passes()
        self.calls = Calls(self.passes)
        self._count: dict[str, int] = {}
        self._stack: list[_Step] = []
        self._scale = 1.0
        self._called: set[nn.Module] = set()
        self._rng: torch.Tensor | None = None
        self._warned = False
        self.on_last: Callable[[], Any] = lambda: None
        self.failed: Exception | None = None
        self._described = -1, -1
        self._backward: FrameType | None = None

    @property
    def over(self) -> bool:
        """Whether as many updates are recorded as were asked for."""
        return self._options.keep.over(self.updates.made, self._count.values())

    @property
    def evaluated(self) -> bool:
        """Whether an update is running that evaluates many times, and has done so."""
        return any(step.passes is not None for step in self._running())

    def _running(self) -> list[_Step]:
        """The steps that are in one another; one that has raised is no update."""
        for step in [step for step in self._stack if not _runs(step.frame)]:
            self._abandon(step)
        return self._stack

    def _abandon(self, step: _Step) -> None:
        """It came to no end; its gradients stay what they are."""
        self._stack.remove(step)
        if step.recorded:
            self.updates.discard()
        self._forget()

    def careful(self, told: Callable[..., Any], otherwise: Any) -> Callable[..., Any]:
        """What a hook calls: a fault in it ends the recording, never the training.

        otherwise: what it gives back then
        """
        if self._options.driven:
            return told

        def careful(*args: Any, **options: Any) -> Any:
            if self.failed is not None:
                return otherwise
            try:
                return told(*args, **options)
            except Exception as error:
                self.failed = error
                return otherwise
            except BaseException:  # Ctrl-C, which a program may catch: no row is half of it
                self.updates.discard()
                raise

        return careful

    def say(self, batch: Mapping[str, Any]) -> None:
        """What the next update trains on. InputError for what is no array of numbers."""
        self._running()
        self.calls.say(batch)

    def leave(self) -> None:
        """Nothing is listened to any more."""
        for step in [*self._stack]:
            self._abandon(step)
        self.passes.end()

    def begin(self) -> None:
        """What is drawn from now on is drawn in this step."""
        if self._rng is None:
            self._rng = torch.get_rng_state()

    def first_call(self, module: nn.Module) -> None:
        """A module is about to be called."""
        self._running()
        self.begin()
        if module not in self._called:
            self._called.add(module)
            reading.check_alone()
            self.updates.called(module)

    def by_hand(self, lr: float | None) -> None:
        """Parameters were updated by hand."""
        self._running()
        if not self._is_recorded(BY_HAND):
            self._end(BY_HAND, list(self.names.parameters))
            return
        params = self.optimizers.in_row(None)
        self.updates.begin(BY_HAND, {} if lr is None else {f"{BY_HAND}.lr": float(lr)}, {}, {})
        self.updates.grads(params if self._options.keep.raw_grads else {}, params, 1.0, 1.0)
        self.updates.end(BY_HAND, params, {})
        passes = self.passes.of(params)
        self._finish(BY_HAND, list(params), passes, [one.loss for one in passes], 1.0)

    def before_backward(self, tensors: Any, args: Any, options: Any) -> bool:
        """A backward pass begins; gives back whether it counts: a checkpoint's is inside one."""
        if self._in_backward() or self.ignoring or self.over:
            return False
        weights = options.get("grad_tensors", args[0] if args else None)
        loss = reading.backpropagated(tensors, weights)
        self._backward = _frame("twinstep.torch.hooks")
        self.passes.begin(self.optimizers.parameters(), loss)
        return True

    def _in_backward(self) -> bool:
        """Whether a backward pass runs: one whose end Ctrl-C kept from being told does not."""
        if self.passes.current is not None and not _runs(self._backward):
            self.after_backward(False)
        return self.passes.current is not None

    def after_backward(self, whole: bool) -> None:
        """It is over; whole: and came to its end."""
        if whole:
            self._reached()
        self.passes.end()
        self._backward = None

    def _reached(self) -> None:
        """Gradients are there; of an update that evaluates many times, the first ones count."""
        reached = self.passes.reached()
        if self._options.keep.raw_grads and not self.evaluated:
            self.updates.backpropagated(reached)

    def made(self, optimizer: Any) -> None:
        """An optimizer has parameters, or more of them."""
        if not self.ignoring:
            self.optimizers.made(optimizer)

    def scaled(self, scale: float) -> None:
        """The step that follows is a GradScaler's: what was backpropagated is so much larger."""
        self._scale = scale

    def before_step(self, optimizer: Any, args: Any, options: Any) -> Any:
        """An optimizer's step begins; of its closure, if any, the first evaluation is kept."""
        running = self._running()
        if any(step.optimizer is optimizer for step in running):
            return None  # a class whose step calls that of the one it is made from
        if self.ignoring or not self.optimizers.joins(optimizer, self._options.everything):
            return None
        for outer in running:
            if outer.recorded and not outer.wraps:  # the update is that of the one inside
                self.updates.discard()
            outer.wraps = True
        name = self.optimizers.called[optimizer]
        step = _Step(optimizer, name, self._is_recorded(name), self._scale)
        self._stack.append(step)
        if step.recorded:
            self._begin(step)
        of, *given = args  # the optimizer itself, and the closure where it takes one
        closure = given[0] if given else options.get("closure")
        if closure is None:
            if self._in_backward():
                self._reached()
            self._given(step)
            return None

        given_now = self.careful(self._given, None)

        def evaluated() -> Any:
            value = closure()
            given_now(step)
            return value

        if given:
            return (of, evaluated, *given[1:]), options
        return args, {**options, "closure": evaluated}

    def after_step(self, optimizer: Any, args: Any, options: Any) -> None:
        """It is over."""
        frame = _frame(_STEP) if self._stack else None
        for step in [step for step in self._stack if step.frame is frame]:
            self._running()  # none of those inside
            self._stack.remove(step)
            self._updated(step)

    # An update

    def _is_recorded(self, name: str) -> bool:
        return not self.over and self._options.keep.has(self._count.get(name, 0) + 1)

    def _begin(self, step: _Step) -> None:
        optimizers = self.optimizers
        params = optimizers.in_row(step.optimizer)
        state = (
            optimizers.state(step.optimizer)
            if self._options.keep.opt_state and not self._options.driven
            else {}
        )
        numbers = optimizers.numbers(step.optimizer)
        self.updates.begin(step.name, numbers, params, state)

    def _given(self, step: _Step) -> None:
        """The gradients are there that the step is given."""
        parameters = parameters_of(step.optimizer)
        passes = self.passes.of(parameters)
        step.losses.append(_sum([one.loss for one in passes]))
        if step.passes is not None:
            return
        step.passes = passes
        if step.recorded:
            params = self.optimizers.in_row(step.optimizer)
            given = self.optimizers.in_row(step.optimizer, alone=True)
            scale = getattr(step.optimizer, "grad_scale", None)
            fused = 1.0 if scale is None else float(scale)
            self.updates.grads(
                params if self._options.keep.raw_grads else {}, given, step.scale, fused
            )

    def _updated(self, step: _Step) -> None:
        """An optimizer's step is over; one that an infinite gradient stopped is none."""
        parameters, passes = parameters_of(step.optimizer), step.passes or []
        found_inf = getattr(step.optimizer, "found_inf", None)
        if step.wraps:
            return
        if found_inf is not None and bool(found_inf):
            if step.recorded:
                self.updates.discard()
            self._forget()
            self._used(parameters)
        elif step.recorded:
            params = self.optimizers.in_row(step.optimizer)
            self.updates.end(
                step.name,
                params,
                self.optimizers.state(step.optimizer) if self._options.keep.opt_state else {},
            )
            several = len(step.losses) > 1
            losses = step.losses if several else [one.loss for one in passes]
            self._finish(step.name, parameters, passes, losses, step.scale, several)
        else:
            self._end(step.name, parameters)

    def _finish(
        self,
        name: str,
        parameters: Sequence[nn.Parameter],
        passes: list[Pass],
        losses: Sequence[float | None],
        scale: float,
        evaluations: bool = False,
    ) -> None:
        """The row of an update is complete.

        losses: of the passes that it sums; or of its evaluations, the first of which counts
        """
        rows = self.updates.open()
        scaled = [None if loss is None else loss / scale for loss in losses]
        loss = scaled[0] if evaluations else _sum(scaled)
        if loss is None:
            self._unseen(rows.step)
        known = len(self.names.parameters), len(self.optimizers.called)
        if known != self._described:
            self._described = known
            rows.program = {
                "modules": self.names.described(),
                "optimizers": self.optimizers.described(),
                **({"shards": self.updates.shards} if self.updates.shards else {}),
            }
        rows.batch(self.calls.made_on(passes, self.names), self._options.keep.values)
        if self._rng is not None and not torch.equal(self._rng, torch.get_rng_state()):
            rows.put("rng", "torch", self._rng.numpy())  # of a step that drew
        if not self._options.driven:
            rows.put("update", name, np.array(self._count.get(name, 0) + 1))
            if len(scaled) > 1 and None not in scaled:
                for one in scaled:
                    rows.put("micro_losses", "loss", np.array(one), more=True)
        self._end(name, parameters)
        self.updates.finish(loss)
        if self.over:
            self.updates.flush()
            self.on_last()

    def _end(self, name: str, parameters: Sequence[nn.Parameter]) -> None:
        """An update is over, recorded or not."""
        self._count[name] = self._count.get(name, 0) + 1
        self._forget()
        self._used(parameters)

    def _forget(self) -> None:
        """What follows draws numbers and has a batch of its own."""
        self._rng = None
        self.calls.forget()

    def _used(self, parameters: Sequence[nn.Parameter]) -> None:
        """An update ends what its gradients were made of; of what nobody updates too."""
        every = [*parameters, *self.optimizers.in_row(None)]
        self.passes.used(every)
        self.updates.used(every)

    def _unseen(self, step: int) -> None:
        says = (
            f"step {step}: the update's loss is not known: nothing was backpropagated to its "
            "parameters since the last one, or what is no number"
        )
        if self._options.driven:
            raise InputError(says)
        if not self._warned:
            self._warned = True
            warnings.warn(says, stacklevel=2)


def _sum(losses: Sequence[float | None]) -> float | None:
    """The sum of losses; None where one is not known, or there is none."""
    known = [loss for loss in losses if loss is not None]
    return sum(known) if known and len(known) == len(losses) else None


def _frame(module: str) -> FrameType | None:
    """The innermost that runs of a module: of what tells of a step, or of a backward pass."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__") != module:
        frame = frame.f_back
    return frame


def _runs(frame: FrameType | None) -> bool:
    """Whether a frame is running, in any thread: a GPU's backward pass has its own.

    No frame keeps itself alive by this, and with it all that its locals are.
    """
    threads = sys._current_frames()
    threads[threading.get_ident()] = sys._getframe(1)
    for innermost in threads.values():
        one: FrameType | None = innermost
        while one is not None:
            if one is frame:
                return True
            one = one.f_back
    return False
