"""A module's weights from files of every kind; the rules that users register for Flax's layers."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from helpers.commands import python, without
from helpers.weights_files import saved, shards
from safetensors.torch import save_file

from twinstep import InputError
from twinstep.jax import nn
from twinstep.jax.layout import Rule, load_params, module_layout
from twinstep.jax.nn.rules import RULES

BIAS = Rule(("bias",), None)
TURNED = {"weight": Rule(("kernel",), (3, 2, 0, 1)), "bias": BIAS}
"""Of a transposed convolution with transpose_kernel=True: (H, W, out, in) to (in, out, H, W)."""
X = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype("float32")  # (B, H, W, C)
ROWS = X[0].reshape(30, 3)


def pair() -> tuple[nn.Module, torch.nn.Module]:
    """A small network in both, of other numbers each."""
    torch.manual_seed(0)
    layers = torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), torch.nn.Sequential(
        *layers
    )


def agree(ours: nn.Module, theirs: torch.nn.Module) -> bool:
    """Whether both compute the same of 30 rows, in evaluation."""
    found, expected = ours.eval()(jnp.asarray(ROWS)), theirs.eval()(torch.from_numpy(ROWS))
    # float32 through three layers: numbers of about 1 are moved by some 1e-7
    return bool(np.abs(np.asarray(found) - expected.detach().numpy()).max() <= 1e-6)


def arrays(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Its state_dict in NumPy."""
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def wrapped(model: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """A state_dict behind what a wrapper puts before each name."""
    return {prefix + name: tensor for name, tensor in model.state_dict().items()}


def kept(folder: Path, value: Any, name: str = "model.pt") -> Path:
    """A file of PyTorch's."""
    torch.save(value, folder / name)
    return folder / name


FILES: dict[str, Callable[[Path, torch.nn.Module], Path]] = {
    "safetensors": lambda folder, model: saved(folder, arrays(model)),
    "shards": lambda folder, model: shards(folder, arrays(model))[0],
    "pt": lambda folder, model: kept(folder, model.state_dict()),
    "bin": lambda folder, model: kept(folder, model.state_dict(), "pytorch_model.bin"),
    "checkpoint": lambda folder, model: kept(folder, {"model": model.state_dict(), "step": 3}),
    "DDP": lambda folder, model: kept(folder, wrapped(model, "module.")),
    "compiled": lambda folder, model: kept(folder, {"state_dict": wrapped(model, "_orig_mod.")}),
    "both": lambda folder, model: kept(folder, wrapped(model, "module._orig_mod."), "model.pth"),
}


@pytest.mark.parametrize("kind", FILES)
def test_what_is_loaded_computes_what_pytorch_does(kind: str, tmp_path: Path) -> None:
    ours, theirs = pair()
    assert not agree(ours, theirs)
    nn.load_state_dict(ours, FILES[kind](tmp_path, theirs))
    assert agree(ours, theirs)
    for name, array in nn.state_dict(ours).items():
        np.testing.assert_array_equal(array, arrays(theirs)[name])


def test_shards_whose_tensors_are_swapped_are_noticed(tmp_path: Path) -> None:
    """Of one shape, so that no name or shape tells."""
    ours, theirs = pair()
    named = arrays(theirs)
    named["1.weight"], named["1.bias"] = named["1.bias"], named["1.weight"]
    nn.load_state_dict(ours, shards(tmp_path, named)[0])
    assert not agree(ours, theirs)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_module_of_that_name_keeps_it(prefix: str, tmp_path: Path) -> None:
    ours = nn.ModuleDict({"module": nn.Linear(3, 2)})
    theirs = torch.nn.ModuleDict({"module": torch.nn.Linear(3, 2)})
    nn.load_state_dict(ours, kept(tmp_path, wrapped(theirs, prefix)))
    np.testing.assert_array_equal(ours["module"].weight, arrays(theirs)["module.weight"])


def test_a_prefix_of_some_names_alone_is_no_wrapper(tmp_path: Path) -> None:
    named = arrays(torch.nn.Linear(3, 2))
    file = saved(tmp_path, {"module.weight": named["weight"], "bias": named["bias"]})
    with pytest.raises(InputError, match=r"missing 'weight'; unexpected 'module\.weight'"):
        nn.load_state_dict(nn.Linear(3, 2), file)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_another_dtype_is_asked_for_or_refused(dtype: str, suffix: str, tmp_path: Path) -> None:
    kind, file = getattr(torch, dtype), tmp_path / f"model{suffix}"
    state = {name: t.to(kind) for name, t in torch.nn.Linear(3, 2, bias=False).state_dict().items()}
    torch.save(state, file) if suffix == ".pt" else save_file(state, file)
    with jax.enable_x64(True):
        for held in ("float64", "float32", "float16", "bfloat16"):
            layer = nn.Linear(3, 2, bias=False, dtype=held)
            if held != dtype:
                says = f"'weight' is {dtype}, expected {held}, or cast=True"
                with pytest.raises(InputError, match=says):
                    nn.load_state_dict(layer, file)
            nn.load_state_dict(layer, file, cast=held != dtype)
            expected = state["weight"].to(getattr(torch, held)).double().numpy()
            assert layer.weight.dtype == held
            np.testing.assert_array_equal(layer.weight[...].astype("float64"), expected)


def test_a_file_of_another_model_is_one_line_and_nothing_is_loaded(tmp_path: Path) -> None:
    ours, theirs = pair()
    before = nn.state_dict(ours)
    state: dict[str, Any] = theirs.state_dict() | {"3.weight": torch.ones(1)}
    state["0.bias"] = torch.full((4,), torch.nan)
    del state["2.bias"]
    says = "load_state_dict: missing '2.bias'; unexpected '3.weight'; '0.bias' has NaN"
    with pytest.raises(InputError, match=re.escape(says)):
        nn.load_state_dict(ours, kept(tmp_path, {"state_dict": state}))
    with pytest.raises(InputError, match=r"asks for torch.nn.modules.container.Sequential, "):
        nn.load_state_dict(ours, kept(tmp_path, theirs))
    for name, array in nn.state_dict(ours).items():
        np.testing.assert_array_equal(array, before[name])


WITHOUT_TORCH = """
import sys
from twinstep.jax import nn
nn.load_state_dict(nn.Linear(3, 2), "in.safetensors")
try:
    nn.load_state_dict(nn.Linear(3, 2), "model.pt")
except ValueError as error:
    print(error)
"""


def test_a_pt_asks_for_pytorch_and_nothing_else_does(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    saved(tmp_path, arrays(model))
    kept(tmp_path, model.state_dict())
    said = python("-c", without("torch") + WITHOUT_TORCH, cwd=tmp_path).well()
    assert said == 'model.pt needs torch, not installed: pip install "twinstep[torch]"\n'


# Rules of Flax's layers


class Upsampling(nnx.ConvTranspose):
    """PyTorch's transposed convolution, by its flag."""

    def __init__(self) -> None:
        super().__init__(
            3, 4, (3, 3), strides=2, padding="VALID", transpose_kernel=True, rngs=nnx.Rngs(0)
        )


class Smaller(Upsampling):
    """Made from it."""


@pytest.fixture
def _registered() -> Any:
    nn.register(Upsampling, TURNED)
    yield
    del RULES[Upsampling]


def upsampled(layer: Any, theirs: torch.nn.Module) -> float:
    """How far the outputs of both are apart."""
    found = np.moveaxis(np.asarray(layer(jnp.asarray(X))), -1, 1)
    expected = theirs(torch.from_numpy(np.moveaxis(X, -1, 1))).detach().numpy()
    return float(np.abs(found - expected).max())


@pytest.mark.usefixtures("_registered")
@pytest.mark.parametrize("kind", [Upsampling, Smaller])
def test_a_rule_that_is_registered_once_is_followed_by_all(kind: Any, tmp_path: Path) -> None:
    layer, theirs = kind(), torch.nn.ConvTranspose2d(3, 4, 3, stride=2)
    nn.load_state_dict(layer, kept(tmp_path, theirs.state_dict()))
    assert upsampled(layer, theirs) <= 1e-6  # float32 sums of 27 products of about 1
    for name, array in nn.state_dict(layer).items():
        np.testing.assert_array_equal(array, arrays(theirs)[name])
    params = nnx.state(layer, nnx.Param)
    np.testing.assert_array_equal(
        module_layout(layer).to_torch(params)["weight"], arrays(theirs)["weight"]
    )
    again = kind()
    load_params(again, arrays(theirs))
    np.testing.assert_array_equal(again.kernel[...], layer.kernel[...])


@pytest.mark.usefixtures("_registered")
def test_rules_of_one_call_come_before_those_registered() -> None:
    """And a kernel that is turned is noticed."""
    layer, theirs = Upsampling(), torch.nn.ConvTranspose2d(3, 4, 3, stride=2)
    wrong = {"weight": Rule(("kernel",), (3, 2, 1, 0)), "bias": BIAS}
    nn.load_state_dict(layer, arrays(theirs), rules={Upsampling: wrong})
    assert upsampled(layer, theirs) > 0.1


@pytest.mark.usefixtures("_registered")
def test_a_rule_that_is_none_is_refused() -> None:
    nn.register(Upsampling, dict(TURNED))  # the same again, as where a module is loaded anew
    for kind, rules, says in (
        (nnx.Linear, TURNED, "register: Linear has rules already, weight, bias; expected those"),
        ("Conv", TURNED, "register: kind is 'Conv', expected a class of nnx.Module"),
        (Smaller, {}, "register: rules is {}, expected {PyTorch's name: Rule}"),
        (Smaller, {"weight": "kernel"}, "register: rules has 'weight': 'kernel', expected a name"),
    ):
        with pytest.raises(InputError, match=re.escape(says)):
            nn.register(kind, rules)  # type: ignore[arg-type]  # as it should not be
    assert Smaller not in RULES


def test_a_layer_without_a_rule_says_how_to_register_one() -> None:
    layer = nnx.ConvTranspose(3, 4, (3, 3), rngs=nnx.Rngs(0))
    for call in (nn.state_dict, module_layout):
        with pytest.raises(InputError, match=r"rules=\{ConvTranspose: ...\}, or by nn.register"):
            call(layer)


def test_instance_norm_is_known(tmp_path: Path) -> None:
    theirs = torch.nn.InstanceNorm2d(3, affine=True)
    torch.nn.init.normal_(theirs.weight)
    torch.nn.init.normal_(theirs.bias)
    layer = nnx.InstanceNorm(3, epsilon=1e-5, rngs=nnx.Rngs(0))
    nn.load_state_dict(layer, kept(tmp_path, theirs.state_dict()))
    assert upsampled(layer, theirs) <= 1e-5  # float32 means of 30 numbers
