"""States that are kept: through msgpack, pickle and orbax and back, bit for bit."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.training import settings

from twinstep.jax import optim
from twinstep.jax.layout import opt_state_layout, tree_layout
from twinstep.jax.optim import accumulate, from_torch, frozen, in_torch_layout, param_groups
from twinstep.jax.optim._from_torch import TORCH

pytestmark = pytest.mark.quick_to_compile

SHAPES = {"a": (2, 3), "b": (3, 2), "c": (2, 2)}
AROUND: dict[str, Callable[[Any], Any]] = {
    "plain": lambda make: make(),
    "groups": lambda make: param_groups(
        [{"params": "a", "optimizer": make}, {"params": ["b", "c"], "optimizer": make}]
    ),
    "frozen": lambda make: frozen(make(), "b"),
    "layout": lambda make: in_torch_layout(make(), tree_layout(params()), names=["c", "a", "b"]),
    "accumulate": lambda make: accumulate(make(), 2),
    "clipped": lambda make: optax.chain(optim.clip_grad_norm(1.0), make()),
    "all of it": lambda make: frozen(
        optax.chain(
            optim.clip_grad_norm(1.0),
            param_groups([{"params": "a", "optimizer": lambda: accumulate(make(), 2)}]),
        ),
        "b",
    ),
}


def params(dtype: Any = None) -> dict[str, jax.Array]:
    drawn = np.random.RandomState(0)
    return {key: jnp.asarray(drawn.randn(*shape), dtype) for key, shape in SHAPES.items()}


def states(around: str, dtype: Any = None) -> dict[str, tuple[Any, Any]]:
    """{optimizer: (its state before the first step, after three)}"""
    found, start = {}, params(dtype)
    rows = {key: jnp.ones(shape[0], bool) for key, shape in SHAPES.items()}

    def loss(params: Any) -> jax.Array:
        return jnp.sum(jnp.stack([jnp.sum(p**2) for p in params.values()]))

    for name in [*TORCH] if dtype != "bfloat16" else [*TORCH.keys() - {"LBFGS"}]:
        made = AROUND[around](lambda name=name: from_torch(name))
        optimizer = optax.with_extra_args_support(made)
        reset = state = optimizer.init(start)
        for _ in range(3):
            closure = jax.value_and_grad(loss)
            value, grads = closure(start)
            _, state = optimizer.update(
                grads, state, start, value=value, value_and_grad_fn=closure, touched=rows
            )
        found[name] = reset, state
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two states have the same form and the same bits."""
    structures: list[Any] = [jax.tree.structure(one), jax.tree.structure(other)]
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return bool(structures[0] == structures[1]) and all(
        a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs
    )


@pytest.mark.parametrize(
    ("around", "dtype"),
    [(around, "float64") for around in AROUND]
    + [("plain", "bfloat16")]
    + [
        pytest.param(around, "bfloat16", marks=pytest.mark.slow)
        for around in ("groups", "frozen", "layout", "clipped")
    ],
)
def test_every_state_comes_back_bit_for_bit(around: str, dtype: str, tmp_path: Path) -> None:
    with settings():
        kept = states(around, dtype)
        for name, (reset, state) in kept.items():
            text = flax.serialization.to_bytes(state)
            assert same(flax.serialization.from_bytes(reset, text), state), name
            named = flax.serialization.to_state_dict(state)
            assert same(flax.serialization.from_state_dict(reset, named), state), name
            assert same(pickle.loads(pickle.dumps(state)), state), name
        checkpoints = pytest.importorskip("orbax.checkpoint")
        before, after = ({name: pair[i] for name, pair in kept.items()} for i in (0, 1))
        with checkpoints.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / "state", after)
            checkpointer.wait_until_finished()
            restored = checkpointer.restore(tmp_path / "state", before)
            raw = checkpointer.restore(tmp_path / "state")
    for name, state in after.items():
        assert same(restored[name], state), name
    # without a template keys are text, and containers dicts and lists: by name all the same
    with settings():
        for name, state in after.items():
            layout = tree_layout(state)
            named = layout.to_torch(raw[name])
            assert same(layout.to_jax(named), state), name
            if around != "all of it":
                theirs = opt_state_layout(state, tree_layout(params()))
                assert same(theirs.to_torch(raw[name]), theirs.to_torch(state)), name
