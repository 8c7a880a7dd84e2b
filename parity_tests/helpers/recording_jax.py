"""A small jitted training in JAX, recorded update by update or as a scan stacks it."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import twinstep
from twinstep.jax import record
from twinstep.trace.ledger import Trace

X = jnp.asarray(np.random.RandomState(0).randn(12, 3), jnp.float32)
START = {"w": jnp.asarray([0.5, -1.0, 2.0]), "b": jnp.zeros(())}
Tree = Any


def loss_fn(params: Tree, x: jax.Array) -> jax.Array:
    return jnp.mean((x @ params["w"] + params["b"] - 1) ** 2)


def states(tx: Any, steps: int, batches: Any = None) -> Iterator[tuple[Any, ...]]:
    """(params, opt_state), loss and batch after each step of a jitted training."""

    @jax.jit
    def train_step(params: Tree, opt_state: Tree, x: jax.Array) -> Any:
        loss, grads = jax.value_and_grad(loss_fn)(params, x)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    params, opt_state = START, tx.init(START)
    for t in range(steps):
        x = X[3 * (t % 4) : 3 * (t % 4) + 3] if batches is None else batches[t]
        params, opt_state, loss = train_step(params, opt_state, x)
        yield (params, opt_state), loss, x


def recorded(tx: Any, steps: int = 6, batches: Any = None, start: Any = START) -> Trace:
    with record(start) as rec:
        for state, loss, x in states(tx, steps, batches):
            rec.step(state, loss=loss, batch={"x": x})
    return rec.trace


def stacked(tx: Any, steps: int = 6, batches: Any = None) -> Trace:
    """The same, told all at once."""
    state, loss, x = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states(tx, steps, batches))
    with record(START) as rec:
        rec.steps(state, loss=loss, batch={"x": x})
    return rec.trace


def same(one: Trace, other: Trace) -> None:
    assert one.validation_error() is None
    assert other.validation_error() is None
    found = twinstep.compare(one, other)
    assert found.verdict == "equal", found.reason
    for stage in ("params", "opt_state", "raw_grads", "grads", "micro_losses", "update", "batch"):
        ours, theirs = getattr(one, stage), getattr(other, stage)
        assert ours.keys() == theirs.keys(), stage
        for leaf, array in ours.items():
            assert array.tobytes() == theirs[leaf].tobytes(), (stage, leaf)
            assert one.steps_of(stage, leaf).tolist() == other.steps_of(stage, leaf).tolist()
