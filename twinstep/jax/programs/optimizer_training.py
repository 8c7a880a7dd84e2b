"""torch.optim's optimizers on a small network: the rows of the set `optimizers`.

Mirror: twinstep/torch/programs/optimizer_training.py
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from twinstep.jax.layout import load_params, module_layout
from twinstep.jax.nn import Linear
from twinstep.jax.nn.functional import mse_loss
from twinstep.jax.optim import from_torch, in_torch_layout
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
        output: jax.Array = self.layer3(x)
        return output


def loss_of(problem: OptimizerTraining) -> Any:
    """The criterion: the squared error, or what is largest where that is smallest."""
    mse = mse_loss
    return (lambda output, y: -mse(output, y)) if problem.maximize else mse


def build(problem: OptimizerTraining) -> tuple[nnx.Module, Any, optax.GradientTransformation]:
    """The model, the loss and the optimizer."""
    model = Network(*WIDTHS)
    load_params(model, problem.initial_params())
    optimizer = in_torch_layout(  # some look at axes
        from_torch(problem.optimizer, **problem.options), module_layout(model)
    )
    return model, loss_of(problem), optimizer


def init_state(model: nnx.Module, optimizer: optax.GradientTransformation) -> Any:
    """What the first step is given."""
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return params, optimizer.init(params)


def make_train_step(model: nnx.Module, criterion: Any, optimizer: Any) -> Any:
    """The step, compiled: (state, batch) -> (state, loss)."""
    graph = nnx.graphdef(model)

    def loss_fn(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        loss: jax.Array = criterion(nnx.merge(graph, params)(x), y)
        return loss

    @jax.jit
    def train_step(state: Any, batch: Any) -> Any:
        params, opt_state = state
        loss, grads = jax.value_and_grad(loss_fn)(params, *batch)  # a new value: nothing to zero
        updates, opt_state = optimizer.update(grads, opt_state, params)
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
