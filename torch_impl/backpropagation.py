"""One update of a small network, its gradients looked at (document 004).

Mirror: jax_impl/backpropagation.py
"""

import torch
from torch import nn

from twinstep.problems.backprop import Backpropagation
from twinstep.torch.state import Batch, Criterion, Step, TrainState


class SimpleNetwork(nn.Module):
    """10 inputs, 20 hidden units, 1 output."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Linear(10, 20)
        self.relu = nn.ReLU()
        self.layer2 = nn.Linear(20, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer1(x)
        x = self.relu(x)
        x = self.layer2(x)
        return x


def init(spec: Backpropagation) -> TrainState:
    """The model with the spec's parameters, the criterion and the optimizer."""
    model = SimpleNetwork()
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
