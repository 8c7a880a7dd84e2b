"""The 1-1-1 network whose gradients document 004 works out by hand.

Mirror: torch_impl/chain_rule.py
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from twinstep.jax.layout import load_params
from twinstep.problems.backprop import ChainRule


class Chain(nnx.Module):
    """One hidden neuron, one output neuron, identity activations, no bias."""

    def __init__(self, w1: float, w2: float) -> None:
        self.w1 = nnx.Param(jnp.asarray(w1))
        self.w2 = nnx.Param(jnp.asarray(w2))

    def __call__(self, x: jax.Array) -> jax.Array:
        z1 = self.w1 * x
        return self.w2 * z1


def half_squared_error(output: jax.Array, target: jax.Array) -> jax.Array:
    """(y - y_hat)^2 / 2, the mean over samples."""
    return jnp.mean((target - output) ** 2 / 2)


def build(problem: ChainRule) -> tuple[nnx.Module, Any, optax.GradientTransformation]:
    """The model, the loss and the optimizer."""
    model = Chain(problem.w1, problem.w2)
    load_params(model, problem.initial_params())  # PyTorch's draws
    criterion = half_squared_error
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
    """The loop. x, y: (1,)"""
    train_step = make_train_step(model, criterion, optimizer)
    state = init_state(model, optimizer)
    for batch in batches:
        state, loss = train_step(state, batch)
        log(f"Loss: {loss.item()}")
    return state


def load_data(problem: ChainRule) -> tuple[Any, Any]:
    """What the document trains on, drawn as it draws it."""
    return jnp.asarray([problem.x]), jnp.asarray([problem.y])


def main() -> None:
    """Trains as the document does, and prints its lines."""
    problem = ChainRule.from_flags()
    jax.config.update("jax_enable_x64", problem.dtype == "float64")
    model, criterion, optimizer = build(problem)
    x, y = load_data(problem)
    by_hand = problem.gradients_by_hand({"w1": problem.w1, "w2": problem.w2})
    grads = nnx.grad(lambda model: criterion(model(x), y))(model)
    train(model, criterion, optimizer, [(x, y)] * problem.total_steps)
    for name, grad in nnx.to_pure_dict(grads).items() if problem.total_steps == 1 else ():
        automatic = grad.item()
        print(f"dL/d{name}: by hand {by_hand[name]}, by automatic differentiation {automatic}")


if __name__ == "__main__":
    main()
