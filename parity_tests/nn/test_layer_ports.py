"""The rows of docs/porting/layers.md are so: what is said to equal a layer of PyTorch's does, in
values, buffers and gradients, a naive port does not, and the kit's layer under the same call does.

Some rows are run; all of them by `make test-slow`.
"""

import inspect
import re
from typing import Any

import pytest
import torch
from helpers.layer_parity import apart_at_first, differences_of_layer
from helpers.porting_functions import tables as functions
from helpers.porting_layers import FIRST, as_functions, differences, every, ports, rows

from twinstep.jax import nn

pytestmark = pytest.mark.quick_to_compile

PORTS = ports()
CONTAINERS = {"Module", "ModuleDict", "ModuleList", "ParameterDict", "ParameterList"}
"""Classes without a call: a sentence above the table."""


def some(of: str) -> list[Any]:
    """The rows that have it; but most, and what takes seconds, by make test-slow alone."""
    cells = [cell for cell, (_, row) in PORTS.items() if getattr(row.port, of)]
    return [
        pytest.param(cell, marks=[pytest.mark.slow] if i % 14 or "Transformer" in cell else [])
        for i, cell in enumerate(cells)
    ]


def test_every_class_has_a_row() -> None:
    public = {name for name in nn.__all__ if isinstance(getattr(torch.nn, name, None), type)}
    layers = {name for name in public if issubclass(getattr(torch.nn, name), torch.nn.Module)}
    losses = {name for name in layers if "Loss" in name} - {"AdaptiveLogSoftmaxWithLoss"}
    called = {name for name, _ in PORTS.values()}
    assert called & as_functions().keys() == set()
    assert called | as_functions().keys() == layers - losses - CONTAINERS
    assert len(rows()) == len(PORTS) + len(as_functions())


def test_no_row_hides_another() -> None:
    assert len(list(every())) == len(PORTS)


@pytest.mark.parametrize("name", as_functions())
def test_a_class_is_its_function(name: str) -> None:
    function = as_functions()[name]
    assert function in {known for _, known, _, _ in functions()}
    forward = inspect.getsource(getattr(torch.nn, name).forward)
    assert re.search(rf"\b(F|torch)\.{function}\(", forward)


@pytest.mark.parametrize("cell", some("call"))
def test_the_pure_call_equals_it(cell: str) -> None:
    name, row = PORTS[cell]
    assert differences(name, row, row.port.call) == []


@pytest.mark.parametrize("cell", some("naive_call"))
def test_a_naive_port_is_rejected(cell: str) -> None:
    name, row = PORTS[cell]
    assert differences(name, row, row.port.naive_call)


@pytest.mark.slow
@pytest.mark.parametrize("cell", PORTS)
def test_the_kits_layer_is_pytorchs(cell: str) -> None:
    name, row = PORTS[cell]
    assert apart_at_first(name, row.layer) == []
    if row.of != FIRST:
        assert differences_of_layer(name, row.layer, jit=False) == []
