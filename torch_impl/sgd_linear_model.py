"""A linear model by SGD (document 002); a batch is all points, or one.

Mirror: jax_impl/sgd_linear_model.py
"""

import torch
from torch import nn

from twinstep.problems.sgd import SgdLinearModel
from twinstep.torch.state import Batch, Criterion, Step, TrainState


class LinearModel(nn.Module):
    """One input feature, one output feature."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


def init(spec: SgdLinearModel) -> TrainState:
    """The model with the spec's parameters, the criterion and the optimizer."""
    model = LinearModel()
    criterion = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=spec.learning_rate)
    return TrainState.create(model, spec.initial_params(), criterion, optimizer)


def loss_fn(model: nn.Module, criterion: Criterion, batch: Batch) -> torch.Tensor:
    """The loss of a batch, (). x, y: (N, 1)"""
    output = model(batch["x"])
    return criterion(output, batch["y"])


def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Step]:
    """Forward, loss, backward, update."""
    loss = loss_fn(state.model, state.criterion, batch)
    state.optimizer.zero_grad()  # .grad accumulates: cleared before it is filled anew
    loss.backward()
    state.optimizer.step()  # changes the parameters in place
    return state, Step(loss)
