"""Clearing gradients before each backward pass (document 003).

Mirror: jax_impl/zero_grad.py
"""

import torch
from torch import nn

from twinstep.problems.backprop import ZeroGrad


def build(problem: ZeroGrad):
    """The model, the loss and the optimizer."""
    model = nn.Sequential(
        nn.Linear(10, 5),
        nn.ReLU(),
        nn.Linear(5, 1),
    )
    criterion = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=problem.learning_rate)
    return model, criterion, optimizer


def train(model, criterion, optimizer, batches, log=print):
    """The loop. x: (5, 10), y: (5, 1)"""
    for epoch, (x, y) in enumerate(batches):
        optimizer.zero_grad()  # .grad accumulates: cleared before it is filled anew
        output = model(x)
        loss = criterion(output, y)
        loss.backward()
        optimizer.step()  # changes the parameters in place
        log(f"Epoch {epoch + 1}, Loss: {loss.item()}")


def main():
    """Trains as the document does, and prints its lines."""
    problem = ZeroGrad.from_flags()
    torch.set_default_dtype(getattr(torch, problem.dtype))
    torch.manual_seed(problem.seed)
    model, criterion, optimizer = build(problem)
    x = torch.randn(5, 10)
    y = torch.randn(5, 1)
    train(model, criterion, optimizer, [(x, y)] * problem.total_steps)


if __name__ == "__main__":
    main()
