"""Clearing gradients before each backward pass (document 003).

Mirror: jax_impl/zero_grad.py
"""

from typing import Any

import torch
from torch import nn

from twinstep.problems.backprop import ZeroGrad


def build(problem: ZeroGrad) -> tuple[nn.Module, Any, torch.optim.Optimizer]:
    """The model, the loss and the optimizer."""
    model = nn.Sequential(
        nn.Linear(10, 5),
        nn.ReLU(),
        nn.Linear(5, 1),
    )
    criterion = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=problem.learning_rate)
    return model, criterion, optimizer


def train(model: nn.Module, criterion: Any, optimizer: Any, batches: Any, log: Any = print) -> None:
    """The loop. x: (5, 10), y: (5, 1)"""
    for epoch, (x, y) in enumerate(batches):
        optimizer.zero_grad()  # .grad accumulates: cleared before it is filled anew
        output = model(x)
        loss = criterion(output, y)
        loss.backward()
        optimizer.step()  # changes the parameters in place
        log(f"Epoch {epoch + 1}, Loss: {loss.item()}")


def load_data(problem: ZeroGrad) -> tuple[torch.Tensor, torch.Tensor]:
    """What the document trains on, drawn as it draws it."""
    x = torch.randn(5, 10)
    y = torch.randn(5, 1)
    return x, y


def main() -> None:
    """Trains as the document does, and prints its lines."""
    problem = ZeroGrad.from_flags()
    torch.set_default_dtype(getattr(torch, problem.dtype))
    torch.manual_seed(problem.seed)
    model, criterion, optimizer = build(problem)
    x, y = load_data(problem)
    train(model, criterion, optimizer, [(x, y)] * problem.total_steps)


if __name__ == "__main__":
    main()
