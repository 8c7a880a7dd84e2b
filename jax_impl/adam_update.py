"""Loss, zero_grad, backward, step with Adam (document 001, section 3).

Mirror: torch_impl/adam_update.py
"""

import jax
import optax
from flax import nnx

from twinstep.jax.nn.functional import mse_loss
from twinstep.jax.nn.layers import Linear
from twinstep.jax.optim import adam
from twinstep.jax.state import Batch, Criterion, Step, TrainState, Tree
from twinstep.problems.regression import AdamUpdate


def init(spec: AdamUpdate) -> TrainState:
    """The model with the spec's parameters, the criterion and the optimizer."""
    model = Linear(10, 1)
    criterion = mse_loss
    optimizer = adam(lr=spec.learning_rate, betas=spec.betas, eps=spec.eps)
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
