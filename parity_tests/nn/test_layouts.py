"""Which names and axes a model's parameters have in PyTorch: what no rule says is refused."""

import re
from collections.abc import Callable
from typing import Any

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from twinstep.errors import InputError
from twinstep.jax.layout import Rule, load_params, module_layout
from twinstep.jax.nn import Embedding
from twinstep.jax.optim import in_torch_layout, muon

RNGS = nnx.Rngs(0)


class Square(nnx.ConvTranspose):
    """Of a kernel that would fit as it is."""

    def __init__(self) -> None:
        super().__init__(3, 3, (3, 3), rngs=RNGS)


class SquareConv(nnx.Conv):
    """The same, of a kind that has a rule."""

    def __init__(self) -> None:
        super().__init__(3, 3, (3, 3), rngs=RNGS)


class Known(nnx.Linear):
    """A layer that is of a known kind."""


class Low(nnx.LoRALinear):
    """Flax's own, made from a layer in the table."""


class Whole(nnx.Module):
    """Layers under names."""

    def __init__(self, *layers: Any) -> None:
        self.blocks = nnx.List([nnx.Dict(main=layer) for layer in layers])


LAYERS: dict[str, Callable[[], Any]] = {
    "ConvTranspose": lambda: nnx.ConvTranspose(3, 3, (3, 3), rngs=RNGS),
    "a subclass": Square,
    "LoRALinear": lambda: nnx.LoRALinear(3, 3, lora_rank=2, rngs=RNGS),
    "a subclass of LoRALinear": lambda: Low(3, 3, lora_rank=2, rngs=RNGS),
    "LinearGeneral": lambda: nnx.LinearGeneral(3, 3, rngs=RNGS),
    "Einsum": lambda: nnx.Einsum("ab,bc->ac", (3, 3), rngs=RNGS),
    "MultiHeadAttention": lambda: nnx.MultiHeadAttention(1, 3, rngs=RNGS),
    "PReLU": nnx.PReLU,
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_of_flaxs_without_a_rule_is_refused(kind: str) -> None:
    layer = LAYERS[kind]()
    with pytest.raises(
        InputError, match=r"of layer 'blocks\.0\.main(\.\w+)?', a [\w.]+, has no rule"
    ):
        module_layout(Whole(layer))
    with pytest.raises(InputError, match="has no rule"):
        load_params(layer, {})


def test_the_refusal_names_layer_class_and_rule() -> None:
    says = (
        f"'bias' of layer 'blocks.1.main', a {__name__}.Square, has no rule, expected one in rules"
    )
    with pytest.raises(InputError, match=re.escape(says + "={ConvTranspose: ...}")):
        module_layout(Whole(nnx.Linear(2, 2, rngs=RNGS), Square()))


CONV = {"weight": Rule(("kernel",), (3, 2, 0, 1)), "bias": Rule(("bias",), None)}
NORM = {"weight": Rule(("scale",), None), "bias": Rule(("bias",), None)}


def test_rules_of_ones_own() -> None:
    """Of a convolution, whose axes are not their own inverse, a subclass, and a norm."""
    model = Whole(nnx.Conv(2, 4, (5, 3), rngs=RNGS), nnx.LayerNorm(4, rngs=RNGS), SquareConv())
    rules = {nnx.Conv: CONV, nnx.LayerNorm: NORM}
    twin = torch.nn.ModuleList(
        torch.nn.ModuleDict({"main": layer})
        for layer in (
            torch.nn.Conv2d(2, 4, (5, 3)),
            torch.nn.LayerNorm(4),
            torch.nn.Conv2d(3, 3, 3),
        )
    )
    named = {f"blocks.{name}": p.detach().numpy() for name, p in twin.named_parameters()}
    load_params(model, named, rules=rules)
    kernel = model.blocks[0]["main"].kernel[...]
    np.testing.assert_array_equal(kernel, named["blocks.0.main.weight"].transpose(2, 3, 1, 0))
    back = module_layout(model, rules=rules).to_torch(nnx.state(model, nnx.Param))
    assert back.keys() == named.keys()
    for name, array in named.items():
        np.testing.assert_array_equal(back[name], array)


def test_rules_come_before_those_that_are_known() -> None:
    rules = {Known: {"w": Rule(("kernel",), None), "b": Rule(("bias",), None)}}
    (_, weight) = module_layout(Known(2, 3, rngs=RNGS), rules=rules).slots
    assert (weight.names, weight.shape) == (("w",), (2, 3))
    assert module_layout(nnx.Linear(2, 3, rngs=RNGS), rules=rules).slots[1].names == ("weight",)


def test_a_rule_of_other_axes_is_refused() -> None:
    with pytest.raises(InputError, match=r"'kernel' has 3 axes, its rule \(3, 2, 0, 1\)"):
        module_layout(nnx.Conv(2, 2, 3, rngs=RNGS), rules={nnx.Conv: CONV})
    with pytest.raises(InputError, match=r"'bias' of layer '', a [a-z.]+Conv, has no rule"):
        module_layout(
            nnx.Conv(2, 2, (3, 3), rngs=RNGS), rules={nnx.Conv: {"weight": CONV["weight"]}}
        )


class Own(nnx.Linear):
    """With a parameter of its own."""

    def __init__(self) -> None:
        super().__init__(2, 2, rngs=RNGS)
        self.gain = nnx.Param(jnp.ones((2, 3)))


class Layered(nnx.Module):
    """An attribute `layers`, as many models have it."""

    def __init__(self) -> None:
        first, second = (nnx.Linear(2, 2, rngs=RNGS) for _ in range(2))
        self.layers = nnx.List([first, nnx.Sequential(second, Own())])


def test_names_are_torchs() -> None:
    """An attribute `layers` keeps its name; Sequential's own has none in PyTorch."""
    found = {slot.names[0]: slot.axes for slot in module_layout(Layered()).slots}
    assert found == {
        "layers.0.weight": (1, 0),
        "layers.0.bias": None,
        "layers.1.0.weight": (1, 0),
        "layers.1.0.bias": None,
        "layers.1.1.weight": (1, 0),
        "layers.1.1.bias": None,
        "layers.1.1.gain": None,
    }


@pytest.mark.parametrize(
    "model", [flax.linen.Dense(3), {}, nnx.Linear], ids=["linen", "dict", "class"]
)
def test_what_is_no_nnx_module_is_refused(model: Any) -> None:
    with pytest.raises(
        InputError, match=r"module_layout: model is a .*, expected a flax\.nnx\.Module"
    ):
        module_layout(model)


# Layers that are given what PyTorch's are not


@pytest.mark.parametrize("number", [-1, 3, 2**31 - 1])
def test_a_number_that_is_no_rows_is_refused(number: int) -> None:
    """As PyTorch refuses it; a compiled function, which can't, gives NaN."""
    layer = Embedding(3, 2)
    table = jnp.arange(6.0).reshape(3, 2)
    load_params(layer, {"weight": table})
    with pytest.raises(IndexError):
        torch.nn.Embedding(3, 2)(torch.tensor([0, number]))
    with pytest.raises(InputError, match=f"embedding: input has {number}, expected 0 to 2"):
        layer(jnp.array([0, number]))
    graph, params = nnx.split(layer)
    ids = jnp.array([2, number, 0])
    rows = jax.jit(lambda params, ids: nnx.merge(graph, params)(ids))(params, ids)
    np.testing.assert_array_equal(rows, jnp.stack([table[2], jnp.full(2, jnp.nan), table[0]]))


def test_a_layout_of_ones_own_rules_is_that_of_an_optimizer() -> None:
    model = nnx.Conv(2, 3, 1, use_bias=False, rngs=RNGS)
    rule = {"weight": Rule(("kernel",), (2, 1, 0))}
    layout, params = module_layout(model, rules={nnx.Conv: rule}), nnx.state(model, nnx.Param)
    with pytest.raises(InputError, match="expected a matrix"):
        in_torch_layout(muon(), layout).init(params)
