"""A linear model by SGD (document 002); a batch is all points, or one.

Mirror: torch_impl/sgd_linear_model.py
"""

import jax
import optax
from flax import nnx

from twinstep.jax.nn.functional import mse_loss
from twinstep.jax.nn.layers import Linear
from twinstep.jax.optim import sgd
from twinstep.jax.state import Batch, Criterion, Step, TrainState, Tree
from twinstep.problems.sgd import SgdLinearModel


class LinearModel(nnx.Module):
    """One input feature, one output feature."""

    def __init__(self) -> None:
        self.linear = Linear(1, 1)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.linear(x)


def init(spec: SgdLinearModel) -> TrainState:
    """The model with the spec's parameters, the criterion and the optimizer."""
    model = LinearModel()
    criterion = mse_loss
    optimizer = sgd(lr=spec.learning_rate)
    return TrainState.create(model, spec.initial_params(), criterion, optimizer)


def loss_fn(model: nnx.Module, criterion: Criterion, batch: Batch) -> jax.Array:
    """The loss of a batch, (). x, y: (N, 1)"""
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
