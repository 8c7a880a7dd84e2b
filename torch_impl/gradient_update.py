"""The basic flow: forward, loss, backward, one update (document 000).

Mirror: jax_impl/gradient_update.py
"""

import torch
from torch import nn

from twinstep.problems.regression import GradientUpdate
from twinstep.torch.state import Batch, Criterion, Step, TrainState


def init(spec: GradientUpdate) -> TrainState:
    """The model with the spec's parameters, the criterion and the optimizer."""
    model = nn.Linear(10, 1)
    criterion = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=spec.learning_rate)
    return TrainState.create(model, spec.initial_params(), criterion, optimizer)


def loss_fn(model: nn.Module, criterion: Criterion, batch: Batch) -> torch.Tensor:
    """The loss of a batch, (). x: (5, 10), y: (5, 1)"""
    output = model(batch["x"])
    return criterion(output, batch["y"])


def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Step]:
    """Forward, loss, backward, update."""
    loss = loss_fn(state.model, state.criterion, batch)
    state.optimizer.zero_grad()  # .grad accumulates: cleared before it is filled anew
    loss.backward()
    state.optimizer.step()  # changes the parameters in place
    return state, Step(loss)
