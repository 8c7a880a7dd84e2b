"""A convolutional network for handwritten digits, with dropout.

Mirror: torch_impl/mnist_convnet.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import twinstep.jax.nn.functional as F
from twinstep.jax import nn
from twinstep.jax.layout import load_params
from twinstep.jax.nn import to_tensor  # not / 255, of which XLA makes a product, an ulp off
from twinstep.jax.optim import adadelta  # optax.adadelta keeps eps elsewhere
from twinstep.problems.nets.mnist_convnet import MnistConvnet
from twinstep.problems.torch_loader import TorchDataLoader
from twinstep.problems.torch_random import TorchGenerator


class Net(nn.Module):
    """Two convolutions and two linear layers."""

    def __init__(self, channels, features, hidden_size):
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3)
        self.conv2 = nn.Conv2d(channels, 2 * channels, 3)
        self.dropout1 = nn.Dropout(0.25)
        self.dropout2 = nn.Dropout(0.5)
        self.fc1 = nn.Linear(features, hidden_size)
        self.fc2 = nn.Linear(hidden_size, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = self.dropout1(F.max_pool2d(x, 2))
        x = x.reshape(len(x), -1)
        x = self.dropout2(F.relu(self.fc1(x)))
        return F.log_softmax(self.fc2(x), dim=1)


def build(problem: MnistConvnet):
    """The model, the loss and the optimizer."""
    model = Net(problem.channels, problem.features, problem.hidden_size)
    load_params(model, problem.initial_params())  # PyTorch's draws
    criterion = F.nll_loss
    optimizer = adadelta(lr=problem.learning_rate)
    return model, criterion, optimizer


def init_state(model, optimizer):
    """What the first step is given: parameters, the optimizer's state, random numbers."""
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return params, optimizer.init(params), nnx.state(model, nnx.Not(nnx.Param))


def make_train_step(model, criterion, optimizer):
    """The step, compiled: (state, batch) -> (state, loss)."""
    graph = nnx.graphdef(model)

    def loss_fn(params, rest, images, labels):
        model = nnx.merge(graph, params, rest, copy=True)
        output = model(to_tensor(images)[:, None])
        return criterion(output, labels), nnx.state(model, nnx.Not(nnx.Param))

    @jax.jit
    def train_step(state, batch):
        params, opt_state, rest = state
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, rest), grads = grad_fn(params, rest, *batch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, rest), loss

    return train_step


def train(model, criterion, optimizer, batches, log=print):
    """The loop. batches: of each epoch what gives images (N, 28, 28), bytes, and labels (N,)"""
    train_step = make_train_step(model, criterion, optimizer)
    state = init_state(model, optimizer)
    for loader in batches:
        for i, batch in enumerate(loader):
            state, loss = train_step(state, batch)
            if (i + 1) % 10 == 0:
                log(f"Step [{i + 1}/{len(loader)}], Loss: {loss.item():.4f}")
    return state


def evaluate(model, images, labels):
    """The outputs (N, 10), the digits named (N,), and how many rightly, ()."""
    model.eval()
    outputs = model(to_tensor(images)[:, None])
    model.train()
    predictions = jnp.argmax(outputs, axis=1)
    return outputs, predictions, jnp.sum(predictions == labels)


def main():
    """Trains an epoch, and prints its lines."""
    problem = MnistConvnet.from_flags()
    jax.config.update("jax_enable_x64", problem.dtype == "float64")
    nn.manual_seed(problem.seed)
    model, criterion, optimizer = build(problem)
    digits = problem.images
    train_set = jnp.asarray(digits.train_images), jnp.asarray(digits.train_labels)
    loader = TorchDataLoader(
        train_set,
        problem.batch_size,
        shuffle=True,
        generator=TorchGenerator(problem.seed),
    )
    params, _, rest = train(model, criterion, optimizer, [loader] * problem.epochs)
    nnx.update(model, params, rest)
    images, labels = jnp.asarray(digits.test_images), jnp.asarray(digits.test_labels)
    _, _, correct = evaluate(model, images, labels)
    print(f"Test Accuracy: {100 * correct.item() / len(labels):.2f} %")


if __name__ == "__main__":
    main()
