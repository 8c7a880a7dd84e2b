"""An optimizer of torch.optim whose step evaluates the loss itself: LBFGS, on a small network.

Mirror: twinstep/jax/programs/closure_training.py
"""

from functools import partial
from typing import Any

import torch
from torch import nn

from twinstep.problems.closures import ClosureTraining
from twinstep.problems.optimizers import WIDTHS
from twinstep.torch.programs.optimizer_training import Network, loss_of


def build(problem: ClosureTraining) -> tuple[nn.Module, Any, torch.optim.Optimizer]:
    """The model, the loss and the optimizer."""
    model = Network(*WIDTHS)
    optimizer = getattr(torch.optim, problem.optimizer)(model.parameters(), **problem.options)
    return model, loss_of(problem), optimizer


def train(model: nn.Module, criterion: Any, optimizer: Any, batches: Any, log: Any = print) -> None:
    """The loop. batches: x, y of each epoch, (N, ...)"""

    def closure(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()  # .grad accumulates: cleared before it is filled anew
        loss: torch.Tensor = criterion(model(x), y)
        loss.backward()
        return loss

    for batch in batches:
        optimizer.step(partial(closure, *batch))  # forward, backward, as often as it likes
