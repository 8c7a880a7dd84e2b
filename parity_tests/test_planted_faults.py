"""A judge is worth what it finds: faults of many kinds, each found at its step, stage and leaf.

Every row says what is wrong, on which side, and where that must show first; the place follows from
the fault, in the order of the ledger: batch, loss, grads, opt_state, params, and leaves in the
model's own order. All runs are in float64.

Not in the table, because no run can show them: a gradient of ReLU at exactly 0, which no sample
meets; a fault in an update that rounds to nothing; data whose changes, of an ulp each, cancel in
the batch's fingerprint, a sum, and in the loss.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from faults import (
    GRUWithoutHiddenBias,
    HonestJax,
    Pair,
    Plant,
    Side,
    Spot,
    after_jax_step,
    at,
    attribute,
    clear_all,
    clip,
    clipped_update,
    criterion,
    cut_in_time,
    decayed_update,
    decaying_rate,
    delayed,
    entry,
    forget_first_moment,
    forget_state,
    forward,
    gru,
    hidden_momentum,
    in_torch_step,
    initial_params,
    jax_adam,
    jax_float32,
    jax_grads,
    jax_update,
    keep,
    loss,
    module,
    move_gru,
    no_bias_update,
    pair,
    place_of,
    restarted_update,
    round_params,
    scale_grads,
    scale_params,
    spec_fields,
    swapped,
    time_first,
    together,
    torch_batch,
    torch_data,
    torch_indices,
    torch_optimizer,
    torch_state,
    transposed_hidden,
    ulp_more,
    update_at,
    update_twice,
    updates_times,
    verify_only,
    verify_without_noise,
)
from flax import nnx
from torch import nn
from torch.nn import functional

import jax_impl.backpropagation
import jax_impl.conversion
import jax_impl.recording
from jax_impl import layers
from jax_impl.conversion import Rule
from twinstep import Verdict, tolerance
from twinstep.judge import Judge

LINEAR = pair("linear_regression", steps=8)
ADAM = pair("adam_update", steps=8, eps=1e-2, betas=(0.5, 0.9))  # values that show every fault
ZERO_GRAD = pair("zero_grad")
PILED_UP = pair("without_zero_grad")
RELU = pair("backpropagation", steps=6)
SAMPLES = pair("sgd_single_sample", steps=104)  # 100 samples an epoch
GROUPS = pair("parameter_groups", steps=5)
SELECTIVE = pair("selective_update", steps=5)
DIGITS = pair("mnist_rnn", steps=4, hidden_size=64, batch_size=28)  # 28 images of 28 rows of 28


class Fault(NamedTuple):
    """What is wrong, on which side of which pair, how it is planted, and where it must show."""

    says: str
    side: Side
    pair: Pair
    plant: Plant
    place: Spot


def found(step: int | None, stage: str, leaf: str) -> Spot:
    return Spot(step, stage, leaf)


def structure(stage: str, leaf: str) -> Spot:
    return Spot(None, stage, leaf)


def times(factor: float) -> Any:
    return lambda value: value * factor


def float32_and_back(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float().double()


def other_digit(label: torch.Tensor) -> torch.Tensor:
    return (label + 1) % 10


def swapped_steps(start: int, indices: np.ndarray) -> np.ndarray:
    """Steps 40 and 41 in each other's place; the first chunk is the first epoch, of 100 steps."""
    order = np.arange(len(indices))
    if start == 0:
        order[[39, 40]] = [40, 39]
    return indices[order]


def first_epoch_again() -> Callable[[int, np.ndarray], np.ndarray]:
    """Every epoch in the order of the first."""
    first: list[np.ndarray] = []

    def change(start: int, indices: np.ndarray) -> np.ndarray:
        if not first:
            first.append(indices)
        return first[0][: len(indices)]

    return change


