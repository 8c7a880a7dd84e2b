"""torch.nn.utils besides parametrizations and rnn: norms by their old names, fused layers,
parameters as a vector, clipped gradients, modules called with other arrays.
"""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from helpers.computed_weights import (
    ALLOWED,
    F64,
    Made,
    differences,
    in_kit,
    in_pytorch,
    numbers,
    trained_apart,
)
from helpers.kit_parity import apart, largest

from twinstep import InputError
from twinstep.jax import nn
from twinstep.jax.nn.utils import fusion, own_norms

pytestmark = [pytest.mark.quick_to_compile, pytest.mark.usefixtures("x64")]

LINEAR = "Linear", (3, 5), (2, 3)
CONV = "Conv2d", (4, 6, 2), (1, 4, 3, 3)
TURNED = "ConvTranspose1d", (4, 6, 3), (1, 4, 3)
LSTM = "LSTM", (3, 4), (3, 2, 3)
MADE = {
    "weight": Made(*LINEAR, "weight_norm"),
    "weight-conv-1": Made(*CONV, "weight_norm", options={"dim": 1}),
    "weight-none": Made(*LINEAR, "weight_norm", options={"dim": None}),
    "weight-bias": Made(*LINEAR, "weight_norm", "bias"),
    "weight-lstm": Made(*LSTM, "weight_norm", "weight_hh_l0"),
    "spectral": Made(*LINEAR, "spectral_norm"),
    "spectral-conv": Made(*CONV, "spectral_norm", options={"n_power_iterations": 2, "dim": 1}),
    "spectral-eps": Made(*LINEAR, "spectral_norm", options={"eps": 2.0}),
    "spectral-turned": Made(*TURNED, "spectral_norm"),
    "spectral-lstm": Made(*LSTM, "spectral_norm", "weight_ih_l0"),
}
QUICK = {"weight", "spectral", "spectral-turned"}
"""Of MADE, what make test compiles; test-slow has all, and all without jit."""


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in MADE]
)
def test_old_norms_are_pytorchs(name: str) -> None:
    assert differences(MADE[name]) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_old_norms_are_pytorchs_eagerly(name: str) -> None:
    assert differences(MADE[name], jit=False) == []


def left_first(matrix: Any, u: Any, v: Any, steps: int, eps: float, **_: Any) -> Any:
    """As parametrizations.spectral_norm."""
    return POWER(matrix, u, v, steps, eps, left_first=True)


def never_stepped(matrix: Any, u: Any, v: Any, *_: Any, **__: Any) -> Any:
    return u, v


def norm_over_all(v: Any, g: Any, dim: Any) -> Any:
    return v * (g / jnp.linalg.norm(v))


POWER = own_norms.power_steps
NAIVE = [
    ("spectral", "power_steps", left_first),
    ("spectral", "power_steps", never_stepped),
    ("weight", "rescaled", norm_over_all),
]


@pytest.mark.parametrize(
    ("name", "function", "naive"), NAIVE, ids=[row[2].__name__ for row in NAIVE]
)
def test_a_naive_norm_is_reported(
    name: str, function: str, naive: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_norms, function, naive)
    assert differences(MADE[name]) != []


def old(norm: str, layer: Any, *args: Any, **kwargs: Any) -> Any:
    """PyTorch's, which warns that it is old."""
    with warnings.catch_warnings(action="ignore"):
        return getattr(torch.nn.utils, norm)(layer, *args, **kwargs)


@pytest.mark.parametrize("norm", ["weight", "spectral"])
def test_they_are_removed(norm: str) -> None:
    theirs, ours = in_pytorch(MADE[norm]), in_kit(MADE[norm])
    theirs(torch.tensor(numbers(2, 3)))
    ours(jnp.asarray(numbers(2, 3)))
    getattr(torch.nn.utils, f"remove_{norm}_norm")(theirs)
    getattr(nn.utils, f"remove_{norm}_norm")(ours)
    assert differences(MADE[norm], theirs=theirs, ours=ours) == []


def net() -> torch.nn.Module:
    return torch.nn.Sequential(
        old("weight_norm", torch.nn.Conv1d(2, 4, 3, **F64)),
        torch.nn.Tanh(),
        torch.nn.Flatten(),
        old("spectral_norm", torch.nn.Linear(16, 4, **F64)),
    )


