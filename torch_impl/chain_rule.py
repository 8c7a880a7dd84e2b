"""The 1-1-1 network whose gradients document 004 works out by hand.

Mirror: jax_impl/chain_rule.py
"""

import torch
from torch import nn

from twinstep.problems.backprop import ChainRule


class Chain(nn.Module):
    """One hidden neuron, one output neuron, identity activations, no bias."""

    def __init__(self, w1, w2):
        super().__init__()
        self.w1 = nn.Parameter(torch.tensor(w1))
        self.w2 = nn.Parameter(torch.tensor(w2))

    def forward(self, x):
        z1 = self.w1 * x
        return self.w2 * z1


def half_squared_error(output, target):
    """(y - y_hat)^2 / 2, the mean over samples."""
    return torch.mean((target - output) ** 2 / 2)


def build(problem: ChainRule):
    """The model, the loss and the optimizer."""
    model = Chain(problem.w1, problem.w2)
    criterion = half_squared_error
    optimizer = torch.optim.SGD(model.parameters(), lr=problem.learning_rate)
    return model, criterion, optimizer


def train(model, criterion, optimizer, batches, log=print):
    """The loop. x, y: (1,)"""
    for x, y in batches:
        output = model(x)
        loss = criterion(output, y)
        optimizer.zero_grad()  # .grad accumulates: cleared before it is filled anew
        loss.backward()
        optimizer.step()  # changes the parameters in place
        log(f"Loss: {loss.item()}")


def main():
    """Trains as the document does, and prints its lines."""
    problem = ChainRule.from_flags()
    torch.set_default_dtype(getattr(torch, problem.dtype))
    torch.manual_seed(problem.seed)
    model, criterion, optimizer = build(problem)
    x, y = torch.tensor([problem.x]), torch.tensor([problem.y])
    by_hand = problem.gradients_by_hand({"w1": problem.w1, "w2": problem.w2})
    train(model, criterion, optimizer, [(x, y)] * problem.total_steps)
    for name, parameter in model.named_parameters() if problem.total_steps == 1 else ():
        automatic = parameter.grad.item()
        print(f"dL/d{name}: by hand {by_hand[name]}, by automatic differentiation {automatic}")


if __name__ == "__main__":
    main()
