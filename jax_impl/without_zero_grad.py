"""Letting gradients pile up (document 003 and the notes of 000).

Mirror: torch_impl/without_zero_grad.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from twinstep.jax.layout import load_params
from twinstep.jax.nn import Linear  # its small products are written out: faster in a scan
from twinstep.jax.nn.functional import mse_loss
from twinstep.problems.backprop import WithoutZeroGrad
from twinstep.problems.torch_random import TorchGenerator


def build(problem: WithoutZeroGrad):
    """The model, the loss and the optimizer."""
    model = nnx.Sequential(
        Linear(10, 5),
        nnx.relu,
        Linear(5, 1),
    )
    load_params(model, problem.initial_params())  # PyTorch's draws
    criterion = mse_loss
    optimizer = optax.sgd(problem.learning_rate)
    return model, criterion, optimizer


def init_state(model, optimizer):
    """What the first step is given."""
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return params, optimizer.init(params), jax.tree.map(jnp.zeros_like, params)


def make_train_step(model, criterion, optimizer):
    """The step, compiled: (state, batch) -> (state, loss)."""
    graph = nnx.graphdef(model)

    def loss_fn(params, x, y):
        output = nnx.merge(graph, params)(x)
        return criterion(output, y)

    @jax.jit
    def train_step(state, batch):
        params, opt_state, kept = state
        loss, grads = jax.value_and_grad(loss_fn)(params, *batch)
        kept = jax.tree.map(jnp.add, kept, grads)  # what leaving out zero_grad comes to
        updates, opt_state = optimizer.update(kept, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, kept), loss

    return train_step


def train(model, criterion, optimizer, batches, log=print):
    """The loop. x: (5, 10), y: (5, 1)"""
    train_step = make_train_step(model, criterion, optimizer)
    state = init_state(model, optimizer)
    for epoch, batch in enumerate(batches):
        state, loss = train_step(state, batch)
        log(f"Epoch {epoch + 1}, Loss: {loss.item()}")
    return state


def main():
    """Trains as the document does, and prints its lines."""
    problem = WithoutZeroGrad.from_flags()
    jax.config.update("jax_enable_x64", problem.dtype == "float64")
    model, criterion, optimizer = build(problem)
    generator = TorchGenerator(problem.seed)
    problem.draw_params(generator)  # the model's own draws come first
    x = generator.randn(5, 10, dtype=problem.dtype)
    y = generator.randn(5, 1, dtype=problem.dtype)
    train(model, criterion, optimizer, [(x, y)] * problem.total_steps)


if __name__ == "__main__":
    main()
