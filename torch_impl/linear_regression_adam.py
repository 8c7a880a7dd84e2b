"""Linear regression with Adam (document 000, its exercise).

Mirror: jax_impl/linear_regression_adam.py
"""

import torch
from torch import nn

from twinstep.problems.regression import LinearRegressionAdam


def build(problem: LinearRegressionAdam):
    """The model, the loss and the optimizer."""
    model = nn.Linear(1, 1)
    criterion = nn.MSELoss()
    optimizer = torch.optim.Adam(
        model.parameters(), lr=problem.learning_rate, betas=problem.betas, eps=problem.eps
    )
    return model, criterion, optimizer


def train(model, criterion, optimizer, batches, log=print):
    """The loop. x, y: (100, 1)"""
    for epoch, (x, y) in enumerate(batches):
        output = model(x)
        loss = criterion(output, y)
        optimizer.zero_grad()  # .grad accumulates: cleared before it is filled anew
        loss.backward()
        optimizer.step()  # changes the parameters in place
        if (epoch + 1) % 10 == 0:
            log(f"Epoch [{epoch + 1}/{len(batches)}], Loss: {loss.item():.4f}")


def main():
    """Trains as the document does, and prints its lines."""
    problem = LinearRegressionAdam.from_flags()
    torch.set_default_dtype(getattr(torch, problem.dtype))
    torch.manual_seed(problem.seed)
    x = torch.linspace(0, 10, 100).reshape(-1, 1)
    y = 2 * x + 1 + torch.randn(100, 1) * 2  # y = 2x + 1 + noise
    model, criterion, optimizer = build(problem)
    train(model, criterion, optimizer, [(x, y)] * problem.total_steps)


if __name__ == "__main__":
    main()