def jax_free_run_backward(patch: pytest.MonkeyPatch, example: Any) -> None:
    """Sample 99 - i for sample i, in JAX's own run; not in the steps that it makes again."""
    take = jax_impl.recording.take
    patch.setattr(jax_impl.recording, "take", lambda data, index: take(data, 99 - index))


class GeluNetwork(jax_impl.backpropagation.SimpleNetwork):
    """The network with another activation."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nnx.gelu


def hidden_as_it_is(patch: pytest.MonkeyPatch, example: Any) -> None:
    """The table that knows no transposition for the hidden weight, which is square."""
    table: dict[Any, Any] = jax_impl.conversion.TABLE
    wrong = {"weight_hh_l0": Rule(("hidden", "kernel"), None)}
    patch.setitem(table, layers.RNN, table[layers.RNN] | wrong)


HYPER_PARAMETERS = [
    Fault(
        "learning rate 1e-9 off",
        "torch",
        LINEAR,
        torch_optimizer("SGD", lr=times(1 + 1e-9)),
        found(1, "params", "weight"),
    ),
    Fault(
        "learning rate 1e-12 off",
        "torch",
        LINEAR,
        torch_optimizer("SGD", lr=times(1 + 1e-12)),
        found(1, "params", "weight"),
    ),
    Fault(
        "learning rate 1e-12 off in Adam",
        "jax",
        ADAM,
        jax_update(updates_times(lambda state: 1 + 1e-12)),
        found(1, "params", "weight"),
    ),
    Fault(
        "learning rate held in float32",
        "torch",
        ADAM,
        torch_optimizer("Adam", lr=lambda lr: float(np.float32(lr))),
        found(1, "params", "weight"),
    ),
    Fault(
        "learning rate decays by 1e-6 an update",
        "torch",
        LINEAR,
        in_torch_step(update=decaying_rate(1 - 1e-6)),
        found(2, "params", "weight"),  # the first update is by the right one
    ),
    Fault(
        "ascent instead of descent",
        "torch",
        LINEAR,
        torch_optimizer("SGD", maximize=True),
        found(1, "params", "weight"),
    ),
    Fault(
        "weight decay slipped into SGD",
        "torch",
        LINEAR,
        torch_optimizer("SGD", weight_decay=1e-6),
        found(1, "params", "weight"),
    ),
    Fault(
        "weight decay slipped into JAX's SGD",
        "jax",
        LINEAR,
        jax_update(decayed_update),
        found(1, "params", "weight"),
    ),
    Fault(
        "weight decay slipped into Adam's gradient",
        "torch",
        ADAM,
        torch_optimizer("Adam", weight_decay=1e-6),
        found(1, "opt_state", "weight.exp_avg"),
    ),
    Fault(
        "AdamW instead of Adam",
        "torch",
        ADAM,
        torch_optimizer("Adam", "AdamW"),
        found(1, "params", "weight"),  # its weight decay passes the moments by
    ),
    Fault(
        "beta1 and beta2 swapped",
        "torch",
        ADAM,
        torch_optimizer("Adam", betas=lambda betas: betas[::-1]),
        found(1, "opt_state", "weight.exp_avg"),
    ),
    Fault(
        "beta1 off in its 12th digit",
        "torch",
        ADAM,
        torch_optimizer("Adam", betas=lambda betas: (betas[0] + 1e-12, betas[1])),
        found(1, "opt_state", "weight.exp_avg"),
    ),
    Fault(
        "beta2 off in its 12th digit",
        "torch",
        ADAM,
        torch_optimizer("Adam", betas=lambda betas: (betas[0], betas[1] + 1e-12)),
        found(1, "opt_state", "weight.exp_avg_sq"),
    ),
    Fault(
        "eps 1e-9 off",
        "torch",
        ADAM,
        torch_optimizer("Adam", eps=times(1 + 1e-9)),
        found(1, "params", "weight"),
    ),
    Fault(
        "eps left out",
        "torch",
        ADAM,
        torch_optimizer("Adam", eps=0.0),
        found(1, "params", "weight"),
    ),
    Fault(
        "second parameter group with a learning rate of its own",
        "torch",
        GROUPS,
        torch_state(lambda state: state.optimizer.param_groups[1].update(lr=0.02)),
        found(1, "params", "gru.weight_ih_l0"),
    ),
]

OPTIMIZERS = [
    Fault("eps inside the root", "jax", ADAM, jax_adam(inside=True), found(1, "params", "weight")),
    Fault(
        "bias correction left out",
        "jax",
        ADAM,
        jax_adam(corrected=lambda beta, step: 1.0),
        found(1, "params", "weight"),
    ),
    Fault(
        "bias correction of the next step",
        "jax",
        ADAM,
        jax_adam(corrected=lambda beta, step: 1 - beta ** (step + 1)),
        found(1, "params", "weight"),
    ),
    Fault(
        "bias correction in float32",
        "jax",
        ADAM,
        # 1 - 0.5**1 is exact in float32, 1 - 0.9**1 is not
        jax_adam(corrected=lambda beta, step: 1 - jnp.float32(beta) ** step),
        found(1, "params", "weight"),
    ),
    Fault(
        "steps counted from one too many",
        "jax",
        ADAM,
        jax_adam(first_step=1),
        found(1, "opt_state", "weight.step"),
    ),
    Fault(
        "second moment that starts above 0, as Adagrad's may",
        "jax",
        ADAM,
        jax_adam(first_square=0.1),
        found(1, "opt_state", "weight.exp_avg_sq"),
    ),
    Fault(
        "Adam instead of SGD",
        "torch",
        LINEAR,
        torch_optimizer("SGD", "Adam"),
        structure("opt_state", "weight.step"),
    ),
    Fault(
        "momentum slipped in",
        "torch",
        LINEAR,
        torch_optimizer("SGD", momentum=0.9),
        structure("opt_state", "weight.momentum_buffer"),
    ),
    Fault(
        "momentum that no state shows",
        "torch",
        LINEAR,
        in_torch_step(update=hidden_momentum(1e-6)),
        found(2, "params", "weight"),  # there is no move before the first
    ),
    Fault(
        "AMSGrad slipped in",
        "torch",
        ADAM,
        torch_optimizer("Adam", amsgrad=True),
        structure("opt_state", "weight.max_exp_avg_sq"),
    ),
    Fault(
        "optimizer state lost before step 5",
        "torch",
        ADAM,
        in_torch_step(start=at(5, forget_state)),
        found(5, "opt_state", "weight.step"),
    ),
    Fault(
        "optimizer state lost before step 5 in JAX",
        "jax",
        ADAM,
        jax_update(restarted_update),
        found(5, "opt_state", "weight.step"),
    ),
    Fault(
        "first moment lost before step 5",
        "torch",
        ADAM,
        in_torch_step(start=at(5, forget_first_moment)),
        found(5, "opt_state", "weight.exp_avg"),
    ),
    Fault(
        "GRU not given to the optimizer",
        "torch",
        GROUPS,
        spec_fields(update_gru=False),
        structure("opt_state", "gru.bias_hh_l0.exp_avg"),  # only JAX has it: in JAX's order, sorted
    ),
    Fault(
        "GRU given to the optimizer that should not have it",
        "torch",
        SELECTIVE,
        spec_fields(update_gru=True),
        structure("opt_state", "gru.weight_ih_l0.step"),
    ),
    Fault(
        "GRU moved without an optimizer",
        "torch",
        SELECTIVE,
        in_torch_step(end=move_gru),
        found(1, "params", "gru.weight_ih_l0"),
    ),
]

UPDATES = [
    Fault(
        "update made twice",
        "torch",
        LINEAR,
        in_torch_step(update=update_twice),
        found(1, "params", "weight"),
    ),
    Fault(
        "update made twice in JAX",
        "jax",
        LINEAR,
        jax_update(updates_times(lambda state: 2)),
        found(1, "params", "weight"),
    ),
    Fault(
        "Adam's update made twice at step 4",
        "torch",
        ADAM,
        in_torch_step(update=update_at(4, update_twice)),
        found(4, "opt_state", "weight.step"),
    ),
    Fault(
        "update left out at step 5",
        "torch",
        LINEAR,
        in_torch_step(update=update_at(5, lambda k, state: None)),
        found(5, "params", "weight"),
    ),
    Fault(
        "each update by the gradients of the step before",
        "torch",
        LINEAR,
        in_torch_step(update=delayed()),
        found(1, "params", "weight"),
    ),
    Fault(
        "bias never updated",
        "torch",
        LINEAR,
        in_torch_step(update=keep("bias")),
        found(1, "params", "bias"),
    ),
    Fault(
        "bias never updated in JAX",
        "jax",
        LINEAR,
        jax_update(no_bias_update),
        found(1, "params", "bias"),
    ),
    Fault(
        "one entry of a weight never updated",
        "torch",
        ADAM,
        in_torch_step(update=keep("weight", (0, 3))),
        found(1, "params", "weight"),
    ),
    Fault(
        "one entry of a bias not updated at step 3",
        "torch",
        RELU,
        in_torch_step(update=update_at(3, keep("layer2.bias", 0))),
        found(3, "params", "layer2.bias"),
    ),
    Fault(
        "parameters rounded to float32 after the update",
        "torch",
        LINEAR,
        in_torch_step(end=round_params),
        found(1, "params", "weight"),
    ),
    Fault(
        "parameters touched before step 4",
        "torch",
        LINEAR,
        in_torch_step(start=at(4, scale_params(1 + 1e-10))),
        found(4, "loss", "loss"),  # step 3 is recorded before
    ),
    Fault(
        "update 1e-9 off from step 5 on, in JAX",
        "jax",
        ADAM,
        jax_update(updates_times(lambda state: jnp.where(state.step >= 4, 1 + 1e-9, 1))),
        found(5, "params", "weight"),
    ),
    Fault(
        "optimizer clips the gradients for itself",
        "jax",
        LINEAR,
        jax_update(clipped_update),
        found(1, "params", "weight"),  # what it was given is right
    ),
]

GRADIENTS = [
    Fault(
        "zero_grad forgotten",
        "torch",
        ZERO_GRAD,
        spec_fields(zero_grad=False),
        found(2, "grads", "0.weight"),
    ),
    Fault(
        "zero_grad forgotten in JAX",
        "jax",
        ZERO_GRAD,
        spec_fields(zero_grad=False),
        found(2, "grads", "0.weight"),
    ),
    Fault(
        "a zero_grad too many",
        "torch",
        PILED_UP,
        spec_fields(zero_grad=True),
        found(2, "grads", "0.weight"),
    ),
    Fault(
        "a zero_grad too many in JAX",
        "jax",
        PILED_UP,
        spec_fields(zero_grad=True),
        found(2, "grads", "0.weight"),
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
        found(2, "grads", "gru.weight_ih_l0"),
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
        found(1, "grads", "layer2.bias"),
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
        after_jax_step(lambda before, state, step: (state.replace(grads=before.grads), step)),
        found(1, "grads", "0.weight"),  # what is kept after step 1 is not its gradient
    ),
    Fault(
        "gradients reported 1e-9 off in JAX",
        "jax",
        LINEAR,
        after_jax_step(
            lambda before, state, step: (
                state,
                step._replace(grads=jax.tree.map(lambda g: g * (1 + 1e-9), step.grads)),
            )
        ),
        found(1, "grads", "weight"),
    ),
    Fault(
        "gradients altered after the update",
        "torch",
        LINEAR,
        in_torch_step(end=scale_grads(1 + 1e-9)),
        found(1, "grads", "weight"),
    ),
    Fault(
        "backward pass cut in time",
        "torch",
        DIGITS,
        forward(cut_in_time),
        found(1, "grads", "rnn.weight_ih_l0"),
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
        found(1, "grads", "gru.bias_hh_l0"),
    ),
]

LOSSES = [
    Fault(
        "sum for mean",
        "torch",
        LINEAR,
        criterion("mse", nn.MSELoss(reduction="sum")),
        found(1, "loss", "loss"),
    ),
    Fault(
        "mean reported, sum trained",
        "torch",
        LINEAR,
        together(
            criterion("mse", nn.MSELoss(reduction="sum")),
            in_torch_step(report=lambda k, loss: loss / 100),
        ),
        found(1, "grads", "weight"),
    ),
    Fault(
        "absolute for squared error",
        "torch",
        LINEAR,
        criterion("mse", nn.L1Loss()),
        found(1, "loss", "loss"),
    ),
    Fault(
        "half the squared error",
        "jax",
        LINEAR,
        criterion("mse", lambda output, target: jnp.mean((output - target) ** 2) / 2),
        found(1, "loss", "loss"),
    ),
    Fault(
        "(N, 1) against (N,), which broadcasts to (N, N)",
        "jax",
        LINEAR,
        criterion("mse", lambda output, target: jnp.mean((output - target[:, 0]) ** 2)),
        found(1, "loss", "loss"),
    ),
    Fault(
        "labels smoothed by 1e-9",
        "torch",
        DIGITS,
        loss(
            lambda loss_fn, model, criterion, batch: loss_fn(
                model, nn.CrossEntropyLoss(label_smoothing=1e-9), batch
            )
        ),
        found(1, "loss", "loss"),
    ),
    Fault(
        "loss in float32",
        "torch",
        LINEAR,
        criterion("mse", lambda output, y: nn.MSELoss()(output.float(), y.float()).double()),
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

MODELS = [
    Fault(
        "leaky for plain ReLU",
        "torch",
        RELU,
        torch_state(lambda state: setattr(state.model, "relu", nn.LeakyReLU(1e-6))),
        found(1, "loss", "loss"),
    ),
    Fault(
        "tanh for ReLU",
        "torch",
        RELU,
        torch_state(lambda state: setattr(state.model, "relu", nn.Tanh())),
        found(1, "loss", "loss"),
    ),
    Fault(
        "GELU for ReLU in JAX",
        "jax",
        RELU,
        attribute("SimpleNetwork", GeluNetwork),
        found(1, "loss", "loss"),
    ),
    Fault(
        "ReLU on the output",
        "torch",
        RELU,
        forward(lambda model, x: functional.relu(type(model).forward(model, x))),
        found(1, "loss", "loss"),
    ),
    Fault(
        "GRU with b_hn outside the reset gate's product",
        "torch",
        GROUPS,
        forward(gru(outside=True)),
        found(1, "loss", "loss"),
    ),
    Fault(
        "GRU with b_hn outside the reset gate's product, as Flax has it",
        "jax",
        GROUPS,
        attribute("GRU", GRUWithoutHiddenBias),
        found(1, "loss", "loss"),
    ),
    Fault(
        "GRU with its gates in the order z, r, n",
        "torch",
        GROUPS,
        forward(gru(order="zrn")),
        found(1, "loss", "loss"),
    ),
    Fault(
        "GRU whose update gate keeps the new state",
        "torch",
        GROUPS,
        forward(gru(keeps="n")),
        found(1, "loss", "loss"),
    ),
    Fault(
        "square weight transposed",
        "torch",
        DIGITS,
        forward(transposed_hidden),
        found(1, "loss", "loss"),
    ),
    Fault(
        "square weight transposed by JAX's conversion",
        "jax",
        DIGITS,
        hidden_as_it_is,
        found(1, "loss", "loss"),
    ),
    Fault(
        "batch_first forgotten where batch and time are as long",
        "torch",
        DIGITS,
        forward(time_first),
        found(1, "loss", "loss"),
    ),
    Fault(
        "output before the last",
        "torch",
        DIGITS,
        forward(lambda model, x: model.fc(model.rnn(x)[0][:, -2])),
        found(1, "loss", "loss"),
    ),
    Fault(
        "images read column by column",
        "torch",
        DIGITS,
        forward(lambda model, x: type(model).forward(model, x.transpose(1, 2))),
        found(1, "loss", "loss"),
    ),
    Fault(
        "bytes divided by 256",
        "torch",
        DIGITS,
        attribute("to_tensor", lambda images: images.double() / 256),
        found(1, "loss", "loss"),
    ),
]

DATA = [
    Fault(
        "input cast to float32 and back",
        "torch",
        LINEAR,
        forward(lambda model, x: type(model).forward(model, float32_and_back(x))),
        found(1, "loss", "loss"),  # the batch that the step was given is right
    ),
    Fault(
        "samples kept in float32",
        "torch",
        LINEAR,
        torch_data(x=float32_and_back),
        found(1, "batch", "x"),
    ),
    Fault(
        "JAX in float32, as it is when nobody asks for float64",
        "jax",
        LINEAR,
        jax_float32,
        structure("loss", "loss"),
    ),
    Fault(
        "one entry of the data an ulp off",
        "torch",
        LINEAR,
        torch_data(x=entry(lambda x: torch.nextafter(x, x + 1))),
        found(1, "batch", "x"),
    ),
    Fault(
        "one target 1e-9 off",
        "torch",
        LINEAR,
        torch_data(y=entry(lambda y: y * (1 + 1e-9))),
        found(1, "batch", "y"),
    ),
    Fault(
        "two targets at each other's sample",
        "torch",
        LINEAR,
        torch_data(y=swapped(3, 70)),
        found(1, "loss", "loss"),  # the batch holds the same numbers
    ),
    Fault(
        "one label off at step 3",
        "torch",
        DIGITS,
        torch_batch(3, lambda batch: batch | {"labels": entry(other_digit)(batch["labels"])}),
        found(3, "batch", "labels"),
    ),
    Fault(
        "last sample dropped",
        "torch",
        LINEAR,
        torch_data(x=lambda x: x[:-1], y=lambda y: y[:-1]),
        found(1, "batch", "x"),
    ),
    Fault(
        "samples not shuffled",
        "torch",
        SAMPLES,
        torch_indices(lambda start, indices: np.sort(indices, axis=0)),
        found(1, "batch", "x"),
    ),
    Fault(
        "batches in backward order",
        "torch",
        SAMPLES,
        torch_indices(lambda start, indices: indices[::-1]),
        found(1, "batch", "x"),
    ),
    Fault(
        "batches 40 and 41 in each other's place",
        "torch",
        SAMPLES,
        torch_indices(swapped_steps),
        found(40, "batch", "x"),
    ),
    Fault(
        "batches in backward order where JAX trains on its own",
        "jax",
        SAMPLES,
        jax_free_run_backward,
        found(1, "batch", "x"),
    ),
    Fault(
        "second epoch in the order of the first",
        "torch",
        SAMPLES,
        torch_indices(first_epoch_again()),
        found(101, "batch", "x"),
    ),
    Fault(
        "batch of one sample less at step 4",
        "torch",
        DIGITS,
        torch_batch(4, lambda batch: {name: tensor[1:] for name, tensor in batch.items()}),
        found(4, "batch", "images"),
    ),
]

START = [
    Fault(
        "initial weight an ulp off",
        "torch",
        LINEAR,
        initial_params("weight", ulp_more),
        found(0, "params", "weight"),
    ),
    Fault(
        "initial weight an ulp off in JAX",
        "jax",
        LINEAR,
        initial_params("weight", ulp_more),
        found(0, "params", "weight"),
    ),
    Fault(
        "biases that start at 0, as Flax's do",
        "jax",
        LINEAR,
        initial_params("bias", np.zeros_like),
        found(0, "params", "bias"),
    ),
    Fault(
        "square weight that starts transposed",
        "torch",
        DIGITS,
        initial_params("rnn.weight_hh_l0", np.transpose),
        found(0, "params", "rnn.weight_hh_l0"),
    ),
    Fault(
        "parameters that start from float32",
        "torch",
        ADAM,
        initial_params("bias", lambda array: array.astype("float32").astype("float64")),
        found(0, "params", "bias"),
    ),
]

FAULTS = [
    *HYPER_PARAMETERS,
    *OPTIMIZERS,
    *UPDATES,
    *GRADIENTS,
    *LOSSES,
    *MODELS,
    *DATA,
    *START,
]


@pytest.fixture(scope="module")
def honest_jax() -> HonestJax:
    """The JAX side as it is, shared by all faults on the other side."""
    return HonestJax()


def test_the_table_is_large_and_names_each_fault_once() -> None:
    assert len(FAULTS) >= 30
    assert len({fault.says for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("pair", sorted({fault.pair for fault in FAULTS}), ids=str)
def test_without_a_fault_each_pair_passes(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, honest_jax: HonestJax
) -> None:
    comparison = honest_jax.verify(monkeypatch, pair).comparison
    assert comparison.verdict.same, comparison.reason
    assert place_of(comparison) is None


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.says for fault in FAULTS])
def test_a_fault_is_found_where_it_is(
    fault: Fault, monkeypatch: pytest.MonkeyPatch, honest_jax: HonestJax
) -> None:
    fault.plant(monkeypatch, module(fault.side, fault.pair))
    if fault.side == "jax":
        comparison = verify_without_noise(monkeypatch, fault.pair).comparison
    else:
        comparison = honest_jax.verify(monkeypatch, fault.pair).comparison
    assert comparison.verdict is Verdict.MISMATCH, comparison.reason
    assert place_of(comparison) == fault.place, comparison.reason


class Kind(NamedTuple):
    """A problem that comes to a verdict, and a part of the reason that is given."""

    verdict: Verdict
    reason: str
    pair: Pair


KINDS = [
    # every number is a short binary fraction: nothing rounds
    Kind(Verdict.EQUAL, "same bits", pair("chain_rule", steps=2, learning_rate=0.125)),
    Kind(Verdict.ROUNDING, "rounding", LINEAR),
    Kind(Verdict.INVALID, "inf", pair("linear_regression", steps=4, learning_rate=1e300)),
    Kind(Verdict.INVALID, "no parameter", pair("linear_regression", steps=3, learning_rate=0.0)),
    Kind(Verdict.INVALID, "gradients are zero", pair("chain_rule", steps=3, x=0.0)),
    # w1 moves by an ulp, too little for the loss
    Kind(Verdict.INVALID, "the loss never", pair("chain_rule", steps=2, learning_rate=5e-18)),
]


@pytest.mark.parametrize("kind", KINDS, ids=[f"{kind.verdict} {kind.reason}" for kind in KINDS])
def test_each_verdict(kind: Kind, monkeypatch: pytest.MonkeyPatch, honest_jax: HonestJax) -> None:
    comparison = honest_jax.verify(monkeypatch, kind.pair).comparison
    assert comparison.verdict is kind.verdict, comparison.reason
    assert kind.reason in comparison.reason


def test_drift_is_a_free_run_that_leaves_its_allowance_while_every_step_is_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # rounding that piles up is drift where no noise is allowed for
    monkeypatch.setattr(tolerance, "NOISE_FACTOR", 0)
    comparison = verify_only(monkeypatch, pair("linear_regression_adam", steps=1000)).comparison
    assert comparison.verdict is Verdict.DRIFT, comparison.reason
    assert not comparison.verdict.same
    assert comparison.smallest_allowance("gate") <= 1 < comparison.smallest_allowance("free")
    assert comparison.first is not None
    assert comparison.first.step > 1


def test_a_comparison_of_no_steps_proves_nothing() -> None:
    comparison = Judge("float64").comparison()
    assert comparison.verdict is Verdict.INVALID
    assert comparison.reason == "no steps"
