"""Any optimizer of torch.optim on a small network: one row of the set `optimizers`.

Mirror: twinstep/runs/jax_programs/optimizer_training.py
"""

import torch
from torch import nn

from twinstep.problems.optimizers import WIDTHS, OptimizerTraining
from twinstep.torch.state import Batch, Criterion, Step, TrainState


class Network(nn.Module):
    """Three linear layers with tanh between them."""

    def __init__(
        self, inputs: int, first: int, second: int, outputs: int, bias: bool = True
    ) -> None:
        super().__init__()
        self.layer1 = nn.Linear(inputs, first, bias)
        self.layer2 = nn.Linear(first, second, bias)
        self.layer3 = nn.Linear(second, outputs, bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.layer1(x))
        x = torch.tanh(self.layer2(x))
        return self.layer3(x)


def init(spec: OptimizerTraining) -> TrainState:
    """The model with the spec's parameters, the criterion and the optimizer."""
    model = Network(*WIDTHS)
    mse = nn.MSELoss()
    criterion: Criterion = (lambda output, y: -mse(output, y)) if spec.maximize else mse
    optimizer = getattr(torch.optim, spec.optimizer)(model.parameters(), **spec.options)
    return TrainState.create(model, spec.initial_params(), criterion, optimizer)


def loss_fn(model: nn.Module, criterion: Criterion, batch: Batch) -> torch.Tensor:
    """The loss of a batch, (). x: (N, ...), y: (N, outputs)"""
    output = model(batch["x"])
    return criterion(output, batch["y"])


def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Step]:
    """Forward, loss, backward, update."""
    state.optimizer.zero_grad()  # .grad accumulates: cleared before it is filled anew
    loss = loss_fn(state.model, state.criterion, batch)
    loss.backward()
    state.optimizer.step()  # changes the parameters in place
    return state, Step(loss)
