"""torch.nn's layers and losses, one trained with its inputs: the sets `layers` and `losses`.

Mirror: twinstep/torch/programs/layer_training.py
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from twinstep.jax import nn
from twinstep.jax.layout import load_params
from twinstep.jax.optim import sgd
from twinstep.problems.layers.training import LEARNING_RATE, LayerTraining


class Trained(nn.Module):
    """A layer, and as parameters those of its inputs that are trained."""

    def __init__(self, problem: LayerTraining) -> None:
        super().__init__()
        self.layer = problem.row.layer.made(nn)
        self.inputs = problem.row.inputs
        for i, given in enumerate(self.inputs):
            if given.trained:
                self.register_parameter(f"input{i}", nn.Parameter(jnp.zeros(given.shape)))

    def forward(self, *data: jax.Array) -> Any:
        args, options = [], {}
        for i, (given, value) in enumerate(zip(self.inputs, data, strict=True)):
            value = value + getattr(self, f"input{i}") if given.trained else value
            if given.name:
                options[given.name] = value
            else:
                args.append(value)
        return self.layer(*args, **options)


def objective(output: Any) -> jax.Array:
    """A number that all outputs have a part in."""
    if not isinstance(output, jax.Array):
        return sum((objective(one) for one in output if one is not None), jnp.zeros(()))
    if not jnp.issubdtype(output.dtype, jnp.floating):
        return jnp.zeros(())
    if output.ndim == 0:
        return output
    flat = output.reshape(-1)
    weights = jnp.arange(len(flat)) % 7 + jnp.asarray(0.5, flat.dtype)
    return jnp.mean(flat * weights + jnp.square(flat))


def build(problem: LayerTraining) -> tuple[nnx.Module, Any, optax.GradientTransformation]:
    """The model, the loss and the optimizer."""
    model = Trained(problem)
    load_params(model, problem.initial_params())
    return model, objective, sgd(lr=LEARNING_RATE, momentum=0.9)


def init_state(model: nnx.Module, optimizer: optax.GradientTransformation) -> Any:
    """What the first step is given: parameters, the optimizer's state, buffers, random numbers."""
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return params, optimizer.init(params), nnx.state(model, nnx.Not(nnx.Param))


def make_train_step(model: nnx.Module, criterion: Any, optimizer: Any) -> Any:
    """The step, compiled: (state, batch) -> (state, loss)."""
    graph = nnx.graphdef(model)

    def loss_fn(params: Any, rest: Any, batch: Any) -> Any:
        model = nnx.merge(graph, params, rest, copy=True)
        return criterion(model(*batch)), nnx.state(model, nnx.Not(nnx.Param))

    @jax.jit
    def train_step(state: Any, batch: Any) -> Any:
        params, opt_state, rest = state
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, rest), grads = grad_fn(params, rest, batch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, rest), loss

    return train_step


def train(model: nnx.Module, criterion: Any, optimizer: Any, batches: Any, log: Any = print) -> Any:
    """The loop. batches: what the layer is called with"""
    train_step = make_train_step(model, criterion, optimizer)
    state = init_state(model, optimizer)
    for batch in batches:
        state, _ = train_step(state, batch)
    return state
