"""Faults in what is differentiated: gradients, losses."""

import jax
import jax.numpy as jnp
from torch import nn

from faults.models_torch import cut_in_time, gru
from faults.plants_anywhere import criterion, together, twin
from faults.plants_jax import after_jax_step, jax_criterion, jax_grads
from faults.plants_torch import (
    at,
    clear_all,
    clip,
    forward,
    in_torch_step,
    scale_grads,
)
from faults.table import DIGITS, GROUPS, LINEAR, PILED_UP, RELU, SELECTIVE, ZERO_GRAD, Fault, found

GRADIENTS = [
    Fault(
        "zero_grad forgotten",
        "torch",
        ZERO_GRAD,
        twin("without_zero_grad", "train"),
        found(2, "raw_grads", "0.weight"),
    ),
    Fault(
        "zero_grad forgotten in JAX",
        "jax",
        ZERO_GRAD,
        twin("without_zero_grad", "init_state", "make_train_step"),
        found(2, "raw_grads", "0.weight"),
    ),
    Fault(
        "a zero_grad too many",
        "torch",
        PILED_UP,
        twin("zero_grad", "train"),
        found(2, "raw_grads", "0.weight"),
    ),
    Fault(
        "a zero_grad too many in JAX",
        "jax",
        PILED_UP,
        twin("zero_grad", "init_state", "make_train_step"),
        found(2, "raw_grads", "0.weight"),
    ),
    Fault(
        "gradients cleared between backward pass and update",
        "torch",
        ZERO_GRAD,
        in_torch_step(graded=clear_all),
        found(1, "grads", "0.weight"),
    ),
    Fault(
        "gradients cleared of a network that the optimizer was not given",
        "torch",
        SELECTIVE,
        in_torch_step(start=clear_all),
        found(2, "raw_grads", "gru.weight_ih_l0"),
    ),
    Fault(
        "gradients clipped",
        "torch",
        LINEAR,
        in_torch_step(graded=clip(1.0)),
        found(1, "grads", "weight"),
    ),
    Fault(
        "gradients 1e-10 off",
        "torch",
        LINEAR,
        in_torch_step(graded=scale_grads(1 + 1e-10)),
        found(1, "grads", "weight"),
    ),
    Fault(
        "gradient of the last bias 1e-10 off in JAX",
        "jax",
        RELU,
        jax_grads(
            lambda grads: jax.tree_util.tree_map_with_path(
                lambda path, g: g * (1 + 1e-10) if "layer2" in str(path) and g.ndim == 1 else g,
                grads,
            )
        ),
        found(1, "raw_grads", "layer2.bias"),
    ),
    Fault(
        "gradient of the bias 1e-10 off at step 6",
        "torch",
        LINEAR,
        in_torch_step(graded=at(6, scale_grads(1 + 1e-10, "bias"))),
        found(6, "grads", "bias"),
    ),
    Fault(
        "gradients that pile up not carried on in JAX",
        "jax",
        PILED_UP,
        after_jax_step(lambda before, state: (*state[:2], before[2])),
        found(1, "raw_grads", "0.weight"),  # what is kept after step 1 is not its gradient
    ),
    Fault(
        "gradients reported 1e-9 off in JAX",
        "jax",
        LINEAR,
        after_jax_step(
            lambda before, state: (
                state[0],
                state[1]._replace(grads=jax.tree.map(lambda g: g * (1 + 1e-9), state[1].grads)),
            )
        ),
        found(1, "raw_grads", "weight"),
    ),
    Fault(
        "gradients altered after the update",
        "torch",
        PILED_UP,  # where they are cleared that alters nothing
        in_torch_step(end=scale_grads(1 + 1e-9)),
        found(2, "raw_grads", "0.weight"),
    ),
    Fault(
        "backward pass cut in time",
        "torch",
        DIGITS,
        forward(cut_in_time),
        found(1, "raw_grads", "rnn.weight_ih_l0"),
    ),
    Fault(
        "RNN whose second bias does not train",
        "torch",
        DIGITS,
        in_torch_step(graded=scale_grads(0.0, "rnn.bias_hh_l0")),
        found(1, "grads", "rnn.bias_hh_l0"),
    ),
    Fault(
        "GRU with one bias where PyTorch has two",
        "torch",
        GROUPS,
        forward(gru(merged=True)),
        found(1, "raw_grads", "gru.bias_hh_l0"),
    ),
]


LOSSES = [
    Fault(
        "sum for mean",
        "torch",
        LINEAR,
        criterion(nn.MSELoss(reduction="sum")),
        found(1, "loss", "loss"),
    ),
    Fault(
        "mean reported, sum trained",
        "torch",
        LINEAR,
        together(
            criterion(nn.MSELoss(reduction="sum")),
            in_torch_step(report=lambda k, loss: loss / 100),
        ),
        found(1, "raw_grads", "weight"),
    ),
    Fault(
        "absolute for squared error",
        "torch",
        LINEAR,
        criterion(nn.L1Loss()),
        found(1, "loss", "loss"),
    ),
    Fault(
        "half the squared error",
        "jax",
        LINEAR,
        jax_criterion(lambda output, target: jnp.mean((output - target) ** 2) / 2),
        found(1, "loss", "loss"),
    ),
    Fault(
        "(N, 1) against (N,), which broadcasts to (N, N)",
        "jax",
        LINEAR,
        jax_criterion(lambda output, target: jnp.mean((output - target[:, 0]) ** 2)),
        found(1, "loss", "loss"),
    ),
    Fault(
        "labels smoothed by 1e-9",
        "torch",
        DIGITS,
        criterion(nn.CrossEntropyLoss(label_smoothing=1e-9)),
        found(1, "loss", "loss"),
    ),
    Fault(
        "loss in float32",
        "torch",
        LINEAR,
        criterion(lambda output, y: nn.MSELoss()(output.float(), y.float()).double()),
        found(1, "loss", "loss"),
    ),
    Fault(
        "loss reported 1e-10 off at step 4",
        "torch",
        LINEAR,
        in_torch_step(report=lambda k, loss: loss * (1 + 1e-10) if k == 4 else loss),
        found(4, "loss", "loss"),
    ),
    Fault(
        "NaN on one side at step 3",
        "torch",
        LINEAR,
        in_torch_step(report=lambda k, loss: loss * float("nan") if k == 3 else loss),
        found(3, "loss", "loss"),
    ),
]
