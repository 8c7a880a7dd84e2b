"""The 1-1-1 network whose gradients document 004 works out by hand.

Mirror: jax_impl/chain_rule.py
"""

import torch
from torch import nn

from twinstep.problems.backprop import ChainRule
from twinstep.torch.state import Batch, Criterion, Step, TrainState


class Chain(nn.Module):
    """One hidden neuron, one output neuron, identity activations, no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.zeros(()))
        self.w2 = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z1 = self.w1 * x
        return self.w2 * z1


def half_squared_error(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """(y - y_hat)^2 / 2, the mean over samples."""
    return torch.mean((target - output) ** 2 / 2)


def init(spec: ChainRule) -> TrainState:
    """The model with the spec's parameters, the criterion and the optimizer."""
    model = Chain()
    criterion = half_squared_error
    optimizer = torch.optim.SGD(model.parameters(), lr=spec.learning_rate)
    return TrainState.create(model, spec.initial_params(), criterion, optimizer)


def loss_fn(model: nn.Module, criterion: Criterion, batch: Batch) -> torch.Tensor:
    """The loss of a batch, (). x, y: (1,)"""
    output = model(batch["x"])
    return criterion(output, batch["y"])


def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Step]:
    """Forward, loss, backward, update."""
    loss = loss_fn(state.model, state.criterion, batch)
    state.optimizer.zero_grad()  # .grad accumulates: cleared before it is filled anew
    loss.backward()
    state.optimizer.step()  # changes the parameters in place
    return state, Step(loss)
