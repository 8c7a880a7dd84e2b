"""An optimizer of torch.optim whose step evaluates the loss itself: LBFGS, on a small network.

Mirror: twinstep/torch/programs/closure_training.py
"""

from functools import partial
from typing import Any

import jax
import optax
from flax import nnx

from twinstep.jax.layout import load_params, module_layout
from twinstep.jax.optim import from_torch, in_torch_layout
from twinstep.jax.programs.optimizer_training import Network, init_state, loss_of
from twinstep.problems.closures import ClosureTraining
from twinstep.problems.optimizers import WIDTHS


def build(problem: ClosureTraining) -> tuple[nnx.Module, Any, optax.GradientTransformation]:
    """The model, the loss and the optimizer."""
    model = Network(*WIDTHS)
    params = problem.initial_params()
    load_params(model, params)
    optimizer = in_torch_layout(  # in PyTorch's order: all parameters are one vector to it
        from_torch(problem.optimizer, **problem.options), module_layout(model), names=list(params)
    )
    return model, loss_of(problem), optimizer


def make_train_step(model: nnx.Module, criterion: Any, optimizer: Any) -> Any:
    """The step, compiled: (state, batch) -> (state, loss)."""
    graph = nnx.graphdef(model)

    def loss_fn(x: jax.Array, y: jax.Array, params: Any) -> jax.Array:
        loss: jax.Array = criterion(nnx.merge(graph, params)(x), y)
        return loss

    @jax.jit
    def train_step(state: Any, batch: Any) -> Any:
        params, opt_state = state
        closure = jax.value_and_grad(partial(loss_fn, *batch))
        loss, grads = closure(params)  # PyTorch's step makes this evaluation itself
        updates, opt_state = optimizer.update(
            grads, opt_state, params, value=loss, value_and_grad_fn=closure
        )
        return (optax.apply_updates(params, updates), opt_state), loss

    return train_step


def train(model: nnx.Module, criterion: Any, optimizer: Any, batches: Any, log: Any = print) -> Any:
    """The loop. batches: x, y of each epoch, (N, ...)"""
    train_step = make_train_step(model, criterion, optimizer)
    state = init_state(model, optimizer)
    for batch in batches:
        state, _ = train_step(state, batch)
    return state
