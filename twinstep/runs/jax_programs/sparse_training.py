"""SparseAdam on an embedding table: one row of the set `optimizers`.

Mirror: twinstep/runs/torch_programs/sparse_training.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from twinstep.jax.nn.functional import mse_loss
from twinstep.jax.nn.layers import Embedding
from twinstep.jax.optim import from_torch
from twinstep.jax.state import Batch, Criterion, Step, TrainState, Tree
from twinstep.problems.optimizers import TABLE, SparseTraining
from twinstep.runs.jax_programs.optimizer_training import loss_fn


class Network(nnx.Module):
    """A table, and tanh of its rows."""

    def __init__(self, rows: int, width: int) -> None:
        self.embedding = Embedding(rows, width)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.tanh(self.embedding(x))


def init(spec: SparseTraining) -> TrainState:
    """The model with the spec's parameters, the criterion and the optimizer."""
    model = Network(*TABLE)
    mse = mse_loss
    criterion: Criterion = (lambda output, y: -mse(output, y)) if spec.maximize else mse
    optimizer = from_torch(spec.optimizer, **spec.options)
    return TrainState.create(model, spec.initial_params(), criterion, optimizer)


def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Step]:
    """Forward, loss, backward, update."""

    def loss_of(params: Tree) -> jax.Array:
        return loss_fn(nnx.merge(state.graph, params), state.criterion, batch)

    loss, grads = jax.value_and_grad(loss_of)(state.params)  # dense: 0 where no sample is
    touched = jax.tree.map(  # so the rows of the batch are said, (rows,)
        lambda table: jnp.zeros(len(table), bool).at[batch["x"]].set(True), state.params
    )
    updates, opt_state = state.optimizer.update(
        grads, state.opt_state, state.params, touched=touched
    )
    params = optax.apply_updates(state.params, updates)
    return state.replace(params=params, opt_state=opt_state), Step(loss, grads)
