"""torch.optim's optimizers on a small network: the rows of the set `optimizers`.

Mirror: twinstep/jax/programs/optimizer_training.py
"""

from typing import Any

import torch
from torch import nn

from twinstep.problems.optimizers import WIDTHS, OptimizerTraining


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
        outputs: torch.Tensor = self.layer3(x)
        return outputs


def loss_of(problem: OptimizerTraining) -> Any:
    """The criterion: the squared error, or what is largest where that is smallest."""
    mse = nn.MSELoss()
    return (lambda output, y: -mse(output, y)) if problem.maximize else mse


def build(problem: OptimizerTraining) -> tuple[nn.Module, Any, torch.optim.Optimizer]:
    """The model, the loss and the optimizer."""
    model = Network(*WIDTHS)
    optimizer = getattr(torch.optim, problem.optimizer)(model.parameters(), **problem.options)
    return model, loss_of(problem), optimizer


def train(model: nn.Module, criterion: Any, optimizer: Any, batches: Any, log: Any = print) -> None:
    """The loop. batches: of each epoch what gives its x, y: (N, ...)"""
    for loader in batches:
        for x, y in loader:
            optimizer.zero_grad()  # .grad accumulates: cleared before it is filled anew
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()  # changes the parameters in place
