"""Gradients of a small network by automatic differentiation (document 004).

Mirror: torch_impl/backpropagation.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from twinstep.jax.layout import load_params, module_layout
from twinstep.jax.nn import Linear  # its small products are written out: faster in a scan
from twinstep.jax.nn.functional import mse_loss
from twinstep.problems.backprop import Backpropagation
from twinstep.problems.torch_random import TorchGenerator


class SimpleNetwork(nnx.Module):
    """10 inputs, 20 hidden units, 1 output."""

    def __init__(self):
        self.layer1 = Linear(10, 20)
        self.layer2 = Linear(20, 1)

    def __call__(self, x):
        x = self.layer1(x)
        x = nnx.relu(x)
        return self.layer2(x)


def build(problem: Backpropagation):
    """The model, the loss and the optimizer."""
    model = SimpleNetwork()
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
    """The loop. x: (5, 10), y: (5, 1)"""
    train_step = make_train_step(model, criterion, optimizer)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    state = params, optimizer.init(params)
    for batch in batches:
        state, loss = train_step(state, batch)
        log(f"Loss: {loss.item()}")
    return state


def main():
    """Trains as the document does, and prints its lines."""
    problem = Backpropagation.from_flags()
    jax.config.update("jax_enable_x64", problem.dtype == "float64")
    model, criterion, optimizer = build(problem)
    generator = TorchGenerator(problem.seed)
    problem.draw_params(generator)  # the model's own draws come first
    x = generator.randn(5, 10, dtype=problem.dtype)
    y = generator.randn(5, 1, dtype=problem.dtype)
    train(model, criterion, optimizer, [(x, y)] * problem.total_steps)
    grads = nnx.to_pure_dict(nnx.grad(lambda model: criterion(model(x), y))(model))
    named = module_layout(model).to_torch(grads)
    for name in problem.initial_params() if problem.total_steps == 1 else ():
        grad = named[name]
        print(f"{name}.grad: {grad.shape}, largest entry {jnp.abs(grad).max():.6f}")


if __name__ == "__main__":
    main()
