"""An RNN reads handwritten digits row by row (document 001, the comment below it).

Mirror: torch_impl/mnist_rnn.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from twinstep.jax.nn import layers
from twinstep.jax.nn.functional import cross_entropy
from twinstep.jax.nn.layers import to_tensor
from twinstep.jax.optim import adam
from twinstep.jax.state import Batch, Criterion, Step, TrainState, Tree
from twinstep.problems.mnist_rnn import MnistRnn


class RNN(nnx.Module):
    """Reads an image row by row; the last output names the digit."""

    def __init__(self, input_size: int, hidden_size: int, num_classes: int) -> None:
        self.hidden_size = hidden_size
        self.rnn = layers.RNN(input_size, hidden_size)
        self.fc = layers.Linear(hidden_size, num_classes)

    def __call__(self, x: jax.Array) -> jax.Array:
        h0 = jnp.zeros((x.shape[0], self.hidden_size), x.dtype)
        out, _ = self.rnn(x, h0)
        return self.fc(out[:, -1, :])


def init(spec: MnistRnn) -> TrainState:
    """The model with the spec's parameters, the criterion and the optimizer."""
    model = RNN(28, spec.hidden_size, 10)
    criterion = cross_entropy
    optimizer = adam(lr=spec.learning_rate, betas=spec.betas, eps=spec.eps)
    return TrainState.create(model, spec.initial_params(), criterion, optimizer)


def loss_fn(model: nnx.Module, criterion: Criterion, batch: Batch) -> jax.Array:
    """The loss of a batch, (). images: (N, 28, 28) bytes, labels: (N,)"""
    images = to_tensor(batch["images"]).reshape(-1, 28, 28)
    outputs = model(images)
    return criterion(outputs, batch["labels"])


def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Step]:
    """Forward, loss, backward, update."""

    def loss_of(params: Tree) -> jax.Array:
        return loss_fn(nnx.merge(state.graph, params), state.criterion, batch)

    loss, grads = jax.value_and_grad(loss_of)(state.params)  # new each time: nothing to zero
    updates, opt_state = state.optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return state.replace(params=params, opt_state=opt_state), Step(loss, grads)


def evaluate(
    state: TrainState, images: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The outputs (N, 10), the digits named (N,), and how many rightly, ().

    images: (N, 28, 28), labels: (N,)
    """
    model = nnx.merge(state.graph, state.params)
    outputs = model(to_tensor(images).reshape(-1, 28, 28))
    predictions = jnp.argmax(outputs, axis=1)
    return outputs, predictions, jnp.sum(predictions == labels)
