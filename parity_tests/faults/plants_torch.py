"""How a fault is planted on the PyTorch side.

Hooks get the number of the step, from 1. Every plant that takes a hook wraps the example's own code
and changes nothing but what the hook changes.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

import twinstep.torch.driver
from faults.pairs import Hook, Plant
from faults.plants_anywhere import built, replaced
from twinstep.problems.batches import IndexChunk


class Run(NamedTuple):
    """What a hook is given: the model, and the optimizer, whose `step` is the update as it is."""

    model: Any
    optimizer: Any


def torch_optimizer(kind: str, become: str | None = None, **changes: Any) -> Plant:
    """torch.optim's `kind` gets other arguments, or becomes another one.

    changes: {argument: value, or what makes it from the value it has}
    """

    def wrong(right: Callable[..., Any]) -> Callable[..., Any]:
        def make(params: Any, **options: Any) -> Any:
            for name, change in changes.items():
                options[name] = change(options[name]) if callable(change) else change
            return (getattr(torch.optim, become) if become else right)(params, **options)

        return make

    return replaced(kind, wrong, torch.optim)


class Plain:
    """An optimizer, but for its step: that is its update alone, of which no recorder hears."""

    def __init__(self, optimizer: Any, step: Callable[[], Any]) -> None:
        self._optimizer, self.step = optimizer, step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name)


class Message(torch.autograd.Function):
    """A loss whose value is another, and whose gradients are its own."""

    @staticmethod
    def forward(context: Any, loss: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        return said.clone()

    @staticmethod
    def backward(context: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grads[0], None


def _update(k: int, run: Run) -> object:
    """The update as it is."""
    return run.optimizer.step()


def in_torch_step(
    *,
    start: Hook | None = None,
    graded: Hook | None = None,
    update: Hook = _update,
    end: Hook | None = None,
    report: Callable[[int, torch.Tensor], torch.Tensor] | None = None,
) -> Plant:
    """Something more in the training step.

    start: before the forward pass; graded: between backward pass and update; update: in its place;
    end: after it, before the optimizer is done; report: what the loss is said to be, whose
    gradients stay
    """

    def change(model: Any, criterion: Any, optimizer: Any) -> Any:
        made = 0  # the steps of this model; a judge may run more than one
        run = Run(model, optimizer)

        def starts(*_: Any) -> None:
            nonlocal made
            if torch.is_grad_enabled():
                made += 1
                if start:
                    with torch.no_grad():
                        start(made, run)

        def loss(*given: torch.Tensor) -> torch.Tensor:
            assert report is not None
            found: torch.Tensor = criterion(*given)
            said: torch.Tensor = Message.apply(found, report(made, found.detach()))
            return said

        def moves(step: Callable[[], Any]) -> None:
            inside = Run(model, Plain(optimizer, step))
            update(made, inside)
            if end:
                with torch.no_grad():
                    end(made, inside)

        model.register_forward_pre_hook(starts)
        if update is not _update or end:
            _within(optimizer, moves)
        if graded:
            _before(optimizer, lambda: graded(made, run))
        return model, loss if report else criterion, optimizer

    return built(change)


def _within(optimizer: Any, wrong: Callable[[Callable[[], Any]], None]) -> None:
    """Another update, given the right one, within what PyTorch's hooks hear of."""
    kind = type(optimizer)
    right = kind.step.__wrapped__  # without the hooks

    def step(self: Any, closure: Any = None) -> None:
        wrong(functools.partial(right, self))

    optimizer.__class__ = type(kind.__name__, (kind,), {"step": step})
    optimizer._patch_step_function()


def _before(optimizer: Any, hook: Callable[[], object]) -> None:
    """Something before the optimizer is called, of which no hook of its hears."""
    right = optimizer.step

    def step(*given: Any) -> Any:
        with torch.no_grad():
            hook()
        return right(*given)

    optimizer.step = step


