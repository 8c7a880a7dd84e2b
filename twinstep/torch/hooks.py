"""Where a program is listened to: PyTorch's global step hooks, and the few functions beside them.

What is put in their place does the same and says so; nothing of it changes a number.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from twinstep.torch.calls import Calls


class Listener(Protocol):
    """What is told of a program."""

    def before_step(self, optimizer: Any, args: Any, options: Any) -> Any:
        """An optimizer's step begins; may give back other arguments."""

    def after_step(self, optimizer: Any, args: Any, options: Any) -> None:
        """It is over."""

    def before_backward(self, tensors: Any, args: Any, options: Any) -> bool:
        """A backward pass begins; gives back whether its end is to be told."""

    def after_backward(self, whole: bool) -> None:
        """It is over; whole: and came to its end."""

    def made(self, optimizer: Any) -> None:
        """An optimizer has been given parameters."""

    def scaled(self, scale: float) -> None:
        """By how much a GradScaler has multiplied what the steps that follow are given."""

    def first_call(self, module: nn.Module) -> None:
        """A module is about to be called."""

    def careful(self, told: Callable[..., Any], otherwise: Any) -> Callable[..., Any]:
        """Such a function, of which a fault does not reach the program."""


def replaced(owner: Any, name: str, by: Callable[..., Any]) -> Callable[[], None]:
    """Puts something in the place of a function; what is given back undoes it."""
    before = vars(owner)[name]
    setattr(owner, name, by)
    return lambda: setattr(owner, name, before)


@contextmanager
def listening(to: Listener, *, made: bool, calls: Calls | None = None) -> Iterator[None]:
    """Tells a listener of what happens meanwhile.

    made: also of optimizers that are made; calls: is told of the calls of modules
    """
    before, after = to.careful(to.before_backward, False), to.careful(to.after_backward, None)
    added, scaled = to.careful(to.made, None), to.careful(to.scaled, None)
    backward = torch.autograd.backward
    step, add = torch.amp.GradScaler.step, torch.optim.Optimizer.add_param_group

    def around_backward(tensors: Any, *args: Any, **options: Any) -> None:
        counts, whole = before(tensors, args, options), False
        try:
            backward(tensors, *args, **options)
            whole = True
        finally:
            if counts:
                after(whole)

    def around_step(scaler: Any, *args: Any, **options: Any) -> Any:
        scaled(scaler.get_scale())
        try:
            return step(scaler, *args, **options)
        finally:
            scaled(1.0)

    def around_add(optimizer: Any, group: Any) -> None:
        add(optimizer, group)
        added(optimizer)

    steps = [
        (register_optimizer_step_pre_hook, to.before_step),
        (register_optimizer_step_post_hook, to.after_step),
    ]
    with ExitStack() as undo:
        for register, told in steps:
            hook = register(torch.compiler.disable(to.careful(told, None)))
            undo.callback(hook.remove)
        undo.callback(replaced(torch.autograd, "backward", around_backward))
        undo.callback(replaced(torch.amp.GradScaler, "step", around_step))
        if made:
            undo.callback(replaced(torch.optim.Optimizer, "add_param_group", around_add))
        if calls is not None:
            around = calls.around(vars(nn.Module)["__call__"], to.careful, to.first_call)
            undo.callback(replaced(nn.Module, "__call__", around))
        yield
