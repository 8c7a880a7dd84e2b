"""How a fault is planted on the PyTorch side.

Hooks get the number of the step, from 1. Every plant that takes a hook wraps the example's own code
and changes nothing but what the hook changes.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
import twinstep.torch.recording
from torch import nn
from torch.nn import functional

from planted.pairs import Hook, Plant
from twinstep import Spec
from twinstep.problems.batches import IndexChunk


def torch_optimizer(kind: str, become: str | None = None, **changes: Any) -> Plant:
    """torch.optim's `kind` gets other arguments, or becomes another one.

    changes: {argument: value, or what makes it from the value it has}
    """

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        original = getattr(torch.optim, become or kind)

        def make(params: Any, **options: Any) -> Any:
            for name, change in changes.items():
                options[name] = change(options[name]) if callable(change) else change
            return original(params, **options)

        patch.setattr(torch.optim, kind, make)

    return plant


class Meddler:
    """An optimizer of which another one's hooks take part."""

    def __init__(self, k: int, state: Any, graded: Hook, update: Hook) -> None:
        self._arguments, self._graded, self._update = (k, state), graded, update
        self.zero_grad = state.optimizer.zero_grad

    def step(self) -> None:
        with torch.no_grad():
            self._graded(*self._arguments)
        self._update(*self._arguments)


def _nothing(k: int, state: Any) -> None:
    """The hook that does nothing."""


def _update(k: int, state: Any) -> None:
    """The update as it is."""
    state.optimizer.step()


def in_torch_step(
    *,
    start: Hook = _nothing,
    graded: Hook = _nothing,
    update: Hook = _update,
    end: Hook = _nothing,
    report: Callable[[int, torch.Tensor], torch.Tensor] = lambda k, loss: loss,
) -> Plant:
    """Something more in the training step.

    start: before the forward pass; graded: between backward pass and update; update: in its place;
    end: after it; report: what is recorded as the loss
    """

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        original = example.train_step
        made: dict[nn.Module, int] = {}  # a run's steps; a judge may run more than one

        def train_step(state: Any, batch: Any) -> Any:
            k = made[state.model] = made.get(state.model, 0) + 1
            with torch.no_grad():
                start(k, state)
            optimizer: Any = Meddler(k, state, graded, update)
            _, step = original(dataclasses.replace(state, optimizer=optimizer), batch)
            with torch.no_grad():
                end(k, state)
                return state, step._replace(loss=report(k, step.loss))

        patch.setattr(example, "train_step", train_step)

    return plant


def at(step: int, hook: Hook) -> Hook:
    """A hook in one step only."""
    return lambda k, state: hook(k, state) if k == step else None


def update_at(step: int, hook: Hook) -> Hook:
    """Another update in one step only."""
    return lambda k, state: hook(k, state) if k == step else _update(k, state)


def scale_grads(factor: float, *only: str) -> Hook:
    """Multiplies the gradients of all parameters, or of some."""

    def hook(k: int, state: Any) -> None:
        for name, parameter in state.model.named_parameters():
            if not only or name in only:
                parameter.grad *= factor

    return hook


def scale_params(factor: float) -> Hook:
    """Multiplies the parameters."""

    def hook(k: int, state: Any) -> None:
        for parameter in state.model.parameters():
            parameter *= factor

    return hook


def round_params(k: int, state: Any) -> None:
    """Rounds the parameters to float32, in which they don't stay."""
    for parameter in state.model.parameters():
        parameter.copy_(parameter.float())


def clip(most: float) -> Hook:
    """Clips the gradients by their norm."""

    def hook(k: int, state: Any) -> None:
        nn.utils.clip_grad_norm_(state.model.parameters(), most)

    return hook


def clear_all(k: int, state: Any) -> None:
    """Clears every gradient, also those that the optimizer was not given."""
    state.model.zero_grad()


def forget_state(k: int, state: Any) -> None:
    """The optimizer starts anew."""
    state.optimizer.state.clear()


def forget_first_moment(k: int, state: Any) -> None:
    """Adam forgets its first moment, and nothing else."""
    for parameter in state.model.parameters():
        state.optimizer.state[parameter]["exp_avg"].zero_()


def update_twice(k: int, state: Any) -> None:
    """The update is made twice."""
    state.optimizer.step()
    state.optimizer.step()


def decaying_rate(factor: float) -> Hook:
    """A learning rate that falls after each update."""

    def update(k: int, state: Any) -> None:
        state.optimizer.step()
        for group in state.optimizer.param_groups:
            group["lr"] *= factor

    return update


def keep(name: str, index: Any = ...) -> Hook:
    """The update leaves a parameter, or an entry of it, where it was."""

    def update(k: int, state: Any) -> None:
        parameter = dict(state.model.named_parameters())[name]
        before = parameter.detach().clone()
        state.optimizer.step()
        with torch.no_grad():
            parameter[index] = before[index]

    return update


def delayed() -> Hook:
    """Each update is by the gradients of the step before; the first by none."""
    before: list[torch.Tensor] = []

    def update(k: int, state: Any) -> None:
        parameters = list(state.model.parameters())
        grads = [parameter.grad.clone() for parameter in parameters]
        for i, parameter in enumerate(parameters):
            parameter.grad.copy_(before[i]) if before else parameter.grad.zero_()
        state.optimizer.step()
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad.copy_(grad)
        before[:] = grads

    return update


