"""The 1-1-1 network whose gradients document 004 works out by hand.

Mirror: torch_impl/chain_rule.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from twinstep.jax.optim import sgd
from twinstep.jax.state import Batch, Criterion, Step, TrainState, Tree
from twinstep.problems.backprop import ChainRule


class Chain(nnx.Module):
    """One hidden neuron, one output neuron, identity activations, no bias."""

    def __init__(self) -> None:
        self.w1 = nnx.Param(jnp.zeros(()))
        self.w2 = nnx.Param(jnp.zeros(()))

    def __call__(self, x: jax.Array) -> jax.Array:
        z1 = self.w1 * x
        return self.w2 * z1


def half_squared_error(output: jax.Array, target: jax.Array) -> jax.Array:
    """(y - y_hat)^2 / 2, the mean over samples."""
    return jnp.mean((target - output) ** 2 / 2)


def init(spec: ChainRule) -> TrainState:
    """The model with the spec's parameters, the criterion and the optimizer."""
    model = Chain()
    criterion = half_squared_error
    optimizer = sgd(lr=spec.learning_rate)
    return TrainState.create(model, spec.initial_params(), criterion, optimizer)


def loss_fn(model: nnx.Module, criterion: Criterion, batch: Batch) -> jax.Array:
    """The loss of a batch, (). x, y: (1,)"""
    output = model(batch["x"])
    return criterion(output, batch["y"])


def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Step]:
    """Forward, loss, backward, update."""

    def loss_of(params: Tree) -> jax.Array:
        return loss_fn(nnx.merge(state.graph, params), state.criterion, batch)

    loss, grads = jax.value_and_grad(loss_of)(state.params)  # new each time: nothing to zero
    updates, opt_state = state.optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return state.replace(params=params, opt_state=opt_state), Step(loss, grads)
