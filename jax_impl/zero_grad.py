"""Clearing gradients before each backward pass, or letting them pile up (document 003).

Mirror: torch_impl/zero_grad.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from twinstep.jax.nn.functional import mse_loss
from twinstep.jax.nn.layers import Linear
from twinstep.jax.optim import sgd
from twinstep.jax.state import Batch, Criterion, Step, TrainState, Tree
from twinstep.problems.backprop import ZeroGrad


def network() -> nnx.Module:
    """10 inputs, 5 hidden units, 1 output."""
    return nnx.Sequential(
        Linear(10, 5),
        nnx.relu,
        Linear(5, 1),
    )


def init(spec: ZeroGrad) -> TrainState:
    """The model with the spec's parameters, the criterion and the optimizer."""
    model = network()
    criterion = mse_loss
    optimizer = sgd(lr=spec.learning_rate)
    return TrainState.create(
        model, spec.initial_params(), criterion, optimizer, keep_grads=not spec.zero_grad
    )


def loss_fn(model: nnx.Module, criterion: Criterion, batch: Batch) -> jax.Array:
    """The loss of a batch, (). x: (5, 10), y: (5, 1)"""
    output = model(batch["x"])
    return criterion(output, batch["y"])


def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Step]:
    """Forward, loss, backward, update."""

    def loss_of(params: Tree) -> jax.Array:
        return loss_fn(nnx.merge(state.graph, params), state.criterion, batch)

    loss, grads = jax.value_and_grad(loss_of)(state.params)
    if state.keep_grads:  # what leaving out zero_grad comes to has to be written out
        grads = jax.tree.map(jnp.add, state.grads, grads)
        state = state.replace(grads=grads)
    updates, opt_state = state.optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return state.replace(params=params, opt_state=opt_state), Step(loss, grads)
