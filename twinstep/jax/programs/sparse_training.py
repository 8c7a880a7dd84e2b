"""SparseAdam on an embedding table: one row of the set `optimizers`.

Mirror: twinstep/torch/programs/sparse_training.py
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from twinstep.jax.layout import load_params
from twinstep.jax.nn import Embedding
from twinstep.jax.optim import from_torch
from twinstep.jax.programs.optimizer_training import init_state, loss_of
from twinstep.problems.optimizers import TABLE, SparseTraining

__all__ = ["Network", "build", "init_state", "make_train_step", "train"]


class Network(nnx.Module):
    """A table, and tanh of its rows."""

    def __init__(self, rows: int, width: int) -> None:
        self.embedding = Embedding(rows, width)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.tanh(self.embedding(x))


def build(problem: SparseTraining) -> tuple[nnx.Module, Any, optax.GradientTransformation]:
    """The model, the loss and the optimizer."""
    model = Network(*TABLE)
    load_params(model, problem.initial_params())
    return model, loss_of(problem), from_torch(problem.optimizer, **problem.options)


def make_train_step(model: nnx.Module, criterion: Any, optimizer: Any) -> Any:
    """The step, compiled: (state, batch) -> (state, loss)."""
    graph = nnx.graphdef(model)

    def loss_fn(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        loss: jax.Array = criterion(nnx.merge(graph, params)(x), y)
        return loss

    @jax.jit
    def train_step(state: Any, batch: Any) -> Any:
        params, opt_state = state
        loss, grads = jax.value_and_grad(loss_fn)(params, *batch)  # dense: 0 where no sample is
        touched = jax.tree.map(  # so the rows of the batch are said, (rows,)
            lambda table: jnp.zeros(len(table), bool).at[batch[0]].set(True), params
        )
        updates, opt_state = optimizer.update(grads, opt_state, params, touched=touched)
        return (optax.apply_updates(params, updates), opt_state), loss

    return train_step


def train(model: nnx.Module, criterion: Any, optimizer: Any, batches: Any, log: Any = print) -> Any:
    """The loop. batches: of each epoch what gives its x, y: (N, ...)"""
    train_step = make_train_step(model, criterion, optimizer)
    state = init_state(model, optimizer)
    for loader in batches:
        for batch in loader:
            state, _ = train_step(state, batch)
    return state
