"""Every layer of the kit against PyTorch's class of its name: arguments, first values, outputs,
gradients of inputs and parameters, buffers, in training and not.

Two rows of a class are run, in float64; all of them, compiled and in float32 as well, by
`make test-slow`.
"""

from typing import Any

import pytest
import torch
from helpers.layer_parity import (
    Layer,
    apart_at_first,
    differences_of_layer,
    layers,
    same_arguments,
)

from twinstep.jax import nn

pytestmark = pytest.mark.quick_to_compile

MISSING = """
Container RNNBase RNNCellBase
"""
LAYERS = layers()
EVERY = [pytest.param(n, row, id=f"{n}-{i}") for n, r in LAYERS.items() for i, row in enumerate(r)]


def two(rows: list[Layer]) -> list[Layer]:
    """The first one, and the one whose settings have the most to say."""
    return [rows[0], max(rows[1:], key=lambda row: len(row.args) + 2 * len(row.kwargs))][
        : len(rows)
    ]


TWO = [
    pytest.param(name, row, id=f"{name}-{i}")
    for name, rows in LAYERS.items()
    for i, row in enumerate(two(rows) if len(rows) > 1 else rows)
]


@pytest.mark.parametrize("name", LAYERS)
def test_the_arguments_are_pytorchs(name: str) -> None:
    assert same_arguments(name) == []


@pytest.mark.parametrize(("name", "row"), TWO)
def test_a_layer_is_pytorchs(name: str, row: Any) -> None:
    assert apart_at_first(name, row) == []
    assert differences_of_layer(name, row, jit=True) == []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "row"), EVERY)
def test_every_row_of_a_layer_is_pytorchs(name: str, row: Any) -> None:
    assert apart_at_first(name, row) == []
    assert differences_of_layer(name, row) == []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "row"), EVERY)
@pytest.mark.filterwarnings("ignore:LSTM with projections")  # oneDNN has none
def test_every_row_of_a_layer_in_float32(name: str, row: Any) -> None:
    assert differences_of_layer(name, row, "float32", jit=False) == []


def test_what_is_missing() -> None:
    """Of torch.nn's classes."""
    public = {
        name
        for name, value in vars(torch.nn).items()
        if isinstance(value, type) and issubclass(value, torch.nn.Module)
        if not name.startswith("Lazy") and name != "DataParallel"
    }
    assert sorted(public - {*nn.__all__}) == MISSING.split()
