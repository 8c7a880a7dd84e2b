"""SparseAdam on an embedding table: one row of the set `optimizers`.

Mirror: twinstep/jax/programs/sparse_training.py
"""

from typing import Any

import torch
from torch import nn

from twinstep.problems.optimizers import TABLE, SparseTraining
from twinstep.torch.programs.optimizer_training import loss_of, train

__all__ = ["Network", "build", "train"]


class Network(nn.Module):
    """A table, and tanh of its rows."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        # .grad is sparse: it has the rows of the batch, whatever is in them; those are updated
        self.embedding = nn.Embedding(rows, width, sparse=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.embedding(x))


def build(problem: SparseTraining) -> tuple[nn.Module, Any, torch.optim.Optimizer]:
    """The model, the loss and the optimizer."""
    model = Network(*TABLE)
    optimizer = getattr(torch.optim, problem.optimizer)(model.parameters(), **problem.options)
    return model, loss_of(problem), optimizer
