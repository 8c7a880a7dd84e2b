"""A linear model by SGD, one sample an update (document 002, its text).

Mirror: torch_impl/sgd_single_sample.py
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from twinstep.jax.layout import load_params, module_layout
from twinstep.jax.nn import Linear  # Flax's, its small products written out: faster in a scan
from twinstep.jax.nn.functional import mse_loss
from twinstep.problems.batches import DataLoader
from twinstep.problems.sgd import SgdSingleSample
from twinstep.problems.torch_random import TorchGenerator


class LinearModel(nnx.Module):
    """One input feature, one output feature."""

    def __init__(self) -> None:
        self.linear = Linear(1, 1)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.linear(x)


def build(problem: SgdSingleSample) -> tuple[nnx.Module, Any, optax.GradientTransformation]:
    """The model, the loss and the optimizer."""
    model = LinearModel()
    load_params(model, problem.initial_params())  # PyTorch's draws
    criterion = mse_loss
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
    """The loop. batches: of each epoch what gives its x, y: (1, 1)"""
    train_step = make_train_step(model, criterion, optimizer)
    state = init_state(model, optimizer)
    for epoch, loader in enumerate(batches):
        for batch in loader:
            state, loss = train_step(state, batch)
        if (epoch + 1) % 10 == 0:
            log(f"Epoch [{epoch + 1}/{len(batches)}], Loss: {loss.item():.4f}")
    return state


def load_data(problem: SgdSingleSample) -> tuple[Any, Any]:
    """What the document trains on, drawn as it draws it."""
    np.random.seed(problem.data_seed)
    x = np.random.rand(100, 1)
    y = 2 * x + 1 + 0.1 * np.random.randn(100, 1)
    dtype = jnp.dtype(problem.dtype)
    return jnp.asarray(x, dtype), jnp.asarray(y, dtype)


def main() -> None:
    """Trains as the document does, and prints its lines."""
    problem = SgdSingleSample.from_flags()
    jax.config.update("jax_enable_x64", problem.dtype == "float64")
    x, y = load_data(problem)
    model, criterion, optimizer = build(problem)
    generator = TorchGenerator(problem.seed)
    problem.draw_params(generator)  # the model's own draws come first
    loader = DataLoader((x, y), batch_size=1, generator=generator)
    params, _ = train(model, criterion, optimizer, [loader] * problem.epochs)
    named = module_layout(model).to_torch(params)
    print("训练后的模型参数:", {name: named[name] for name in problem.initial_params()})


if __name__ == "__main__":
    main()
