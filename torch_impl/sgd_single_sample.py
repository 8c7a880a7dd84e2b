"""A linear model by SGD, one sample an update (document 002, its text).

Mirror: jax_impl/sgd_single_sample.py
"""

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from twinstep.problems.sgd import SgdSingleSample


class LinearModel(nn.Module):
    """One input feature, one output feature."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, x):
        return self.linear(x)


def build(problem: SgdSingleSample):
    """The model, the loss and the optimizer."""
    model = LinearModel()
    criterion = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=problem.learning_rate)
    return model, criterion, optimizer


def train(model, criterion, optimizer, batches, log=print):
    """The loop. batches: of each epoch what gives its x, y: (1, 1)"""
    for epoch, loader in enumerate(batches):
        for x, y in loader:
            optimizer.zero_grad()  # .grad accumulates: cleared before it is filled anew
            output = model(x)
            loss = criterion(output, y)
            loss.backward()
            optimizer.step()  # changes the parameters in place
        if (epoch + 1) % 10 == 0:
            log(f"Epoch [{epoch + 1}/{len(batches)}], Loss: {loss.item():.4f}")


def main():
    """Trains as the document does, and prints its lines."""
    problem = SgdSingleSample.from_flags()
    torch.set_default_dtype(getattr(torch, problem.dtype))
    torch.manual_seed(problem.seed)
    np.random.seed(problem.data_seed)
    points = np.random.rand(100, 1)
    values = 2 * points + 1 + 0.1 * np.random.randn(100, 1)
    x, y = (torch.tensor(a, dtype=torch.get_default_dtype()) for a in (points, values))
    model, criterion, optimizer = build(problem)
    loader = DataLoader(TensorDataset(x, y), batch_size=1, shuffle=True)
    train(model, criterion, optimizer, [loader] * problem.epochs)
    print("训练后的模型参数:", model.state_dict())


if __name__ == "__main__":
    main()