def test_trainings_are_pytorchs() -> None:
    """20 steps, compiled. The arrays are near 1, and rounding adds near 1e-15 a step."""
    torch.manual_seed(3)
    assert trained_apart(net(), (3, 2, 6), (3, 4)) <= 1e-12


# ------------------------------------------------------------------------------- fused layers

LAYERS: dict[str, tuple[str, tuple[Any, ...], dict[str, Any], dict[str, Any]]] = {
    "conv": ("Conv2d", (4, 6, 2), {}, {}),
    "conv-no-bias": ("Conv1d", (4, 6, 2), {"bias": False, "groups": 2}, {"eps": 0.3}),
    "conv-no-affine": ("Conv1d", (4, 6, 2), {}, {"affine": False}),
    "turned": ("ConvTranspose2d", (4, 6, 2), {}, {"eps": 0.3}),
    "linear": ("Linear", (4, 6), {}, {"eps": 0.3}),
    "linear-no-bias": ("Linear", (4, 6), {"bias": False}, {}),
}


def fused(home: Any, name: str) -> Any:
    """A layer and a batch norm fused, after the same seed, and what they were made of."""
    kind, args, kwargs, options = LAYERS[name]
    more = F64 if home is torch.nn else {}
    home.manual_seed(0) if home is nn else torch.manual_seed(0)
    layer = getattr(home, kind)(*args, **kwargs, **more).eval()
    norm = getattr(home, f"BatchNorm{'2d' if '2d' in kind else '1d'}")(6, **options, **more).eval()
    values = {
        n: a if n.endswith("tracked") else abs(numbers(6, seed=i)) + 0.5
        for i, (n, a) in enumerate(
            nn.state_dict(norm).items() if home is nn else norm.state_dict().items()
        )
    }
    if home is nn:
        nn.load_state_dict(norm, values)
    else:
        norm.load_state_dict({n: torch.as_tensor(a) for n, a in values.items()})
    before = copy.deepcopy(layer)
    if kind == "Linear":
        return home.utils.fuse_linear_bn_eval(layer, norm), before, norm
    return home.utils.fuse_conv_bn_eval(layer, norm, "Transpose" in kind), before, norm


def fused_apart(name: str) -> float:
    """How far the fused layer is from PyTorch's, of the largest entry; inf: other names."""
    (ours, *_), (theirs, *_) = fused(nn, name), fused(torch.nn, name)
    found, wanted = nn.state_dict(ours), theirs.state_dict()
    if list(found) != list(wanted):
        return float("inf")
    return max(apart(found[n], a.numpy()) / largest([a.numpy()]) for n, a in wanted.items())


@pytest.mark.parametrize("name", LAYERS)
def test_fused_layers_are_pytorchs(name: str) -> None:
    """And give what the two gave; the layer is left as it was."""
    assert fused_apart(name) <= ALLOWED
    one, layer, norm = fused(nn, name)
    x = jnp.asarray(numbers(2, 4, 3, 3) if "2d" in LAYERS[name][0] else numbers(2, 4, 3))
    x = x[..., 0] if LAYERS[name][0] == "Linear" else x
    np.testing.assert_allclose(one(x), norm(layer(x)), rtol=1e-12, atol=1e-13)
    theirs = fused(torch.nn, name)[0]
    for param, other in zip(one.parameters(), theirs.parameters(), strict=True):
        assert param.get_metadata()["requires_grad"] == other.requires_grad


@pytest.mark.parametrize("name", ["conv-no-bias", "linear"])
def test_fused_without_eps_is_reported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def settings(bn: Any) -> Any:
        return bn.running_mean, bn.running_var, 0.0, bn.weight, bn.bias

    monkeypatch.setattr(fusion, "_settings", settings)
    assert not fused_apart(name) <= ALLOWED


# ------------------------------------------------------------------------------- a vector