def hidden_momentum(factor: float) -> Hook:
    """Each update goes on by a part of the one before, which no state of the optimizer shows."""
    moves: dict[str, torch.Tensor] = {}

    def update(k: int, state: Any) -> None:
        before = {n: p.detach().clone() for n, p in state.model.named_parameters()}
        state.optimizer.step()
        with torch.no_grad():
            for name, parameter in state.model.named_parameters():
                parameter += factor * moves.get(name, torch.zeros(()))
                moves[name] = parameter - before[name]

    return update


def move_gru(k: int, state: Any) -> None:
    """The GRU, which no optimizer was given, follows its gradients."""
    for parameter in state.model.gru.parameters():
        parameter -= 1e-3 * parameter.grad


def torch_state(change: Callable[[Any], Any]) -> Plant:
    """Another state before the first step: change(TrainState) alters it or gives a new one."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        init = example.init

        def wrong(spec: Spec) -> Any:
            state = init(spec)
            return change(state) or state

        patch.setattr(example, "init", wrong)

    return plant


def forward(wrong: Callable[[Any, torch.Tensor], torch.Tensor]) -> Plant:
    """Another forward pass of the same model: wrong(model, x)."""

    def change(state: Any) -> None:
        state.model.forward = functools.partial(wrong, state.model)

    return torch_state(change)


def torch_data(**changes: Callable[[torch.Tensor], torch.Tensor]) -> Plant:
    """Other samples: {name: what makes them from those there are}."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        original = twinstep.torch.recording.to_device

        def to_device(spec: Spec) -> dict[str, torch.Tensor]:
            data = original(spec)
            return data | {name: change(data[name]) for name, change in changes.items()}

        patch.setattr(twinstep.torch.recording, "to_device", to_device)

    return plant


def torch_indices(change: Callable[[int, np.ndarray], np.ndarray]) -> Plant:
    """Other samples in the batches: change(steps before, sample numbers (steps, batch size))."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        original = twinstep.torch.recording.take

        def take(data: Any, chunk: IndexChunk) -> Any:
            assert chunk.indices is not None
            return original(data, chunk._replace(indices=change(chunk.start, chunk.indices)))

        patch.setattr(twinstep.torch.recording, "take", take)

    return plant


def torch_batch(step: int, change: Callable[[Any], Any]) -> Plant:
    """Another batch in one step."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        original = twinstep.torch.recording.take

        def take(data: Any, chunk: IndexChunk) -> Any:
            for k, batch in enumerate(original(data, chunk), chunk.start + 1):
                yield change(batch) if k == step else batch

        patch.setattr(twinstep.torch.recording, "take", take)

    return plant


def swapped(i: int, j: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Two samples in each other's place."""

    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor[[i, j]] = tensor[[j, i]]
        return tensor

    return change


def entry(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Another value of the eighth sample."""

    def changed(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor[7] = change(tensor[7])
        return tensor

    return changed


def gru(
    *,
    outside: bool = False,
    order: str = "rzn",
    keeps: Literal["h", "n"] = "h",
    merged: bool = False,
    hands_on: Callable[[torch.Tensor], torch.Tensor] = lambda h: h,
) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    """`parameter_groups`'s forward pass, its GRU written out; without arguments, as it is.

    outside: b_hn stands outside the reset gate's product; order: of the gates in the weights
    keeps: what the update gate keeps, the old state or the new; merged: one of two biases trains
    hands_on: what becomes of a state before the next time step
    """

    def forward(model: Any, x: torch.Tensor) -> torch.Tensor:
        w_ih, w_hh, b_ih, b_hh = model.gru.parameters()
        size = w_hh.shape[1]
        h = torch.zeros(len(x), size)
        for x_t in x.unbind(1):
            i = functional.linear(x_t, w_ih, b_ih).split(size, 1)
            bias = b_hh.detach() + 0 * b_hh if merged else b_hh
            hidden = functional.linear(h, w_hh, bias).split(size, 1)
            b_h = bias.split(size)
            gates = {gate: (i[k], hidden[k], b_h[k]) for k, gate in enumerate(order)}
            r, z = (torch.sigmoid(gates[gate][0] + gates[gate][1]) for gate in "rz")
            i_n, h_n, b_hn = gates["n"]
            n = torch.tanh(i_n + r * (h_n - b_hn) + b_hn if outside else i_n + r * h_n)
            h = hands_on((1 - z) * n + z * h if keeps == "h" else (1 - z) * h + z * n)
        return model.model(h)

    return forward


def cut_in_time(model: Any, x: torch.Tensor) -> torch.Tensor:
    """`mnist_rnn`'s forward pass, its backward pass cut after the first half of the rows."""
    half = x.shape[1] // 2
    _, h = model.rnn(x[:, :half])
    out, _ = model.rnn(x[:, half:], h.detach())
    return model.fc(out[:, -1])


def time_first(model: Any, x: torch.Tensor) -> torch.Tensor:
    """`mnist_rnn`'s forward pass without batch_first: the images are taken for time steps."""
    out, _ = model.rnn(x.transpose(0, 1))
    return model.fc(out.transpose(0, 1)[:, -1])


def transposed_hidden(model: Any, x: torch.Tensor) -> torch.Tensor:
    """`mnist_rnn`'s forward pass with weight_hh_l0 transposed."""
    w_ih, w_hh, b_ih, b_hh = model.rnn.parameters()
    return model.fc(
        torch.func.functional_call(
            model.rnn,
            {
                "weight_ih_l0": w_ih,
                "weight_hh_l0": w_hh.T.contiguous(),
                "bias_ih_l0": b_ih,
                "bias_hh_l0": b_hh,
            },
            (x,),
        )[0][:, -1]
    )