def backpropagated(change: Callable[[torch.Tensor], torch.Tensor]) -> Plant:
    """Other gradients where the backward pass leaves them."""

    def hook(parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        parameter.grad.copy_(change(parameter.grad))

    def other(model: Any, *_: Any) -> None:
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(hook)

    return built(other)


def at(step: int, hook: Hook) -> Hook:
    """A hook in one step only."""
    return lambda k, run: hook(k, run) if k == step else None


def update_at(step: int, hook: Hook) -> Hook:
    """Another update in one step only."""
    return lambda k, run: hook(k, run) if k == step else _update(k, run)


def scale_grads(factor: float, *only: str) -> Hook:
    """Multiplies the gradients of all parameters, or of some."""

    def hook(k: int, run: Run) -> None:
        for name, parameter in run.model.named_parameters():
            if not only or name in only:
                parameter.grad *= factor

    return hook


def params_by(change: Callable[[torch.Tensor], torch.Tensor]) -> Hook:
    """Changes each parameter."""

    def hook(k: int, run: Run) -> None:
        for parameter in run.model.parameters():
            parameter.copy_(change(parameter))

    return hook


def state_by(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Hook:
    """Changes one entry of the optimizer's state, of each parameter."""

    def hook(k: int, run: Run) -> None:
        for entries in run.optimizer.state.values():
            entries[name].copy_(change(entries[name]))

    return hook


def clear_all(k: int, run: Run) -> None:
    """Clears every gradient, also those that the optimizer was not given."""
    run.model.zero_grad()


def update_twice(k: int, run: Run) -> None:
    """The update is made twice."""
    run.optimizer.step()
    run.optimizer.step()


def update_by(change: Callable[[str, torch.Tensor, torch.Tensor], object]) -> Hook:
    """The update, and more to each parameter: change(name, parameter, what it was before)."""

    def update(k: int, run: Run) -> None:
        before = {n: p.detach().clone() for n, p in run.model.named_parameters()}
        run.optimizer.step()
        with torch.no_grad():
            for name, parameter in run.model.named_parameters():
                change(name, parameter, before[name])

    return update


def keep(name: str, index: Any = ...) -> Hook:
    """The update leaves a parameter, or an entry of it, where it was."""

    def change(leaf: str, parameter: torch.Tensor, before: torch.Tensor) -> None:
        if leaf == name:
            parameter[index] = before[index]

    return update_by(change)


def delayed() -> Hook:
    """Each update is by the gradients of the step before; the first by none."""
    before: list[torch.Tensor] = []

    def update(k: int, run: Run) -> None:
        parameters = list(run.model.parameters())
        grads = [parameter.grad.clone() for parameter in parameters]
        for i, parameter in enumerate(parameters):
            parameter.grad.copy_(before[i]) if before else parameter.grad.zero_()
        run.optimizer.step()
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad.copy_(grad)
        before[:] = grads

    return update


def hidden_momentum(factor: float) -> Hook:
    """Each update goes on by a part of the one before, which no state of the optimizer shows."""
    moves: dict[str, torch.Tensor] = {}

    def change(name: str, parameter: torch.Tensor, before: torch.Tensor) -> None:
        parameter += factor * moves.get(name, torch.zeros(()))
        moves[name] = parameter - before

    return update_by(change)


def forward(wrong: Callable[[Any, torch.Tensor], torch.Tensor]) -> Plant:
    """Another forward pass of the same model: wrong(model, x)."""

    def change(model: Any, *_: Any) -> None:
        model.forward = functools.partial(wrong, model)

    return built(change)


def inputs_by(change: Callable[[torch.Tensor], torch.Tensor]) -> Plant:
    """Other inputs than the batch's."""
    return forward(lambda model, x: type(model).forward(model, change(x)))


def torch_data(**changes: Callable[[torch.Tensor], torch.Tensor]) -> Plant:
    """Other samples: {name: what makes them from those there are}."""

    def wrong(original: Any) -> Any:
        def data(self: Any) -> dict[str, torch.Tensor]:
            right = original.__get__(self, type(self))
            return right | {name: change(right[name]) for name, change in changes.items()}

        return property(data)

    return replaced("data", wrong, twinstep.torch.driver.Driver)


def torch_indices(change: Callable[[int, np.ndarray], np.ndarray]) -> Plant:
    """Other samples in the batches: change(steps before, sample numbers (steps, batch size))."""

    def wrong(right: Callable[..., Any]) -> Callable[..., Any]:
        def take(data: Any, chunk: IndexChunk) -> Any:
            assert chunk.indices is not None
            return right(data, chunk._replace(indices=change(chunk.start, chunk.indices)))

        return take

    return replaced("take", wrong, twinstep.torch.driver)


def torch_batch(step: int, change: Callable[[Any], Any]) -> Plant:
    """Another batch in one step."""

    def wrong(right: Callable[..., Any]) -> Callable[..., Any]:
        def take(data: Any, chunk: IndexChunk) -> Any:
            for k, batch in enumerate(right(data, chunk), chunk.start + 1):
                yield change(batch) if k == step else batch

        return take

    return replaced("take", wrong, twinstep.torch.driver)


def swapped(i: int, j: int) -> Callable[[Any], Any]:
    """Two rows in each other's place."""

    def change(rows: Any) -> Any:
        order = np.arange(len(rows))
        order[[i, j]] = [j, i]
        return rows[order]

    return change


def entry(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Another value of the eighth sample."""

    def changed(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor[7] = change(tensor[7])
        return tensor

    return changed