def test_parameters_as_a_vector_and_back() -> None:
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 4, **F64), torch.nn.Conv1d(2, 3, 2, **F64))
    ours = nn.from_torch(theirs)
    found = nn.utils.parameters_to_vector(ours.parameters())
    wanted = torch.nn.utils.parameters_to_vector(theirs.parameters())
    np.testing.assert_array_equal(found, wanted.detach().numpy())
    listed = nn.utils.parameters_to_vector([p[...] for p in ours.parameters()])
    np.testing.assert_array_equal(listed, found)
    given = numbers(found.size + 2)  # what is over is left out, as in PyTorch
    nn.utils.vector_to_parameters(jnp.asarray(given), ours.parameters())
    torch.nn.utils.vector_to_parameters(torch.tensor(given), theirs.parameters())
    for name, tensor in theirs.state_dict().items():
        np.testing.assert_array_equal(nn.state_dict(ours)[name], tensor.numpy())
    back = jax.jit(lambda state: nn.utils.parameters_to_vector(jax.tree.leaves(state)))
    assert back(nnx.state(ours, nnx.Param)).size == found.size


# ------------------------------------------------------------------------------- clipped gradients


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, float("inf"), float("-inf"), 0.0])
@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clipped_gradients_are_pytorchs(norm_type: float, max_norm: float) -> None:
    grads = [numbers(3, 4), numbers(5, seed=1)]
    held: list[Any] = [torch.nn.Parameter(torch.zeros(g.shape, **F64)) for g in grads]
    for param, grad in zip(held, grads, strict=True):
        param.grad = torch.tensor(grad)
    wanted = torch.nn.utils.clip_grad_norm_(held, max_norm, norm_type)
    clipped, norm = nn.utils.clip_grad_norm_(list(map(jnp.asarray, grads)), max_norm, norm_type)
    assert apart(norm, wanted.numpy()) <= ALLOWED * float(wanted)
    for one, param in zip(clipped, held, strict=True):
        assert apart(one, param.grad.numpy()) <= ALLOWED
    torch.nn.utils.clip_grad_value_(held, 0.1)
    for one, param in zip(nn.utils.clip_grad_value_(clipped, 0.1), held, strict=True):
        assert apart(one, param.grad.numpy()) <= ALLOWED


def test_a_norm_that_is_not_finite() -> None:
    grads = [jnp.array([1.0, jnp.inf])]
    assert jnp.isinf(nn.utils.get_total_norm(grads))
    with pytest.raises(InputError, match="the norm is inf"):
        nn.utils.clip_grad_norm_(grads, 1.0, error_if_nonfinite=True)


# ------------------------------------------------------------------------------- other arrays


class Both(nn.Module):
    def __init__(self) -> None:
        self.one, self.norm = nn.Linear(3, 3), nn.BatchNorm1d(3)
        self.two = nn.Linear(3, 3, bias=False)
        self.two.weight = self.one.weight

    def forward(self, x: Any) -> Any:
        return self.two(self.norm(self.one(x)))


