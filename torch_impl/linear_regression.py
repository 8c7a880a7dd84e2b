"""Linear regression, full batch, with the loss and optimizer of the spec (document 000).

Mirror: jax_impl/linear_regression.py
"""

import torch
from torch import nn

from twinstep.problems.regression import LinearRegression
from twinstep.torch.state import Batch, Criterion, Step, TrainState

CRITERIA = {"mse": nn.MSELoss(), "l1": nn.L1Loss()}


def init(spec: LinearRegression) -> TrainState:
    """The model with the spec's parameters, the criterion and the optimizer."""
    model = nn.Linear(1, 1)
    criterion = CRITERIA[spec.loss]
    optimizer = (
        torch.optim.Adam(model.parameters(), lr=spec.learning_rate, betas=spec.betas, eps=spec.eps)
        if spec.optimizer == "adam"
        else torch.optim.SGD(model.parameters(), lr=spec.learning_rate)
    )
    return TrainState.create(model, spec.initial_params(), criterion, optimizer)


def loss_fn(model: nn.Module, criterion: Criterion, batch: Batch) -> torch.Tensor:
    """The loss of a batch, (). x, y: (100, 1)"""
    output = model(batch["x"])
    return criterion(output, batch["y"])


def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Step]:
    """Forward, loss, backward, update."""
    loss = loss_fn(state.model, state.criterion, batch)
    state.optimizer.zero_grad()  # .grad accumulates: cleared before it is filled anew
    loss.backward()
    state.optimizer.step()  # changes the parameters in place
    return state, Step(loss)
