"""Gradients of a small network by automatic differentiation (document 004).

Mirror: jax_impl/backpropagation.py
"""

import torch
from torch import nn

from twinstep.problems.backprop import Backpropagation


class SimpleNetwork(nn.Module):
    """10 inputs, 20 hidden units, 1 output."""

    def __init__(self):
        super().__init__()
        self.layer1 = nn.Linear(10, 20)
        self.relu = nn.ReLU()
        self.layer2 = nn.Linear(20, 1)

    def forward(self, x):
        x = self.layer1(x)
        x = self.relu(x)
        return self.layer2(x)


def build(problem: Backpropagation):
    """The model, the loss and the optimizer."""
    model = SimpleNetwork()
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
    problem = Backpropagation.from_flags()
    torch.set_default_dtype(getattr(torch, problem.dtype))
    torch.manual_seed(problem.seed)
    model, criterion, optimizer = build(problem)
    x = torch.randn(5, 10)
    y = torch.randn(5, 1)
    train(model, criterion, optimizer, [(x, y)] * problem.total_steps)
    for name, parameter in model.named_parameters() if problem.total_steps == 1 else ():
        grad = parameter.grad
        print(f"{name}.grad: {tuple(grad.shape)}, largest entry {grad.abs().max().item():.6f}")


if __name__ == "__main__":
    main()
