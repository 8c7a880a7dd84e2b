"""Muon on a small network of matrices alone: a row of the set `optimizers`.

Mirror: torch_impl/matrix_training.py
"""

from jax_impl.conversion import module_layout
from jax_impl.losses import mse_loss
from jax_impl.optimizer_training import Network, loss_fn, train_step
from jax_impl.optimizers import in_torch_layout, muon
from jax_impl.state import TrainState
from twinstep.specs.optimizers import WIDTHS, MatrixTraining

__all__ = ["Network", "init", "loss_fn", "train_step"]


def init(spec: MatrixTraining) -> TrainState:
    """The model with the spec's parameters, the criterion and the optimizer."""
    model = Network(*WIDTHS, bias=spec.bias)
    optimizer = in_torch_layout(  # which scales by rows and columns
        muon(**spec.options, round_to_bfloat16=spec.bfloat16), module_layout(model)
    )
    return TrainState.create(model, spec.initial_params(), mse_loss, optimizer)
