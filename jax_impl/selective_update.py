"""One Adam over one of two networks (document 001, section 2).

Mirror: torch_impl/selective_update.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from twinstep.jax.layout import load_params
from twinstep.jax.nn import GRU, Linear  # PyTorch's: nnx.GRUCell has no bias b_hn
from twinstep.jax.nn.functional import mse_loss
from twinstep.jax.optim import adam  # optax.adam: off by 72 to 90 eps in float32, this by 3
from twinstep.problems.groups import SelectiveUpdate
from twinstep.problems.torch_random import TorchGenerator


class Networks(nnx.Module):
    """A GRU reads the sequence; the model reads the GRU's last output."""

    def __init__(self):
        self.model = Linear(16, 1)
        self.gru = GRU(10, 16, batch_first=True)

    def __call__(self, x):
        h0 = jnp.zeros((1, x.shape[0], 16), x.dtype)
        return self.model(self.gru(x, h0)[0][:, -1, :])


def build(problem: SelectiveUpdate):
    """The model, the loss and the optimizer."""
    model = Networks()
    load_params(model, problem.initial_params())  # PyTorch's draws
    criterion = mse_loss
    optimizer = adam(lr=problem.learning_rate, betas=problem.betas, eps=problem.eps)
    return model, criterion, optimizer


def init_state(model, optimizer):
    """What the first step is given."""
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    kept = {"gru": jax.tree.map(jnp.zeros_like, params["gru"])}
    return params, optimizer.init({"model": params["model"]}), kept


def make_train_step(model, criterion, optimizer):
    """The step, compiled: (state, batch) -> (state, loss)."""
    graph = nnx.graphdef(model)

    def loss_fn(params, x, y):
        return criterion(nnx.merge(graph, params)(x), y)

    @jax.jit
    def train_step(state, batch):
        params, opt_state, kept = state
        loss, grads = jax.value_and_grad(loss_fn)(params, *batch)
        kept = {"gru": jax.tree.map(jnp.add, kept["gru"], grads["gru"])}  # as PyTorch's .grad grows
        trained = {"model": params["model"]}
        updates, opt_state = optimizer.update({"model": grads["model"]}, opt_state, trained)
        return ({**params, **optax.apply_updates(trained, updates)}, opt_state, kept), loss

    return train_step


def train(model, criterion, optimizer, batches, log=print):
    """The loop. x: (5, 7, 10), y: (5, 1)"""
    train_step = make_train_step(model, criterion, optimizer)
    state = init_state(model, optimizer)
    for epoch, batch in enumerate(batches):
        state, loss = train_step(state, batch)
        if (epoch + 1) % 10 == 0:
            log(f"Epoch [{epoch + 1}/{len(batches)}], Loss: {loss.item():.4f}")
    return state


def main():
    """Trains as the document does, and prints its lines."""
    problem = SelectiveUpdate.from_flags()
    jax.config.update("jax_enable_x64", problem.dtype == "float64")
    model, criterion, optimizer = build(problem)
    generator = TorchGenerator(problem.seed)
    problem.draw_params(generator)  # the model's own draws come first
    x = generator.randn(5, 7, 10, dtype=problem.dtype)  # (batch, time, features)
    y = generator.randn(5, 1, dtype=problem.dtype)
    train(model, criterion, optimizer, [(x, y)] * problem.total_steps)


if __name__ == "__main__":
    main()
