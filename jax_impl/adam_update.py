"""zero_grad, backward and step with Adam (document 001, section 3).

Mirror: torch_impl/adam_update.py
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from twinstep.jax.layout import load_params
from twinstep.jax.nn import Linear  # Flax's, its small products written out: faster in a scan
from twinstep.jax.nn.functional import mse_loss
from twinstep.jax.optim import adam  # optax.adam: off by 72 to 90 eps in float32, this by 3
from twinstep.problems.regression import AdamUpdate
from twinstep.problems.torch_random import TorchGenerator


def build(problem: AdamUpdate) -> tuple[nnx.Module, Any, optax.GradientTransformation]:
    """The model, the loss and the optimizer."""
    model = Linear(10, 1)
    load_params(model, problem.initial_params())  # PyTorch's draws
    criterion = mse_loss
    optimizer = adam(lr=problem.learning_rate, betas=problem.betas, eps=problem.eps)
    return model, criterion, optimizer


def init_state(model: nnx.Module, optimizer: optax.GradientTransformation) -> Any:
    """What the first step is given."""
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return params, optimizer.init(params)


def make_train_step(model: nnx.Module, criterion: Any, optimizer: Any) -> Any:
    """The step, compiled: (state, batch) -> (state, loss)."""
    graph = nnx.graphdef(model)

    def loss_fn(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        output = nnx.merge(graph, params)(x)
        return criterion(output, y)

    @jax.jit
    def train_step(state: Any, batch: Any) -> Any:
        params, opt_state = state
        loss, grads = jax.value_and_grad(loss_fn)(params, *batch)  # a new value: nothing to zero
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    return train_step


def train(model: nnx.Module, criterion: Any, optimizer: Any, batches: Any, log: Any = print) -> Any:
    """The loop. x: (5, 10), y: (5, 1)"""
    train_step = make_train_step(model, criterion, optimizer)
    state = init_state(model, optimizer)
    for batch in batches:
        state, loss = train_step(state, batch)
        log(f"Loss: {loss.item()}")
    return state


def load_data(problem: AdamUpdate) -> tuple[Any, Any]:
    """What the document trains on, drawn as it draws it."""
    generator = TorchGenerator(problem.seed)
    problem.draw_params(generator)  # the model's own draws come first
    x = generator.randn(5, 10, dtype=problem.dtype)
    y = generator.randn(5, 1, dtype=problem.dtype)
    return jnp.asarray(x), jnp.asarray(y)


def main() -> None:
    """Trains as the document does, and prints its lines."""
    problem = AdamUpdate.from_flags()
    jax.config.update("jax_enable_x64", problem.dtype == "float64")
    model, criterion, optimizer = build(problem)
    x, y = load_data(problem)
    train(model, criterion, optimizer, [(x, y)] * problem.total_steps)


if __name__ == "__main__":
    main()
