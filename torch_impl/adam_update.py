"""zero_grad, backward and step with Adam (document 001, section 3).

Mirror: jax_impl/adam_update.py
"""

import torch
from torch import nn

from twinstep.problems.regression import AdamUpdate


def build(problem: AdamUpdate):
    """The model, the loss and the optimizer."""
    model = nn.Linear(10, 1)
    criterion = nn.MSELoss()
    optimizer = torch.optim.Adam(
        model.parameters(), lr=problem.learning_rate, betas=problem.betas, eps=problem.eps
    )
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
    problem = AdamUpdate.from_flags()
    torch.set_default_dtype(getattr(torch, problem.dtype))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(problem.seed)
    model, criterion, optimizer = build(problem)
    model.to(device)
    x = torch.randn(5, 10).to(device)
    y = torch.randn(5, 1).to(device)
    train(model, criterion, optimizer, [(x, y)] * problem.total_steps)


if __name__ == "__main__":
    main()
