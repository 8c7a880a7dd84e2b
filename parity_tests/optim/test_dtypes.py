"""The optimizers in bfloat16, float16 and complex128, over PyTorch's own table of options.

A narrow step is made again from PyTorch's own parameters and state, entry by entry: free running,
one rounding of 2^-8 that goes the other way grows to anything.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from helpers.optimizer_pairs import NAMES, REAL, Pair, rows
from helpers.optimizer_runs import BAR, Options, default_dtype

from twinstep.errors import InputError
from twinstep.jax.optim import adam, ops
from twinstep.jax.optim._from_torch import TORCH

pytestmark = pytest.mark.quick_to_compile

STEPS = 6

# What XLA sums or takes a root of may differ by an ulp of float32, and then round to the other of
# two narrow values: one entry in 20 may be the next one. Muon's sums pass through bfloat16 ten
# times before they are subtracted: its ulps are those of the larger of what was subtracted.
ALIKE = 0.95


def ordered(array: jax.Array) -> np.ndarray:
    """The number of each value among all of a narrow dtype."""
    bits = np.asarray(array).view(np.int16).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFF), bits)


def narrow_steps(name: str, options: Options, dtype: str) -> tuple[float, int]:
    """(share of entries that are the same, the most ulps apart), each step made from PyTorch's."""
    most, same = 0, []
    with default_dtype("float32"):
        pair = Pair(name, options, dtype)
        for _ in range(STEPS):
            before = pair.params
            pair.step()
            for what, theirs, ours in pair.entries():
                assert theirs.dtype == ours.dtype == dtype
                apart = np.abs(ordered(theirs) - ordered(ours))
                off = np.abs(np.float64(theirs) - np.float64(ours))
                # where a sum cancels, PyTorch's fused product leaves what float32 rounds away
                cancelled = off <= np.finfo("float32").eps * np.abs(np.float64(theirs)).max()
                apart = np.where(cancelled, apart.clip(max=1), apart)
                same.append(apart == 0)
                if name == "Muon" and what in before:
                    size = np.maximum(*(np.abs(np.float64(a)) for a in (theirs, before[what])))
                    ulp = np.exp2(np.floor(np.log2(size))) * float(jnp.finfo(dtype).eps)
                    apart = np.round(off / ulp)
                most = max(most, int(apart.max()))
            pair.take_theirs()
    return float(np.mean(np.concatenate([part.ravel() for part in same]))), most


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(("name", "options"), rows(), ids=str)
def test_a_narrow_step_rounds_as_torch_does(name: str, options: Options, dtype: str) -> None:
    share, most = narrow_steps(name, options, dtype)
    assert share >= ALIKE
    assert most <= 1


@pytest.mark.parametrize(("name", "options"), rows(sorted({*NAMES} - {*REAL})), ids=str)
def test_a_complex_parameter_is_two_real_ones(name: str, options: Options) -> None:
    with default_dtype("float64"):
        pair = Pair(name, options, "complex128")
        for _ in range(STEPS):
            pair.step()
            for what, theirs, ours in pair.entries():
                assert theirs.dtype == ours.dtype == "complex128"
                assert jnp.max(jnp.abs(theirs - ours)) <= BAR * jnp.max(jnp.abs(theirs)), what


@pytest.mark.parametrize("name", REAL)
def test_what_torch_refuses_complex_parameters_in_refuses_them(name: str) -> None:
    params = {"w": jnp.ones((2, 2), "complex64")}
    with pytest.raises(InputError, match="'w' has dtype complex64, expected a real one"):
        TORCH[name]().init(params)
    parameter = torch.nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))
    parameter.grad = torch.ones_like(parameter)
    with pytest.raises((RuntimeError, ValueError), match=r"(?i)complex"):
        getattr(torch.optim, name)([parameter]).step()


PLANTED: dict[str, Any] = {
    "left in float32 between two operations": ("rounded", lambda self, x: x),
    "scalars rounded first": ("number", ops.Ops.alpha),
    "what add multiplies by left wide": ("alpha", ops.Ops.number),
}


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_comparison_sees_what_is_rounded_otherwise(
    monkeypatch: pytest.MonkeyPatch, dtype: str, planted: str
) -> None:
    monkeypatch.setattr(ops.Ops, *PLANTED[planted])
    found = [narrow_steps("RAdam", {"weight_decay": w}, dtype) for w in (0.1, 0.7)]
    assert any(share < ALIKE or most > 1 for share, most in found)


@pytest.mark.parametrize("given", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", NAMES)
def test_state_and_parameters_keep_their_dtype(name: str, given: str) -> None:
    """As a scan asks for: whatever the gradients have, which are rounded to the parameters'."""
    twin = optax.with_extra_args_support(TORCH[name](lr=10.0))
    params = {"w": jnp.ones((2, 2), "bfloat16")}
    grads = {"w": jnp.full((2, 2), 0.3, given)}
    more = {"touched": {"w": jnp.ones(2, bool)}} if name == "SparseAdam" else {}

    def step(carry: Any, _: None) -> tuple[Any, None]:
        updates, state = twin.update(grads, carry[1], carry[0], **more)
        return (optax.apply_updates(carry[0], updates), state), None

    (moved, state), _ = jax.lax.scan(step, (params, twin.init(params)), length=2)
    floats = [leaf for leaf in jax.tree.leaves((moved, state)) if leaf.ndim]
    assert {str(leaf.dtype) for leaf in floats} == {"bfloat16"}
    assert jnp.all(moved["w"] != 1)


def test_apply_if_finite_of_narrow_parameters_takes_float32_gradients() -> None:
    twin, params = optax.apply_if_finite(adam(lr=0.1), 5), jnp.ones(3, "bfloat16")
    grads = jnp.array([0.25, jnp.nan, 1.0])
    for finite in (False, True):
        given = jnp.nan_to_num(grads) if finite else grads
        updates, _ = jax.jit(twin.update)(given, twin.init(params), params)
        moved = optax.apply_updates(params, updates)
        assert moved.dtype == "bfloat16"
        assert list(moved != 1) == ([True, False, True] if finite else [False] * 3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_every_narrow_value_is_rounded_as_torch_rounds_it(dtype: str) -> None:
    """Ties, infinities, subnormals and what lies a little beside them, under jit."""
    narrow = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    values = narrow.view(getattr(torch, dtype)).float()
    values = values[values.isfinite()].sort().values
    ties = (values[1:].double() + values[:-1].double()) / 2
    given = torch.cat([values, ties.float(), ties.float() * 1.0000002, torch.tensor([1e38, -1e38])])
    ours = jax.jit(ops.Ops(dtype).rounded)(jnp.asarray(given.numpy()))
    theirs = given.to(getattr(torch, dtype)).float().numpy()
    # XLA's CPU flushes float32's subnormals, which are bfloat16's too
    seen = np.abs(theirs) >= np.finfo(np.float32).tiny
    assert np.array_equal(np.asarray(ours)[seen], theirs[seen])
