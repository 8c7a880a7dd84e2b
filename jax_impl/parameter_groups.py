"""One Adam over two networks, or over one of them (document 001, section 2).

Mirror: torch_impl/parameter_groups.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from twinstep.jax.nn.functional import mse_loss
from twinstep.jax.nn.layers import GRU, Linear
from twinstep.jax.optim import adam, param_groups
from twinstep.jax.state import Batch, Criterion, Step, TrainState, Tree
from twinstep.problems.groups import ParameterGroups


class Networks(nnx.Module):
    """A GRU reads the sequence; the model reads the GRU's last output."""

    def __init__(self) -> None:
        self.model = Linear(16, 1)
        self.gru = GRU(10, 16)

    def __call__(self, x: jax.Array) -> jax.Array:
        h0 = jnp.zeros((x.shape[0], 16), x.dtype)
        out, _ = self.gru(x, h0)
        return self.model(out[:, -1, :])


def init(spec: ParameterGroups) -> TrainState:
    """The model with the spec's parameters, the criterion and the optimizer."""
    model = Networks()
    criterion = mse_loss
    groups = {"model": adam(lr=spec.learning_rate, betas=spec.betas, eps=spec.eps)}
    if spec.update_gru:
        groups["gru"] = adam(lr=spec.learning_rate, betas=spec.betas, eps=spec.eps)
    optimizer = param_groups(groups)
    return TrainState.create(
        model, spec.initial_params(), criterion, optimizer, keep_grads=not spec.update_gru
    )


def loss_fn(model: nnx.Module, criterion: Criterion, batch: Batch) -> jax.Array:
    """The loss of a batch, (). x: (5, 7, 10), y: (5, 1)"""
    output = model(batch["x"])
    return criterion(output, batch["y"])


def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Step]:
    """Forward, loss, backward, update."""

    def loss_of(params: Tree) -> jax.Array:
        return loss_fn(nnx.merge(state.graph, params), state.criterion, batch)

    loss, grads = jax.value_and_grad(loss_of)(state.params)  # new each time: nothing to zero
    if state.keep_grads:  # PyTorch's zero_grad clears only what the optimizer is given
        grads["gru"] = jax.tree.map(jnp.add, state.grads["gru"], grads["gru"])
        state = state.replace(grads=grads)
    updates, opt_state = state.optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return state.replace(params=params, opt_state=opt_state), Step(loss, grads)
