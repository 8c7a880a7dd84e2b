"""Faults in models, data and the start."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from torch import nn
from torch.nn import functional

import jax_impl.backpropagation
import twinstep.jax.driver
from faults.dials import either
from faults.models_torch import gru, time_first, transposed_hidden
from faults.plants_anywhere import (
    attribute,
    built,
    compiled,
    initial_params,
    replaced,
    rewritten,
    ulp_more,
)
from faults.plants_jax import GRUWithoutHiddenBias, jax_float32
from faults.plants_of_kinds import leaky
from faults.plants_torch import (
    entry,
    forward,
    inputs_by,
    swapped,
    torch_batch,
    torch_data,
    torch_indices,
)
from faults.table import ADAM, DIGITS, GROUPS, LINEAR, LOSS, RELU, SAMPLES, Spot, Table, times
from twinstep.jax.nn import rnn
from twinstep.jax.nn.rules import RULES, SWAP, Rule


def float32_and_back(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float().double()


OTHER_DIGIT = entry(lambda label: (label + 1) % 10)


def first_epoch_again() -> Callable[[int, np.ndarray], np.ndarray]:
    """Every epoch in the order of the first."""
    first: list[np.ndarray] = []

    def change(start: int, indices: np.ndarray) -> np.ndarray:
        if not first:
            first.append(indices)
        return first[0][: len(indices)]

    return change


jax_free_run_backward = compiled(
    lambda size: replaced(
        "take",
        lambda take: lambda data, index: take(data, either(size(), 99 - index, index)),
        home=twinstep.jax.driver,
    )
)
"""Sample 99 - i for sample i, in JAX's own run; not in the steps that it makes again."""


class GeluNetwork(jax_impl.backpropagation.SimpleNetwork):
    """The network with another activation."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.layer2(nnx.gelu(self.layer1(x)))


def hidden_transposed(patch: pytest.MonkeyPatch, example: Any) -> None:
    """A table that transposes the hidden weight, which is square."""
    patch.setitem(RULES, rnn.RNN, {"weight_hh_l0": Rule(("weight_hh_l0",), SWAP)})


MODELS: Table = {
    ("torch", RELU, LOSS): {
        "leaky for plain ReLU": leaky(1e-6),
        "tanh for ReLU": built(lambda model, *_: setattr(model, "relu", nn.Tanh())),
        "ReLU on the output": forward(
            lambda model, x: functional.relu(type(model).forward(model, x))
        ),
    },
    ("jax", RELU, LOSS): {"GELU for ReLU in JAX": attribute("SimpleNetwork", GeluNetwork)},
    ("torch", GROUPS, LOSS): {
        "GRU with b_hn outside the reset gate's product": forward(gru(outside=True)),
        "GRU with its gates in the order z, r, n": forward(gru(order="zrn")),
        "GRU whose update gate keeps the new state": forward(gru(keeps="n")),
    },
    ("jax", GROUPS, LOSS): {
        "GRU with b_hn outside the reset gate's product, as Flax has it": attribute(
            "GRU", GRUWithoutHiddenBias
        ),
    },
    ("torch", DIGITS, LOSS): {
        "square weight transposed": forward(transposed_hidden),
        "batch_first forgotten where batch and time are as long": forward(time_first),
        "output before the last": forward(lambda model, x: model.fc(model.rnn(x)[0][:, -2])),
        "images read column by column": inputs_by(lambda x: x.transpose(1, 2)),
        "bytes divided by 256": rewritten("train", "/ 255", "/ 256"),
    },
    ("jax", DIGITS, LOSS): {"square weight transposed by JAX's conversion": hidden_transposed},
}

DATA: Table = {
    ("torch", LINEAR, LOSS): {  # the batch that the step was given is right
        "input cast to float32 and back": inputs_by(float32_and_back),
    },
    ("torch", LINEAR, Spot(1, "batch", "x")): {
        "samples kept in float32": torch_data(x=float32_and_back),
        "one entry of the data an ulp off": torch_data(
            x=entry(lambda x: torch.nextafter(x, x + 1))
        ),
        "last sample dropped": torch_data(x=lambda x: x[:-1], y=lambda y: y[:-1]),
    },
    ("torch", LINEAR, Spot(1, "batch", "y")): {
        "one target 1e-9 off": torch_data(y=entry(times(1 + 1e-9))),
        "two targets at each other's sample": torch_data(y=swapped(3, 70)),
    },
    ("jax", LINEAR, Spot(None, "loss", "loss")): {
        "JAX in float32, as it is when nobody asks for float64": jax_float32,
    },
    ("torch", SAMPLES, Spot(1, "batch", "x")): {
        "samples not shuffled": torch_indices(lambda start, indices: np.sort(indices, axis=0)),
        "batches in backward order": torch_indices(lambda start, indices: indices[::-1]),
    },
    ("jax", SAMPLES, Spot(1, "batch", "x")): {
        "batches in backward order where JAX trains on its own": jax_free_run_backward,
    },
    ("torch", SAMPLES, Spot(40, "batch", "x")): {
        # the first chunk is the first epoch, of 100 steps
        "batches 40 and 41 in each other's place": torch_indices(
            lambda start, indices: indices if start else swapped(39, 40)(indices)
        ),
    },
    ("torch", SAMPLES, Spot(101, "batch", "x")): {
        "second epoch in the order of the first": torch_indices(first_epoch_again()),
    },
    ("torch", DIGITS, Spot(1, "batch", "images")): {
        "samples of a batch backwards": torch_indices(lambda start, indices: indices[:, ::-1]),
    },
    ("torch", DIGITS, Spot(3, "batch", "labels")): {
        "one label off at step 3": torch_batch(
            3, lambda batch: batch | {"labels": OTHER_DIGIT(batch["labels"])}
        ),
    },
    ("torch", DIGITS, Spot(4, "batch", "images")): {
        "batch of one sample less at step 4": torch_batch(
            4, lambda batch: {name: tensor[1:] for name, tensor in batch.items()}
        ),
    },
}

START: Table = {
    ("torch", LINEAR, Spot(0, "params", "weight")): {
        "initial weight an ulp off": initial_params("weight", ulp_more),
    },
    ("jax", LINEAR, Spot(0, "params", "weight")): {
        "initial weight an ulp off in JAX": initial_params("weight", ulp_more),
    },
    ("jax", LINEAR, Spot(0, "params", "bias")): {
        "biases that start at 0, as Flax's do": initial_params("bias", np.zeros_like),
    },
    ("torch", DIGITS, Spot(0, "params", "rnn.weight_hh_l0")): {
        "square weight that starts transposed": initial_params("rnn.weight_hh_l0", np.transpose),
    },
    ("torch", ADAM, Spot(0, "params", "bias")): {
        "parameters that start from float32": initial_params(
            "bias", lambda array: array.astype("float32").astype("float64")
        ),
    },
}
