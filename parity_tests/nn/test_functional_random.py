"""The kit's random functions against PyTorch's: after the same seed they draw the same numbers.

The calls are in helpers/functional_random.py; what PyTorch refuses is in test_functional.py.
"""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from helpers.functional_random import NAIVE, RANDOM
from helpers.kit_parity import Case, differences

from twinstep import InputError, TorchGenerator
from twinstep.jax import nn
from twinstep.jax.nn import functional as kit

pytestmark = pytest.mark.quick_to_compile

SEED = 5
WORDS = np.asarray(nn.Generator(SEED).state[...])
EVERY = [pytest.param(n, i, id=f"{n}-{i}") for n, r in RANDOM.items() for i in range(len(r))]


def off(
    name: str, case: Case, dtype: str = "float64", jit: bool = True, ours: Any = None
) -> list[str]:
    """Differences, with a generator of the same seed in each call: an argument where it is jitted.

    The numbers after the call are compared too: that so many were drawn.
    """

    def theirs(*args: Any, words: Any, **options: Any) -> Any:
        torch.manual_seed(SEED)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return getattr(torch.nn.functional, name)(*args, **options), torch.rand(3)

    def kits(*args: Any, words: Any, **options: Any) -> Any:
        generator = nn.Generator(0)
        generator.state.set_value(words)
        function = ours or getattr(kit, name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*args, **options, generator=generator), generator.rand(
                3, dtype="float32"
            )

    case = case._replace(kwargs={**case.kwargs, "words": WORDS})
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        return differences(kits, theirs, case, dtype, jit)
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("name", RANDOM)
def test_a_function_draws_as_pytorchs(name: str) -> None:
    assert off(name, RANDOM[name][0]) == []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "i"), EVERY)
def test_a_function_draws_as_pytorchs_in_all_its_cases(name: str, i: int) -> None:
    assert off(name, RANDOM[name][i]) == []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "i"), EVERY)
def test_a_function_draws_as_pytorchs_in_float32(name: str, i: int) -> None:
    assert off(name, RANDOM[name][i], "float32") == []


@pytest.mark.parametrize(("name", "ours"), [(n, f) for n, fs in NAIVE.items() for f in fs])
def test_a_naive_port_is_rejected(name: str, ours: Callable[..., Any]) -> None:
    assert any(off(name, case, jit=False, ours=ours) for case in RANDOM[name][:2])


CALLS: dict[str, Callable[..., Any]] = {
    **{
        name: lambda x, name=name, **how: getattr(kit, name)(x, training=True, **how)
        for name in RANDOM
        if "dropout" in name
    },
    "rrelu": lambda x, **how: kit.rrelu(x, training=True, **how),
    "gumbel_softmax": kit.gumbel_softmax,
    "scaled_dot_product_attention": lambda x, key=None, **how: kit.scaled_dot_product_attention(
        x, x, x, None, 0.5, dropout_key=key, **how
    ),
}
INPUTS = {"dropout1d": (2, 3, 4), "dropout3d": (2, 3, 4, 5, 6)}


@pytest.mark.parametrize("name", CALLS)
def test_what_would_draw_the_same_in_every_call_is_refused(name: str) -> None:
    """And a key, and a generator that is an argument, are fine."""
    x = -jnp.ones(INPUTS.get(name, (2, 3, 4, 5)))
    call = CALLS[name]
    before = np.asarray(nn.default_generator().state[...])
    for generator in (None, TorchGenerator(0), nn.Generator(0)):
        with pytest.raises(InputError, match=rf"{name}.*pass generator= of the module or key="):
            jax.jit(lambda x, g=generator: call(x, generator=g))(x)
        with pytest.raises(InputError, match="traced"):
            jax.lax.map(lambda x, g=generator: call(x[None], generator=g)[0], x)
    assert np.array_equal(before, nn.default_generator().state[...])
    by_key = jax.jit(lambda x, key: call(x, key=key))
    one, other = (by_key(x, jax.random.key(seed)) for seed in (0, 1))
    assert not np.array_equal(one, other)
    assert np.array_equal(one, call(x, key=jax.random.key(0)))
    generator = nn.Generator(0)
    jitted = nnx.jit(lambda x, generator: call(x, generator=generator))
    one, other = jitted(x, generator), jitted(x, generator)
    again = TorchGenerator(0)
    for compiled in (one, other):
        np.testing.assert_allclose(compiled, call(x, generator=again), rtol=1e-5)


@pytest.mark.parametrize("name", CALLS)
def test_more_than_one_to_draw_from_is_refused(name: str) -> None:
    x = -jnp.ones(INPUTS.get(name, (2, 3, 4, 5)))
    with pytest.raises(InputError, match="more than one is given"):
        CALLS[name](x, generator=TorchGenerator(0), key=jax.random.key(0))


def test_the_default_generator_draws_where_none_is_given() -> None:
    """Eagerly, within a gradient too, and nothing where nothing is dropped."""
    nn.manual_seed(SEED)
    torch.manual_seed(SEED)
    x = np.ones((3, 4), "float32")
    for _ in range(2):
        wanted = torch.nn.functional.dropout(torch.tensor(x))
        grads = jax.grad(lambda x: kit.dropout(x).sum())(jnp.asarray(x))
        assert np.array_equal(grads, wanted.numpy())  # of x m, the mask
        kit.dropout(jnp.asarray(x), training=False)
        kit.dropout(jnp.asarray(x), 0.0)
        kit.dropout(jnp.asarray(x), 1.0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_short_floats_are_scaled_as_pytorchs(dtype: str) -> None:
    x = np.linspace(-2, 2, 40).astype("float32")
    for name, p in (("dropout", 0.3), ("alpha_dropout", 0.3), ("dropout", 0.9)):
        torch.manual_seed(SEED)
        wanted = getattr(torch.nn.functional, name)(
            torch.tensor(x).to(getattr(torch, dtype)), p, True
        )
        found = getattr(kit, name)(jnp.asarray(x, dtype), p, True, generator=TorchGenerator(SEED))
        assert found.dtype == dtype
        np.testing.assert_array_equal(found.astype("float32"), wanted.float().numpy())
