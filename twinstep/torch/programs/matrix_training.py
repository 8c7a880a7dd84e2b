"""Muon on a small network of matrices alone: a row of the set `optimizers`.

Mirror: twinstep/jax/programs/matrix_training.py
"""

from typing import Any

import torch
from torch import nn

from twinstep.problems.optimizers import WIDTHS, MatrixTraining
from twinstep.torch.muon import Muon
from twinstep.torch.programs.optimizer_training import Network, train

__all__ = ["Network", "build", "train"]


def build(problem: MatrixTraining) -> tuple[nn.Module, Any, torch.optim.Optimizer]:
    """The model, the loss and the optimizer."""
    model = Network(*WIDTHS, bias=problem.bias)
    optimizer = Muon(model.parameters(), **problem.options, round_to_bfloat16=problem.bfloat16)
    return model, nn.MSELoss(), optimizer
