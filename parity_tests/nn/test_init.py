"""torch.nn.init's numbers, bit for bit: from the same seed, in both dtypes, of every shape."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from twinstep import InputError, TorchGenerator
from twinstep.jax import nn

Fill = Callable[[Any, Any, Any], Any]
"""(nn.init of either, what is filled, a generator)"""
FILLS: dict[str, Fill] = {
    "uniform_": lambda init, w, g: init.uniform_(w, -0.3, 0.8, generator=g),
    "normal_": lambda init, w, g: init.normal_(w, 0.1, 0.02, generator=g),
    "trunc_normal_": lambda init, w, g: init.trunc_normal_(w, std=0.8, generator=g),
    "trunc_normal_ of a narrow part": lambda init, w, g: init.trunc_normal_(
        w, 0.0, 1.0, 1.5, 1.7, generator=g
    ),
    "constant_": lambda init, w, g: init.constant_(w, 0.3),
    "ones_": lambda init, w, g: init.ones_(w),
    "zeros_": lambda init, w, g: init.zeros_(w),
    "eye_": lambda init, w, g: init.eye_(w),
    "dirac_": lambda init, w, g: init.dirac_(w),
    "dirac_ of groups": lambda init, w, g: init.dirac_(w, 2),
    "xavier_uniform_": lambda init, w, g: init.xavier_uniform_(w, 5 / 3, generator=g),
    "xavier_normal_": lambda init, w, g: init.xavier_normal_(w, generator=g),
    "kaiming_uniform_": lambda init, w, g: init.kaiming_uniform_(w, 5**0.5, generator=g),
    "kaiming_normal_": lambda init, w, g: init.kaiming_normal_(
        w, mode="fan_out", nonlinearity="relu", generator=g
    ),
    "orthogonal_": lambda init, w, g: init.orthogonal_(w, 1.3, generator=g),
    "sparse_": lambda init, w, g: init.sparse_(w, 0.3, 0.5, generator=g),
}
CONVOLUTIONS: list[tuple[int, ...]] = [(4, 3, 3), (2, 4, 3, 2), (4, 2, 1, 2, 3)]
SHAPES: dict[str, list[tuple[int, ...]]] = {
    "sparse_": [(7, 4)],
    "eye_": [(3, 5)],
    "dirac_": CONVOLUTIONS,
    "dirac_ of groups": CONVOLUTIONS,
}
OTHERS: list[tuple[int, ...]] = [(3, 5), (2, 3), (20, 3, 4, 2), (9, 41)]
CASES = [(name, shape) for name in FILLS for shape in SHAPES.get(name, OTHERS)]
DRAWN = [n for n in FILLS if n not in SHAPES and n not in ("constant_", "ones_", "zeros_")]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "shape"), CASES)
def test_the_numbers_are_pytorchs(name: str, shape: tuple[int, ...], dtype: str) -> None:
    generator = torch.Generator().manual_seed(5)
    torch.manual_seed(6)
    wanted = FILLS[name](torch.nn.init, torch.empty(shape, dtype=getattr(torch, dtype)), generator)
    with jax.enable_x64(dtype == "float64"):
        nn.manual_seed(6)
        param = nnx.Param(jnp.zeros(shape, dtype))
        found = FILLS[name](nn.init, param, TorchGenerator(5))
        assert found is param
        nn.manual_seed(6)
        plain = FILLS[name](nn.init, jnp.zeros(shape, dtype), TorchGenerator(5))
        np.testing.assert_array_equal(plain, param[...])
        assert plain.dtype == dtype
    if name == "orthogonal_":  # QR's own rounding: 3 eps of entries up to 1.3 was measured
        bound = 8 * float(np.finfo(dtype).eps)
        np.testing.assert_allclose(found[...], wanted.numpy(), rtol=0, atol=bound)
    elif dtype == "float32" and "normal" in name:  # PyTorch's logarithm and sine are an ulp off
        np.testing.assert_allclose(found[...], wanted.numpy(), rtol=3e-7, atol=1e-8)
    else:
        np.testing.assert_array_equal(found[...], wanted.numpy())


def test_the_numbers_go_on_in_the_same_stream() -> None:
    """One generator, then another call of it: as many were drawn."""
    generator, ours = torch.Generator().manual_seed(5), TorchGenerator(5)
    for fill in FILLS.values():
        shape = (4, 2, 3) if fill in (FILLS["dirac_"], FILLS["dirac_ of groups"]) else (7, 4)
        fill(torch.nn.init, torch.empty(shape), generator)
        fill(nn.init, jnp.zeros(shape), ours)
    assert torch.rand(1, generator=generator).item() == ours.rand(1).item()


@pytest.mark.parametrize("name", DRAWN)
def test_from_a_key(name: str) -> None:
    """The same distribution: its mean and its spread, of 5,000 numbers within 5 of their errors."""
    shape, key = (100, 50), jax.random.key(0)

    class Keyed:
        """nn.init with a key in the place of a generator."""

        def __getattr__(self, function: str) -> Any:
            def called(*args: Any, generator: Any, **options: Any) -> Any:
                return getattr(nn.init, function)(*args, **options, key=key)

            return called

    found = np.asarray(FILLS[name](Keyed(), jnp.zeros(shape), None))
    wanted = np.asarray(FILLS[name](nn.init, jnp.zeros(shape), TorchGenerator(0)))
    error = wanted.std() / np.sqrt(wanted.size)
    assert abs(found.mean() - wanted.mean()) <= 5 * np.sqrt(2) * error
    assert abs(found.std() - wanted.std()) <= 5 * np.sqrt(2) * error


def test_the_gains_are_pytorchs() -> None:
    for name in ("linear", "conv2d", "sigmoid", "tanh", "relu", "selu", "leaky_relu"):
        assert nn.init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
    assert nn.init.calculate_gain("leaky_relu", 2) == torch.nn.init.calculate_gain("leaky_relu", 2)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: nn.init.xavier_uniform_(jnp.zeros(3)), "expected two axes or more"),
        (lambda: nn.init.orthogonal_(jnp.zeros(3)), "expected two axes or more"),
        (lambda: nn.init.kaiming_normal_(jnp.zeros((3, 3)), mode="fan"), "mode is 'fan'"),
        (lambda: nn.init.kaiming_normal_(jnp.zeros((3, 3)), nonlinearity="gelu"), "'gelu'"),
        (lambda: nn.init.eye_(jnp.zeros((3, 3, 3))), "expected two axes"),
        (lambda: nn.init.sparse_(jnp.zeros(3), 0.5), "expected two axes"),
        (lambda: nn.init.dirac_(jnp.zeros((3, 3))), "expected three to five axes"),
        (lambda: nn.init.dirac_(jnp.zeros((3, 3, 3)), 2), "expected a divisor of 3"),
        (lambda: nn.init.normal_(jnp.zeros(3), generator=3), "expected a TorchGenerator"),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[[], Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        call()


def test_a_mean_outside_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="more than 2 std"):
        nn.init.trunc_normal_(jnp.zeros(3), 9.0, 1.0, -2.0, 2.0, TorchGenerator(0))


def test_a_naive_fan_is_noticed() -> None:
    """JAX's lecun_normal, Flax's default, is 1.7 times as wide; out for in is another width."""
    wanted = torch.nn.init.kaiming_uniform_(torch.empty(40, 30), 5**0.5).std().item()
    lecun = jax.nn.initializers.lecun_normal()(jax.random.key(0), (30, 40)).std()
    assert abs(float(lecun) / wanted - 3**0.5) < 0.1
    swapped = nn.init.kaiming_uniform_(jnp.zeros((30, 40)), 5**0.5, generator=TorchGenerator(0))
    assert abs(float(swapped.std()) / wanted - 1) > 0.1


@pytest.mark.parametrize("kit", [nn, torch.nn])
def test_apply_goes_in_pytorchs_order(kit: Any) -> None:
    """What is within first, as it was set: a function that draws fills each with its own numbers.

    A module that two hold is met twice, as in PyTorch.
    """
    shared, seen = kit.Linear(7, 7), []
    first = kit.Sequential(kit.Linear(1, 2), shared, kit.Linear(2, 3))
    model = kit.Sequential(first, kit.Linear(4, 5), kit.Sequential(shared, shared))
    model.apply(lambda layer: seen.append(getattr(layer, "in_features", "-")))
    assert seen == [1, 7, 2, "-", 4, 7, "-", "-"]
