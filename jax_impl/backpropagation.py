"""One update of a small network, its gradients looked at (document 004).

Mirror: torch_impl/backpropagation.py
"""

import jax
import optax
from flax import nnx

from twinstep.jax.nn.functional import mse_loss
from twinstep.jax.nn.layers import Linear
from twinstep.jax.optim import sgd
from twinstep.jax.state import Batch, Criterion, Step, TrainState, Tree
from twinstep.problems.backprop import Backpropagation


class SimpleNetwork(nnx.Module):
    """10 inputs, 20 hidden units, 1 output."""

    def __init__(self) -> None:
        self.layer1 = Linear(10, 20)
        self.relu = nnx.relu
        self.layer2 = Linear(20, 1)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.layer1(x)
        x = self.relu(x)
        x = self.layer2(x)
        return x


def init(spec: Backpropagation) -> TrainState:
    """The model with the spec's parameters, the criterion and the optimizer."""
    model = SimpleNetwork()
    criterion = mse_loss
    optimizer = sgd(lr=spec.learning_rate)
    return TrainState.create(model, spec.initial_params(), criterion, optimizer)


def loss_fn(model: nnx.Module, criterion: Criterion, batch: Batch) -> jax.Array:
    """The loss of a batch, (). x: (5, 10), y: (5, 1)"""
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
