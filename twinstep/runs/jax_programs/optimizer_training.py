"""Any optimizer of torch.optim on a small network: one row of the set `optimizers`.

Mirror: twinstep/runs/torch_programs/optimizer_training.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from twinstep.jax.layout import module_layout
from twinstep.jax.nn.functional import mse_loss
from twinstep.jax.nn.layers import Linear
from twinstep.jax.optim import from_torch, in_torch_layout
from twinstep.jax.state import Batch, Criterion, Step, TrainState, Tree
from twinstep.problems.optimizers import WIDTHS, OptimizerTraining


class Network(nnx.Module):
    """Three linear layers with tanh between them."""

    def __init__(
        self, inputs: int, first: int, second: int, outputs: int, bias: bool = True
    ) -> None:
        self.layer1 = Linear(inputs, first, bias)
        self.layer2 = Linear(first, second, bias)
        self.layer3 = Linear(second, outputs, bias)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = jnp.tanh(self.layer1(x))
        x = jnp.tanh(self.layer2(x))
        return self.layer3(x)


def init(spec: OptimizerTraining) -> TrainState:
    """The model with the spec's parameters, the criterion and the optimizer."""
    model = Network(*WIDTHS)
    mse = mse_loss
    criterion: Criterion = (lambda output, y: -mse(output, y)) if spec.maximize else mse
    optimizer = in_torch_layout(  # some look at axes
        from_torch(spec.optimizer, **spec.options), module_layout(model)
    )
    return TrainState.create(model, spec.initial_params(), criterion, optimizer)


def loss_fn(model: nnx.Module, criterion: Criterion, batch: Batch) -> jax.Array:
    """The loss of a batch, (). x: (N, ...), y: (N, outputs)"""
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
