"""One Adam over two networks (document 001, section 2).

Mirror: jax_impl/parameter_groups.py
"""

import torch
from torch import nn

from twinstep.problems.groups import ParameterGroups


class Networks(nn.Module):
    """A GRU reads the sequence; the model reads the GRU's last output."""

    def __init__(self):
        super().__init__()
        self.model = nn.Linear(16, 1)
        self.gru = nn.GRU(10, 16, batch_first=True)

    def forward(self, x):
        h0 = torch.zeros(1, x.size(0), 16, device=x.device)
        return self.model(self.gru(x, h0)[0][:, -1, :])


def build(problem: ParameterGroups):
    """The model, the loss and the optimizer."""
    model = Networks()
    criterion = nn.MSELoss()
    groups = [{"params": model.model.parameters()}, {"params": model.gru.parameters()}]
    rate, betas, eps = problem.learning_rate, problem.betas, problem.eps
    optimizer = torch.optim.Adam(groups, lr=rate, betas=betas, eps=eps)
    return model, criterion, optimizer


def train(model, criterion, optimizer, batches, log=print):
    """The loop. x: (5, 7, 10), y: (5, 1)"""
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
    problem = ParameterGroups.from_flags()
    torch.set_default_dtype(getattr(torch, problem.dtype))
    torch.manual_seed(problem.seed)
    model, criterion, optimizer = build(problem)
    x = torch.randn(5, 7, 10)  # (batch, time, features)
    y = torch.randn(5, 1)
    train(model, criterion, optimizer, [(x, y)] * problem.total_steps)


if __name__ == "__main__":
    main()
