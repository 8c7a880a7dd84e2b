"""Muon on a small network of matrices alone: a row of the set `optimizers`.

Mirror: twinstep/torch/programs/matrix_training.py
"""

from typing import Any

import optax
from flax import nnx

from twinstep.jax.layout import load_params, module_layout
from twinstep.jax.nn.functional import mse_loss
from twinstep.jax.optim import in_torch_layout, muon
from twinstep.jax.programs.optimizer_training import (
    Network,
    init_state,
    make_train_step,
    train,
)
from twinstep.problems.optimizers import WIDTHS, MatrixTraining

__all__ = ["Network", "build", "init_state", "make_train_step", "train"]


def build(problem: MatrixTraining) -> tuple[nnx.Module, Any, optax.GradientTransformation]:
    """The model, the loss and the optimizer."""
    model = Network(*WIDTHS, bias=problem.bias)
    load_params(model, problem.initial_params())
    optimizer = in_torch_layout(  # which looks at rows and columns
        muon(**problem.options, round_to_bfloat16=problem.bfloat16), module_layout(model)
    )
    return model, mse_loss, optimizer
