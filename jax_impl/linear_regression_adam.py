"""Linear regression with Adam (document 000, its exercise).

Mirror: torch_impl/linear_regression_adam.py
"""

import jax
import numpy as np
import optax
from flax import nnx

from twinstep.jax.layout import load_params
from twinstep.jax.nn import Linear  # its small products are written out: faster in a scan
from twinstep.jax.nn.functional import mse_loss
from twinstep.jax.optim import adam  # optax.adam: off by 72 to 90 eps in float32, this by 3
from twinstep.problems.regression import LinearRegressionAdam
from twinstep.problems.torch_random import TorchGenerator


def build(problem: LinearRegressionAdam):
    """The model, the loss and the optimizer."""
    model = Linear(1, 1)
    load_params(model, problem.initial_params())  # PyTorch's draws
    criterion = mse_loss
    optimizer = adam(lr=problem.learning_rate, betas=problem.betas, eps=problem.eps)
    return model, criterion, optimizer


def make_train_step(model, criterion, optimizer):
    """The step, compiled: (state, batch) -> (state, loss)."""
    graph = nnx.graphdef(model)

    def loss_fn(params, x, y):
        output = nnx.merge(graph, params)(x)
        return criterion(output, y)

    @jax.jit
    def train_step(state, batch):
        params, opt_state = state
        loss, grads = jax.value_and_grad(loss_fn)(params, *batch)  # a new value: nothing to zero
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    return train_step


def train(model, criterion, optimizer, batches, log=print):
    """The loop. x, y: (100, 1)"""
    train_step = make_train_step(model, criterion, optimizer)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    state = params, optimizer.init(params)
    for epoch, batch in enumerate(batches):
        state, loss = train_step(state, batch)
        if (epoch + 1) % 10 == 0:
            log(f"Epoch [{epoch + 1}/{len(batches)}], Loss: {loss.item():.4f}")
    return state


def main():
    """Trains as the document does, and prints its lines."""
    problem = LinearRegressionAdam.from_flags()
    jax.config.update("jax_enable_x64", problem.dtype == "float64")
    generator = TorchGenerator(problem.seed)
    x = np.linspace(0, 10, 100).astype(problem.dtype).reshape(-1, 1)
    y = 2 * x + 1 + generator.randn(100, 1, dtype=problem.dtype) * 2  # y = 2x + 1 + noise
    model, criterion, optimizer = build(problem)
    train(model, criterion, optimizer, [(x, y)] * problem.total_steps)


if __name__ == "__main__":
    main()
