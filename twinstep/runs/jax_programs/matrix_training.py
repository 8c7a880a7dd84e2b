"""Muon on a small network of matrices alone: a row of the set `optimizers`.

Mirror: twinstep/runs/torch_programs/matrix_training.py
"""

from twinstep.jax.layout import module_layout
from twinstep.jax.nn.functional import mse_loss
from twinstep.jax.optim import in_torch_layout, muon
from twinstep.jax.state import TrainState
from twinstep.problems.optimizers import WIDTHS, MatrixTraining
from twinstep.runs.jax_programs.optimizer_training import Network, loss_fn, train_step

__all__ = ["Network", "init", "loss_fn", "train_step"]


def init(spec: MatrixTraining) -> TrainState:
    """The model with the spec's parameters, the criterion and the optimizer."""
    model = Network(*WIDTHS, bias=spec.bias)
    optimizer = in_torch_layout(  # which scales by rows and columns
        muon(**spec.options, round_to_bfloat16=spec.bfloat16), module_layout(model)
    )
    return TrainState.create(model, spec.initial_params(), mse_loss, optimizer)
