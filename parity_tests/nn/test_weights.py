"""A module's arrays under PyTorch's names, there and back; what does not fit is refused at once."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.numpy import save_file

from twinstep import InputError
from twinstep.jax import nn


class Tied(nn.Module):
    """A language model's two ends, a table and a head of one weight, and a buffer of its own."""

    def __init__(self) -> None:
        self.wte = nn.Linear(3, 5)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.wte.weight
        self.register_buffer("mask", jnp.ones((2, 2)))
        self.register_buffer("passing", jnp.ones(2), persistent=False)

    def forward(self, x: Any) -> Any:
        return self.head(x) + self.wte(x)


class TorchTied(torch.nn.Module):
    """The same."""

    def __init__(self) -> None:
        super().__init__()
        self.wte = torch.nn.Linear(3, 5)
        self.head = torch.nn.Linear(3, 5, bias=False)
        self.head.weight = self.wte.weight
        self.register_buffer("mask", torch.ones(2, 2))
        self.register_buffer("passing", torch.ones(2), persistent=False)


class Flaxs(nnx.Module):
    """Flax's own layers, whose axes are others."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.net = nnx.Sequential(
            nnx.Conv(2, 3, (3, 4), rngs=rngs),
            nnx.BatchNorm(3, rngs=rngs),
            nnx.List([nnx.Linear(3, 2, rngs=rngs)]),
        )
        self.norms = nnx.Dict(a=nnx.LayerNorm(4, rngs=rngs), b=nnx.GroupNorm(4, 2, rngs=rngs))
        self.table = nnx.Embed(5, 3, rngs=rngs)


def flax_in_torch() -> torch.nn.Module:
    """Flaxs in PyTorch."""
    model = torch.nn.Module()
    inner = torch.nn.ModuleList([torch.nn.Linear(3, 2)])
    model.net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, (3, 4)), torch.nn.BatchNorm2d(3), inner)
    a, b = torch.nn.LayerNorm(4), torch.nn.GroupNorm(2, 4)
    model.norms = torch.nn.ModuleDict({"a": a, "b": b})
    model.table = torch.nn.Embedding(5, 3)
    return model


def arrays(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """A state_dict in NumPy, of numbers that are all different."""
    named = {n: a for n, a in model.state_dict().items() if not n.endswith("batches_tracked")}
    return {
        name: np.random.default_rng(i).normal(size=a.shape).astype("float32")
        for i, (name, a) in enumerate(named.items())
    }


@pytest.mark.parametrize("made", [(Tied, TorchTied), (Flaxs, flax_in_torch)], ids=["kit", "flax"])
def test_there_and_back_are_the_same_bits(made: Any) -> None:
    ours, theirs = made[0](), made[1]()
    given = arrays(theirs)
    if made[0] is Tied:
        given["head.weight"] = given["wte.weight"]
    nn.load_state_dict(ours, given)
    back = nn.state_dict(ours)
    assert set(back) == set(given)
    for name, array in given.items():
        np.testing.assert_array_equal(back[name], array)
    assert made[0] is not Tied or list(back) == list(theirs.state_dict())


def test_a_conv_of_flaxs_computes_with_what_is_loaded() -> None:
    ours, theirs = (
        nnx.Conv(2, 3, (3, 4), padding="VALID", rngs=nnx.Rngs(0)),
        torch.nn.Conv2d(2, 3, (3, 4)),
    )
    nn.load_state_dict(ours, {n: a.detach().numpy() for n, a in theirs.named_parameters()})
    x = np.random.default_rng(0).normal(size=(1, 2, 5, 6)).astype("float32")
    found = jnp.moveaxis(ours(jnp.moveaxis(jnp.asarray(x), 1, -1)), -1, 1)
    np.testing.assert_allclose(found, theirs(torch.tensor(x)).detach(), atol=1e-6)


def test_a_tied_weight_is_one_and_its_gradient_has_both_names() -> None:
    model = Tied()
    assert [name for name, _ in model.named_parameters()] == ["wte.weight", "wte.bias"]
    grads = nnx.grad(lambda model: model(jnp.ones((1, 3))).sum())(model)
    named = nn.state_dict(model, grads)
    assert list(named) == ["wte.weight", "wte.bias", "head.weight"]
    np.testing.assert_array_equal(named["head.weight"], named["wte.weight"])
    np.testing.assert_array_equal(named["wte.weight"], np.full((5, 3), 2.0))


def fit(**changes: Any) -> dict[str, Any]:
    """A layer's state_dict, with some entries others; None: not there."""
    named = {"weight": np.ones((2, 3), "float32"), "bias": np.zeros(2, "float32")} | changes
    return {name: array for name, array in named.items() if array is not None}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            fit(weight=np.ones((3, 2), "float32"), bias=None, scale=np.ones(1)),
            "missing 'bias'; unexpected 'scale'; 'weight' has shape (3, 2), expected (2, 3)",
        ),
        (fit(weight=np.ones((2, 3))), "'weight' is float64, expected float32, or cast=True"),
        (fit(bias=np.array([1, np.nan], "float32")), "'bias' has NaN"),
    ],
)
def test_all_that_does_not_fit_is_said_at_once(given: Any, says: str) -> None:
    layer = nn.Linear(3, 2)
    before = nn.state_dict(layer)
    with pytest.raises(InputError, match=re.escape(says)):
        nn.load_state_dict(layer, given)
    for name, array in nn.state_dict(layer).items():
        np.testing.assert_array_equal(array, before[name])


def test_what_is_asked_for_is_done() -> None:
    layer = nn.Linear(3, 2)
    nn.load_state_dict(layer, fit(weight=np.ones((2, 3))), cast=True)
    nn.load_state_dict(layer, {"weight": np.full((2, 3), 2, "float32"), "more": 0}, strict=False)
    assert layer.weight.dtype == jnp.float32
    assert layer.weight.sum() == 12


def test_a_file_of_safetensors(tmp_path: Path) -> None:
    layer = nn.Linear(3, 2)
    save_file(fit(), tmp_path / "model.safetensors")
    nn.load_state_dict(layer, tmp_path / "model.safetensors")
    assert layer.weight.sum() == 6
    (tmp_path / "odd.safetensors").write_bytes(b"odd")
    for name in ("odd.safetensors", "none.safetensors", "model.bin"):
        with pytest.raises(InputError, match=name):
            nn.load_state_dict(layer, tmp_path / name)


def test_a_layer_of_flaxs_without_a_rule_is_refused() -> None:
    with pytest.raises(InputError, match=r"main\.lora is Flax's LoRA, which has no rule"):
        nn.state_dict(nnx.Dict(main=nnx.LoRALinear(3, 3, lora_rank=2, rngs=nnx.Rngs(0))))


def test_under_jit() -> None:
    graph, params = nnx.split(Tied())
    named = jax.jit(lambda params: nn.state_dict(nnx.merge(graph, params)))(params)
    assert "head.weight" in named
    assert [name for name, _ in nnx.merge(graph, params).named_parameters()] == [
        "wte.weight",
        "wte.bias",
    ]
