"""The 1-1-1 network whose gradients document 004 works out by hand.

Mirror: torch_impl/chain_rule.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from twinstep.jax.layout import load_params
from twinstep.problems.backprop import ChainRule


class Chain(nnx.Module):
    """One hidden neuron, one output neuron, identity activations, no bias."""

    def __init__(self, w1, w2):
        self.w1 = nnx.Param(jnp.asarray(w1))
        self.w2 = nnx.Param(jnp.asarray(w2))

    def __call__(self, x):
        z1 = self.w1 * x
        return self.w2 * z1


def half_squared_error(output, target):
    """(y - y_hat)^2 / 2, the mean over samples."""
    return jnp.mean((target - output) ** 2 / 2)


def build(problem: ChainRule):
    """The model, the loss and the optimizer."""
    model = Chain(problem.w1, problem.w2)
    load_params(model, problem.initial_params())  # PyTorch's draws
    criterion = half_squared_error
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
    """The loop. x, y: (1,)"""
    train_step = make_train_step(model, criterion, optimizer)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    state = params, optimizer.init(params)
    for batch in batches:
        state, loss = train_step(state, batch)
        log(f"Loss: {loss.item()}")
    return state


def main():
    """Trains as the document does, and prints its lines."""
    problem = ChainRule.from_flags()
    jax.config.update("jax_enable_x64", problem.dtype == "float64")
    model, criterion, optimizer = build(problem)
    x, y = jnp.asarray([problem.x]), jnp.asarray([problem.y])
    by_hand = problem.gradients_by_hand({"w1": problem.w1, "w2": problem.w2})
    grads = nnx.grad(lambda model: criterion(model(x), y))(model)
    train(model, criterion, optimizer, [(x, y)] * problem.total_steps)
    for name, grad in nnx.to_pure_dict(grads).items() if problem.total_steps == 1 else ():
        automatic = grad.item()
        print(f"dL/d{name}: by hand {by_hand[name]}, by automatic differentiation {automatic}")


if __name__ == "__main__":
    main()
