"""The basic flow: forward, loss, backward, one update (document 000).

Mirror: jax_impl/gradient_update.py
"""

import torch
from torch import nn

from twinstep.problems.regression import GradientUpdate


def build(problem: GradientUpdate):
    """The model, the loss and the optimizer."""
    model = nn.Linear(10, 1)
    criterion = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=problem.learning_rate)
    return model, criterion, optimizer


def train(model, criterion, optimizer, batches, log=print):
    """The loop. x: (5, 10), y: (5, 1)"""
    for x, y in batches:
        output = model(x)
        loss = criterion(output, y)
        optimizer.zero_grad()  # .grad accumulates: cleared before it is filled anew
        loss.backward()
        optimizer.step()  # changes the parameters in place
        log(f"Loss: {loss.item()}")


def main():
    """Trains as the document does, and prints its lines."""
    problem = GradientUpdate.from_flags()
    torch.set_default_dtype(getattr(torch, problem.dtype))
    torch.manual_seed(problem.seed)
    model, criterion, optimizer = build(problem)
    x = torch.randn(5, 10)
    y = torch.randn(5, 1)
    train(model, criterion, optimizer, [(x, y)] * problem.total_steps)


if __name__ == "__main__":
    main()
