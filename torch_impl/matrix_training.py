"""Muon on a small network of matrices alone: a row of the set `optimizers`.

Mirror: jax_impl/matrix_training.py
"""

from torch import nn

from torch_impl.muon import Muon
from torch_impl.optimizer_training import Network, loss_fn, train_step
from torch_impl.state import TrainState
from twinstep.specs.optimizers import WIDTHS, MatrixTraining

__all__ = ["Network", "init", "loss_fn", "train_step"]


def init(spec: MatrixTraining) -> TrainState:
    """The model with the spec's parameters, the criterion and the optimizer."""
    model = Network(*WIDTHS, bias=spec.bias)
    optimizer = Muon(model.parameters(), **spec.options, round_to_bfloat16=spec.bfloat16)
    return TrainState.create(model, spec.initial_params(), nn.MSELoss(), optimizer)
