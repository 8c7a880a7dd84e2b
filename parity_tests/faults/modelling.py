"""Faults in models, data and the start."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from faults.models_torch import gru, time_first, transposed_hidden
from faults.plants_anywhere import attribute, initial_params, rewritten, ulp_more
from faults.plants_jax import GRUWithoutHiddenBias, jax_float32
from faults.plants_torch import (
    entry,
    forward,
    swapped,
    torch_batch,
    torch_built,
    torch_data,
    torch_indices,
)
from faults.table import (
    ADAM,
    DIGITS,
    GROUPS,
    LINEAR,
    RELU,
    SAMPLES,
    Fault,
    GeluNetwork,
    first_epoch_again,
    float32_and_back,
    found,
    hidden_as_it_is,
    jax_free_run_backward,
    other_digit,
    structure,
    swapped_steps,
)

MODELS = [
    Fault(
        "leaky for plain ReLU",
        "torch",
        RELU,
        torch_built(lambda model, *_: setattr(model, "relu", nn.LeakyReLU(1e-6))),
        found(1, "loss", "loss"),
    ),
    Fault(
        "tanh for ReLU",
        "torch",
        RELU,
        torch_built(lambda model, *_: setattr(model, "relu", nn.Tanh())),
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
        rewritten("train", "/ 255", "/ 256"),
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
        found(1, "batch", "y"),
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
        "samples of a batch backwards",
        "torch",
        DIGITS,
        torch_indices(lambda start, indices: indices[:, ::-1]),
        found(1, "batch", "images"),
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
