"""Faults in what is differentiated: gradients, losses."""

import jax
import jax.numpy as jnp
from torch import nn

from faults.models_torch import cut_in_time, gru
from faults.plants_anywhere import criterion, together, twin
from faults.plants_jax import after_jax_step, jax_criterion, jax_grads
from faults.plants_torch import at, clear_all, forward, in_torch_step, scale_grads
from faults.table import (
    DIGITS,
    GROUPS,
    LINEAR,
    LOSS,
    PILED_UP,
    RELU,
    SELECTIVE,
    ZERO_GRAD,
    Spot,
    Table,
    times,
)

IN_JAX = "init_state", "make_train_step"

GRADIENTS: Table = {
    ("torch", ZERO_GRAD, Spot(2, "raw_grads", "0.weight")): {
        "zero_grad forgotten": twin("without_zero_grad", "train"),
    },
    ("jax", ZERO_GRAD, Spot(2, "raw_grads", "0.weight")): {
        "zero_grad forgotten in JAX": twin("without_zero_grad", *IN_JAX),
    },
    ("torch", PILED_UP, Spot(2, "raw_grads", "0.weight")): {
        "a zero_grad too many": twin("zero_grad", "train"),
        # where they are cleared that alters nothing
        "gradients altered after the update": in_torch_step(end=scale_grads(1 + 1e-9)),
    },
    ("jax", PILED_UP, Spot(2, "raw_grads", "0.weight")): {
        "a zero_grad too many in JAX": twin("zero_grad", *IN_JAX),
    },
    ("jax", PILED_UP, Spot(1, "raw_grads", "0.weight")): {
        # what is kept after step 1 is not its gradient
        "gradients that pile up not carried on in JAX": after_jax_step(
            lambda before, state: (*state[:2], before[2])
        ),
    },
    ("torch", ZERO_GRAD, Spot(None, "grads", "0.weight")): {  # none is not a zero one
        "gradients cleared between backward pass and update": in_torch_step(graded=clear_all),
    },
    ("torch", SELECTIVE, Spot(2, "raw_grads", "gru.weight_ih_l0")): {
        "gradients cleared of a network that the optimizer was not given": in_torch_step(
            start=clear_all
        ),
    },
    ("torch", LINEAR, Spot(1, "grads", "weight")): {
        "gradients clipped": in_torch_step(
            graded=lambda k, run: nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
        ),
        "gradients 1e-10 off": in_torch_step(graded=scale_grads(1 + 1e-10)),
    },
    ("torch", LINEAR, Spot(6, "grads", "bias")): {
        "gradient of the bias 1e-10 off at step 6": in_torch_step(
            graded=at(6, scale_grads(1 + 1e-10, "bias"))
        ),
    },
    ("jax", RELU, Spot(1, "raw_grads", "layer2.bias")): {
        "gradient of the last bias 1e-10 off in JAX": jax_grads(
            lambda grads, size: jax.tree_util.tree_map_with_path(
                lambda path, g: g * (1 + 1e-10) if "layer2" in str(path) and g.ndim == 1 else g,
                grads,
            )
        ),
    },
    ("jax", LINEAR, Spot(1, "raw_grads", "weight")): {
        "gradients reported 1e-9 off in JAX": after_jax_step(
            lambda before, state: (
                state[0],
                state[1]._replace(grads=jax.tree.map(times(1 + 1e-9), state[1].grads)),
            )
        ),
    },
    ("torch", DIGITS, Spot(1, "raw_grads", "rnn.weight_ih_l0")): {
        "backward pass cut in time": forward(cut_in_time),
    },
    ("torch", DIGITS, Spot(1, "grads", "rnn.bias_hh_l0")): {
        "RNN whose second bias does not train": in_torch_step(
            graded=scale_grads(0.0, "rnn.bias_hh_l0")
        ),
    },
    ("torch", GROUPS, Spot(1, "raw_grads", "gru.bias_hh_l0")): {
        "GRU with one bias where PyTorch has two": forward(gru(merged=True)),
    },
}

SUM = criterion(nn.MSELoss(reduction="sum"))

LOSSES: Table = {
    ("torch", LINEAR, LOSS): {
        "sum for mean": SUM,
        "absolute for squared error": criterion(nn.L1Loss()),
        "loss in float32": criterion(
            lambda output, y: nn.MSELoss()(output.float(), y.float()).double()
        ),
    },
    ("torch", LINEAR, Spot(1, "raw_grads", "weight")): {
        "mean reported, sum trained": together(
            SUM, in_torch_step(report=lambda k, loss: loss / 100)
        ),
    },
    ("jax", LINEAR, LOSS): {
        "half the squared error": jax_criterion(
            lambda output, target: jnp.mean((output - target) ** 2) / 2
        ),
        "(N, 1) against (N,), which broadcasts to (N, N)": jax_criterion(
            lambda output, target: jnp.mean((output - target[:, 0]) ** 2)
        ),
    },
    ("torch", DIGITS, LOSS): {
        "labels smoothed by 1e-9": criterion(nn.CrossEntropyLoss(label_smoothing=1e-9)),
    },
    ("torch", LINEAR, Spot(4, "loss", "loss")): {
        "loss reported 1e-10 off at step 4": in_torch_step(
            report=lambda k, loss: loss * (1 + 1e-10) if k == 4 else loss
        ),
    },
    ("torch", LINEAR, Spot(3, "loss", "loss")): {
        "NaN on one side at step 3": in_torch_step(
            report=lambda k, loss: loss * float("nan") if k == 3 else loss
        ),
    },
}
