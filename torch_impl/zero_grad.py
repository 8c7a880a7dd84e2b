"""Clearing gradients before each backward pass, or letting them pile up (document 003).

Mirror: jax_impl/zero_grad.py
"""

import torch
from torch import nn

from twinstep.problems.backprop import ZeroGrad
from twinstep.torch.state import Batch, Criterion, Step, TrainState


def network() -> nn.Module:
    """10 inputs, 5 hidden units, 1 output."""
    return nn.Sequential(
        nn.Linear(10, 5),
        nn.ReLU(),
        nn.Linear(5, 1),
    )


def init(spec: ZeroGrad) -> TrainState:
    """The model with the spec's parameters, the criterion and the optimizer."""
    model = network()
    criterion = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=spec.learning_rate)
    return TrainState.create(
        model, spec.initial_params(), criterion, optimizer, keep_grads=not spec.zero_grad
    )


def loss_fn(model: nn.Module, criterion: Criterion, batch: Batch) -> torch.Tensor:
    """The loss of a batch, (). x: (5, 10), y: (5, 1)"""
    output = model(batch["x"])
    return criterion(output, batch["y"])


def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Step]:
    """Forward, loss, backward, update."""
    if not state.keep_grads:
        state.optimizer.zero_grad()
    loss = loss_fn(state.model, state.criterion, batch)
    loss.backward()  # adds to .grad
    state.optimizer.step()
    return state, Step(loss)
