"""SparseAdam on an embedding table: one row of the set `optimizers`.

Mirror: twinstep/runs/jax_programs/sparse_training.py
"""

import torch
from torch import nn

from twinstep.problems.optimizers import TABLE, SparseTraining
from twinstep.runs.torch_programs.optimizer_training import loss_fn
from twinstep.torch.state import Batch, Criterion, Step, TrainState


class Network(nn.Module):
    """A table, and tanh of its rows."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(rows, width, sparse=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.embedding(x))


def init(spec: SparseTraining) -> TrainState:
    """The model with the spec's parameters, the criterion and the optimizer."""
    model = Network(*TABLE)
    mse = nn.MSELoss()
    criterion: Criterion = (lambda output, y: -mse(output, y)) if spec.maximize else mse
    optimizer = getattr(torch.optim, spec.optimizer)(model.parameters(), **spec.options)
    return TrainState.create(model, spec.initial_params(), criterion, optimizer)


def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Step]:
    """Forward, loss, backward, update."""
    state.optimizer.zero_grad()  # .grad accumulates: cleared before it is filled anew
    loss = loss_fn(state.model, state.criterion, batch)
    loss.backward()  # .grad is sparse: it has the rows of the batch, whatever is in them
    state.optimizer.step()  # changes those rows, of the parameters and of its state, in place
    return state, Step(loss)