class TorchBoth(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = torch.nn.Linear(3, 3, **F64), torch.nn.BatchNorm1d(3, **F64)
        self.two = torch.nn.Linear(3, 3, bias=False, **F64)
        self.two.weight = self.one.weight

    def forward(self, x: Any) -> Any:
        return self.two(self.norm(self.one(x)))


def both() -> tuple[Any, Any]:
    torch.manual_seed(0)
    nn.manual_seed(0)
    return TorchBoth(), Both()


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize(
    "names", [("one.weight", "one.bias", "norm.running_mean"), ("two.weight",)]
)
def test_functional_call_is_pytorchs(names: tuple[str, ...], tie: bool) -> None:
    """Buffers that are given are changed in the dict; the module is not."""
    theirs, ours = both()
    arrays = {n: numbers(*nn.state_dict(ours)[n].shape, seed=i) for i, n in enumerate(names)}
    given = {n: torch.tensor(a) for n, a in arrays.items()}
    named = {n: jnp.asarray(a) for n, a in arrays.items()}
    before, x = nn.state_dict(ours), numbers(4, 3)
    wanted = torch.func.functional_call(theirs, given, (torch.tensor(x),), tie_weights=tie)
    call = nn.utils.stateless.functional_call
    found = call(ours, named, (jnp.asarray(x),), tie_weights=tie)
    assert apart(found, wanted.detach().numpy()) <= ALLOWED * 10  # the largest entry is near 10
    for name, tensor in given.items():
        assert apart(named[name], tensor.numpy()) <= ALLOWED
    for name, array in nn.state_dict(ours).items():
        np.testing.assert_array_equal(array, before[name])
    compiled = jax.jit(lambda named: call(ours, named, jnp.asarray(x), tie_weights=tie))
    arrays = {n: jnp.asarray(a) for n, a in arrays.items()}
    np.testing.assert_allclose(compiled(arrays), found, rtol=1e-12)
    assert set(jax.grad(lambda named: compiled(named).sum())(arrays)) == set(names)


def test_functional_call_of_a_parametrized_weight() -> None:
    """By its own name it is taken as it is."""
    ours = nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
    call, x = nn.utils.stateless.functional_call, jnp.ones((1, 3))
    weight, bias = jnp.full((3, 3), 2.0), jnp.zeros(3)
    assert call(ours, {"weight": weight, "bias": bias}, x).tolist() == [[6.0, 6.0, 6.0]]
    original = {"parametrizations.weight.original0": jnp.zeros((3, 1)), "bias": bias}
    assert call(ours, original, x).tolist() == [[0.0, 0.0, 0.0]]


# ------------------------------------------------------------------------------- what is refused

REFUSED: dict[str, tuple[str, Callable[[Any, Any, Any], object]]] = {
    "no such weight": ("no is NoneType", lambda u, m, _: u.weight_norm(m, "no")),
    "no such weight for spectral norm": ("no is None", lambda u, m, _: u.spectral_norm(m, "no")),
    "twice": ("has it", lambda u, m, _: u.weight_norm(u.weight_norm(m))),
    "spectral norm twice": ("has it", lambda u, m, _: u.spectral_norm(u.spectral_norm(m))),
    "none to remove": ("has none", lambda u, m, _: u.remove_weight_norm(m)),
    "no spectral norm to remove": ("has none", lambda u, m, _: u.remove_spectral_norm(m)),
    "no steps": ("n_power_iterations is 0", lambda u, m, _: u.spectral_norm(m, "weight", 0)),
    "an axis": ("dim is 2", lambda u, m, _: u.weight_norm(m, dim=2)),
    "training": ("trains", lambda u, m, b: u.fuse_linear_bn_eval(m.train(), b.eval())),
    "a batch norm in training": (
        "trains", lambda u, m, b: u.fuse_conv_bn_eval(m.eval(), b.train()),
    ),
    "other features": (
        "3 features", lambda u, m, b: u.fuse_linear_bn_eval(m.eval(), b.eval()),
    ),
    "no parameters": ("none", lambda u, m, _: u.parameters_to_vector([])),
    "no vector": ("vec is list", lambda u, m, _: u.vector_to_parameters([1.0], m.parameters())),
    "a short vector": (
        "has shape", lambda u, m, _: u.vector_to_parameters(m.bias[...], m.parameters()),
    ),
    "missing and unexpected names": (
        "unexpected 'no', missing 'weight', missing 'bias'",
        lambda u, m, _: u.stateless.functional_call(m, {"no": m.bias}, m.bias, strict=True),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_what_pytorch_refuses_is_refused(what: str) -> None:
    says, call = REFUSED[what]
    kinds = (
        ValueError,
        IndexError,
        KeyError,
        AttributeError,
        RuntimeError,
        TypeError,
        AssertionError,
    )
    with pytest.raises(kinds):
        call(torch.nn.utils, torch.nn.Linear(3, 4, **F64), torch.nn.BatchNorm1d(3, **F64))
    with pytest.raises(InputError, match=says) as caught:
        call(nn.utils, nn.Linear(3, 4), nn.BatchNorm1d(3))
    assert "\n" not in str(caught.value)


def test_what_cannot_be_in_jax_is_refused() -> None:
    ours: Any = nn.utils.weight_norm(nn.Linear(3, 4))
    arrays: list[Any] = [jnp.ones(3)]
    with pytest.raises(InputError, match="weight is computed of others"):
        ours.weight = jnp.ones((4, 3))
    with pytest.raises(InputError, match="an array cannot be written into"):
        nn.utils.vector_to_parameters(jnp.ones(3), arrays)
    two = {"one.weight": jnp.ones((3, 3)), "two.weight": jnp.zeros((3, 3))}
    with pytest.raises(InputError, match="are tied and have two arrays"):
        nn.utils.stateless.functional_call(both()[1], two, jnp.ones((2, 3)))
