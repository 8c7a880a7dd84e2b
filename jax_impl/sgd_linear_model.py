"""A linear model by SGD, all points in each update (document 002, its code).

Mirror: torch_impl/sgd_linear_model.py
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from twinstep.jax.layout import load_params, module_layout
from twinstep.jax.nn import Linear  # its small products are written out: faster in a scan
from twinstep.jax.nn.functional import mse_loss
from twinstep.problems.sgd import SgdLinearModel


class LinearModel(nnx.Module):
    """One input feature, one output feature."""

    def __init__(self):
        self.linear = Linear(1, 1)

    def __call__(self, x):
        return self.linear(x)


def build(problem: SgdLinearModel):
    """The model, the loss and the optimizer."""
    model = LinearModel()
    load_params(model, problem.initial_params())  # PyTorch's draws
    criterion = mse_loss
    optimizer = optax.sgd(problem.learning_rate)
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
    problem = SgdLinearModel.from_flags()
    jax.config.update("jax_enable_x64", problem.dtype == "float64")
    np.random.seed(problem.data_seed)
    points = np.random.rand(100, 1)
    values = 2 * points + 1 + 0.1 * np.random.randn(100, 1)
    x, y = (jnp.asarray(a, problem.dtype) for a in (points, values))
    model, criterion, optimizer = build(problem)
    params, _ = train(model, criterion, optimizer, [(x, y)] * problem.total_steps)
    named = module_layout(model).to_torch(params)
    print("训练后的模型参数:", {name: named[name] for name in problem.initial_params()})


if __name__ == "__main__":
    main()
