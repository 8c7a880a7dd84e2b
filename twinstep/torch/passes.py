"""Which backward passes an optimizer's gradients are made of, since they were last cleared.

They may be several (accumulation, losses that are backpropagated one by one), and one may reach
several optimizers: a generator's loss changes the discriminator's gradients too, which are then
cleared.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from twinstep.torch.reading import local


class Pass:
    """A backward pass.

    number: of all, in their order; loss: what it was called on, None where that cannot be told
    calls: the module calls that gradients flowed through, by their number
    """

    __slots__ = ("calls", "loss", "number")

    def __init__(self, number: int, loss: float | None) -> None:
        self.number, self.loss = number, loss
        self.calls: dict[int, Any] = {}


class Passes:
    """The backward passes of each parameter's gradient.

    current: the one that runs; ahead: calls that gradients flowed through to become part of a loss
    """

    def __init__(self) -> None:
        self.current: Pass | None = None
        self.ahead: dict[int, Any] = {}
        self._count = 0
        self._of: dict[nn.Parameter, list[Pass]] = {}
        self._left: dict[nn.Parameter, tuple[torch.Tensor, int]] = {}
        self._before: list[tuple[nn.Parameter, torch.Tensor | None, int]] = []

    def begin(self, parameters: Iterable[nn.Parameter], loss: float | None) -> None:
        """A backward pass begins; what was cleared before it is no part of any sum."""
        self._count += 1
        begun = Pass(self._count, loss)
        begun.calls, self.ahead = self.ahead, {}
        self._before = [(p, p.grad, _version(p.grad)) for p in parameters]
        for parameter, grad, version in self._before if self._of else ():
            if self._of.get(parameter) and self._cleared(parameter, grad, version):
                self._of[parameter] = []
        self.current = begun  # last: what ends before it has begun none

    def _cleared(self, parameter: nn.Parameter, grad: torch.Tensor | None, version: int) -> bool:
        if grad is None:
            return True
        known, times = self._left.get(parameter, (None, 0))
        if grad is known and version == times:
            return False
        return not (grad.is_sparse or local(grad).any())

    def reached(self) -> list[nn.Parameter]:
        """Whose gradients the current pass has written so far; zeros that were written count."""
        if self.current is None:
            return []
        found = []
        for parameter, old, times in self._before:
            grad = parameter.grad
            if grad is None or (grad is old and grad._version == times):
                continue
            found.append(parameter)
            passes = self._of.setdefault(parameter, [])
            if self.current not in passes[-1:]:
                passes.append(self.current)
            self._left[parameter] = grad, grad._version
        return found

    def end(self) -> None:
        """The pass is over."""
        self.current, self._before = None, []

    def of(self, parameters: Iterable[nn.Parameter]) -> list[Pass]:
        """Those that made the gradients, in their order."""
        found = {one.number: one for p in parameters for one in self._of.get(p, ())}
        return [found[number] for number in sorted(found)]

    def used(self, parameters: Iterable[nn.Parameter]) -> None:
        """An update ends a sum, whether or not gradients are cleared after it."""
        self.ahead = {}
        for parameter in parameters:
            self._of.pop(parameter, None)
            self._left.pop(parameter, None)


def _version(grad: torch.Tensor | None) -> int:
    """How often a gradient was written."""
    return 0 if grad is None else grad._version
