"""Linear regression with the mean absolute error (document 000, its exercise).

Mirror: torch_impl/linear_regression_l1.py
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from twinstep.jax.layout import load_params
from twinstep.jax.nn import Linear  # Flax's, its small products written out: faster in a scan
from twinstep.jax.nn.functional import l1_loss  # at a tie its gradient is 0, jnp.abs has 1
from twinstep.problems.regression import LinearRegressionL1
from twinstep.problems.torch_random import TorchGenerator


def build(problem: LinearRegressionL1) -> tuple[nnx.Module, Any, optax.GradientTransformation]:
    """The model, the loss and the optimizer."""
    model = Linear(1, 1)
    load_params(model, problem.initial_params())  # PyTorch's draws
    criterion = l1_loss
    optimizer = optax.sgd(problem.learning_rate)
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
    """The loop. x, y: (100, 1)"""
    train_step = make_train_step(model, criterion, optimizer)
    state = init_state(model, optimizer)
    for epoch, batch in enumerate(batches):
        state, loss = train_step(state, batch)
        if (epoch + 1) % 10 == 0:
            log(f"Epoch [{epoch + 1}/{len(batches)}], Loss: {loss.item():.4f}")
    return state


def load_data(problem: LinearRegressionL1) -> tuple[Any, Any]:
    """What the document trains on, drawn as it draws it."""
    generator = TorchGenerator(problem.seed)
    x = np.linspace(0, 10, 100).astype(problem.dtype).reshape(-1, 1)
    y = 2 * x + 1 + generator.randn(100, 1, dtype=problem.dtype) * 2  # y = 2x + 1 + noise
    return jnp.asarray(x), jnp.asarray(y)


def main() -> None:
    """Trains as the document does, and prints its lines."""
    problem = LinearRegressionL1.from_flags()
    jax.config.update("jax_enable_x64", problem.dtype == "float64")
    x, y = load_data(problem)
    model, criterion, optimizer = build(problem)
    train(model, criterion, optimizer, [(x, y)] * problem.total_steps)


if __name__ == "__main__":
    main()
