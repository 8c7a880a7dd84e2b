"""A linear model by SGD, all points in each update (document 002, its code).

Mirror: jax_impl/sgd_linear_model.py
"""

import numpy as np
import torch
from torch import nn

from twinstep.problems.sgd import SgdLinearModel


class LinearModel(nn.Module):
    """One input feature, one output feature."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, x):
        return self.linear(x)


def build(problem: SgdLinearModel):
    """The model, the loss and the optimizer."""
    model = LinearModel()
    criterion = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=problem.learning_rate)
    return model, criterion, optimizer


def train(model, criterion, optimizer, batches, log=print):
    """The loop. x, y: (100, 1)"""
    for epoch, (x, y) in enumerate(batches):
        optimizer.zero_grad()  # .grad accumulates: cleared before it is filled anew
        output = model(x)
        loss = criterion(output, y)
        loss.backward()
        optimizer.step()  # changes the parameters in place
        if (epoch + 1) % 10 == 0:
            log(f"Epoch [{epoch + 1}/{len(batches)}], Loss: {loss.item():.4f}")


def main():
    """Trains as the document does, and prints its lines."""
    problem = SgdLinearModel.from_flags()
    torch.set_default_dtype(getattr(torch, problem.dtype))
    torch.manual_seed(problem.seed)
    np.random.seed(problem.data_seed)
    points = np.random.rand(100, 1)
    values = 2 * points + 1 + 0.1 * np.random.randn(100, 1)
    x, y = (torch.tensor(a, dtype=torch.get_default_dtype()) for a in (points, values))
    model, criterion, optimizer = build(problem)
    train(model, criterion, optimizer, [(x, y)] * problem.total_steps)
    print("训练后的模型参数:", model.state_dict())


if __name__ == "__main__":
    main()
