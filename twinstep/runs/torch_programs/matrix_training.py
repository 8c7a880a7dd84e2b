"""Muon on a small network of matrices alone: a row of the set `optimizers`.

Mirror: twinstep/runs/jax_programs/matrix_training.py
"""

from torch import nn

from twinstep.problems.optimizers import WIDTHS, MatrixTraining
from twinstep.runs.torch_programs.optimizer_training import Network, loss_fn, train_step
from twinstep.torch.muon import Muon
from twinstep.torch.state import TrainState

__all__ = ["Network", "init", "loss_fn", "train_step"]


def init(spec: MatrixTraining) -> TrainState:
    """The model with the spec's parameters, the criterion and the optimizer."""
    model = Network(*WIDTHS, bias=spec.bias)
    optimizer = Muon(model.parameters(), **spec.options, round_to_bfloat16=spec.bfloat16)
    return TrainState.create(model, spec.initial_params(), nn.MSELoss(), optimizer)
