"""Linear regression, full batch, with the loss and optimizer of the spec (document 000).

Mirror: torch_impl/linear_regression.py
"""

import jax
import optax
from flax import nnx

from twinstep.jax.nn.functional import l1_loss, mse_loss
from twinstep.jax.nn.layers import Linear
from twinstep.jax.optim import adam, sgd
from twinstep.jax.state import Batch, Criterion, Step, TrainState, Tree
from twinstep.problems.regression import LinearRegression

CRITERIA = {"mse": mse_loss, "l1": l1_loss}


def init(spec: LinearRegression) -> TrainState:
    """The model with the spec's parameters, the criterion and the optimizer."""
    model = Linear(1, 1)
    criterion = CRITERIA[spec.loss]
    optimizer = (
        adam(lr=spec.learning_rate, betas=spec.betas, eps=spec.eps)
        if spec.optimizer == "adam"
        else sgd(lr=spec.learning_rate)
    )
    return TrainState.create(model, spec.initial_params(), criterion, optimizer)


def loss_fn(model: nnx.Module, criterion: Criterion, batch: Batch) -> jax.Array:
    """The loss of a batch, (). x, y: (100, 1)"""
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
