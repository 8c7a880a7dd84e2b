"""What a row of the table of faults says, and the pairs that the faults are planted in."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import torch
from flax import nnx

import jax_impl.backpropagation
import twinstep.jax.driver
import twinstep.jax.layout
from faults.dials import either
from faults.pairs import Pair, Plant, Side, Spot, pair
from faults.plants_anywhere import compiled, replaced
from twinstep.jax.layout import Rule
from twinstep.jax.nn import layers

LINEAR = pair("linear_regression", steps=8)
ADAM = pair("adam_update", steps=8, eps=1e-2, betas=(0.5, 0.9))  # values that show every fault
ZERO_GRAD = pair("zero_grad")
PILED_UP = pair("without_zero_grad")
RELU = pair("backpropagation", steps=6)
SAMPLES = pair("sgd_single_sample", steps=104)  # 100 samples an epoch
GROUPS = pair("parameter_groups", steps=5)
SELECTIVE = pair("selective_update", steps=5)
DIGITS = pair("mnist_rnn", steps=4, hidden_size=64, batch_size=28)  # 28 images of 28 rows of 28


LOSS = Spot(1, "loss", "loss")  # where a fault in the forward pass shows

Table = dict[tuple[Side, Pair, Spot], dict[str, Plant]]
"""{(the faulty side, the pair, where it must show): {what is wrong: how it is planted}}"""


class Fault(NamedTuple):
    """A row of a table."""

    says: str
    side: Side
    pair: Pair
    plant: Plant
    spot: Spot

    def __str__(self) -> str:
        return self.says


def faults(table: Table) -> list[Fault]:
    """A table's rows."""
    return [
        Fault(says, side, pair, plant, spot)
        for (side, pair, spot), plants in table.items()
        for says, plant in plants.items()
    ]


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


def hidden_as_it_is(patch: pytest.MonkeyPatch, example: Any) -> None:
    """The table that knows no transposition for the hidden weight, which is square."""
    table: dict[Any, Any] = twinstep.jax.layout.TABLE
    wrong = {"weight_hh_l0": Rule(("hidden", "kernel"), None)}
    patch.setitem(table, layers.RNN, table[layers.RNN] | wrong)
