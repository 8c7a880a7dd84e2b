"""An RNN reads handwritten digits row by row (document 001, the comment below it).

Mirror: torch_impl/mnist_rnn.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from twinstep.jax import nn
from twinstep.jax.layout import load_params
from twinstep.jax.nn import to_tensor  # not / 255, of which XLA makes a product, an ulp off
from twinstep.jax.nn.functional import cross_entropy
from twinstep.jax.optim import adam  # optax.adam: off by 72 to 90 eps in float32, this by 3
from twinstep.problems.mnist_rnn import MnistRnn
from twinstep.problems.torch_loader import TorchDataLoader
from twinstep.problems.torch_random import TorchGenerator


class RNN(nnx.Module):
    """Reads an image row by row; the last output names the digit."""

    def __init__(self, input_size, hidden_size, num_classes):
        self.hidden_size = hidden_size
        self.rnn = nn.RNN(input_size, hidden_size, batch_first=True)
        self.fc = nn.Linear(hidden_size, num_classes)

    def __call__(self, x):
        h0 = jnp.zeros((1, x.shape[0], self.hidden_size), x.dtype)
        out, _ = self.rnn(x, h0)
        return self.fc(out[:, -1, :])


def build(problem: MnistRnn):
    """The model, the loss and the optimizer."""
    model = RNN(28, problem.hidden_size, 10)
    load_params(model, problem.initial_params())  # PyTorch's draws
    criterion = cross_entropy
    optimizer = adam(lr=problem.learning_rate, betas=problem.betas, eps=problem.eps)
    return model, criterion, optimizer


def make_train_step(model, criterion, optimizer):
    """The step, compiled: (state, batch) -> (state, loss)."""
    graph = nnx.graphdef(model)

    def loss_fn(params, images, labels):
        images = to_tensor(images).reshape(-1, 28, 28)
        outputs = nnx.merge(graph, params)(images)
        return criterion(outputs, labels)

    @jax.jit
    def train_step(state, batch):
        params, opt_state = state
        loss, grads = jax.value_and_grad(loss_fn)(params, *batch)  # a new value: nothing to zero
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    return train_step


def train(model, criterion, optimizer, batches, log=print):
    """The loop. batches: of each epoch what gives images (N, 28, 28), bytes, and labels (N,)"""
    train_step = make_train_step(model, criterion, optimizer)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    state = params, optimizer.init(params)
    for epoch, loader in enumerate(batches):
        for i, batch in enumerate(loader):
            state, loss = train_step(state, batch)
            if (i + 1) % min(100, len(loader)) == 0:
                where = f"Epoch [{epoch + 1}/{len(batches)}], Step [{i + 1}/{len(loader)}]"
                log(f"{where}, Loss: {loss.item():.4f}")
    return state


def evaluate(model, images, labels):
    """The outputs (N, 10), the digits named (N,), and how many rightly, ()."""
    outputs = model(to_tensor(images).reshape(-1, 28, 28))
    predictions = jnp.argmax(outputs, axis=1)
    return outputs, predictions, jnp.sum(predictions == labels)


def main():
    """Trains as the document does, and prints its lines."""
    problem = MnistRnn.from_flags()
    jax.config.update("jax_enable_x64", problem.dtype == "float64")
    digits = problem.images
    train_set = jnp.asarray(digits.train_images), jnp.asarray(digits.train_labels)
    images, labels = jnp.asarray(digits.test_images), jnp.asarray(digits.test_labels)
    generator = TorchGenerator(problem.seed)
    problem.draw_params(generator)  # the model's own draws come first
    loader = TorchDataLoader(
        train_set, problem.batch_size, shuffle=True, default_generator=generator
    )
    model, criterion, optimizer = build(problem)
    params, _ = train(model, criterion, optimizer, [loader] * problem.epochs)
    nnx.update(model, params)
    _, _, correct = evaluate(model, images, labels)
    accuracy = 100 * correct.item() / len(labels)
    print(f"Test Accuracy of the model on the {len(labels)} test images: {accuracy} %")


if __name__ == "__main__":
    main()
