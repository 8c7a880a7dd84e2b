"""A residual network for small images, its batch norms with running statistics.

Mirror: torch_impl/resnet18.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import twinstep.jax.nn.functional as F
from twinstep.jax import nn
from twinstep.jax.layout import load_params
from twinstep.jax.optim import sgd
from twinstep.problems.nets.resnet18 import ResNet18
from twinstep.problems.torch_loader import TorchDataLoader
from twinstep.problems.torch_random import TorchGenerator


class BasicBlock(nn.Module):
    """Two convolutions whose output is added to their input."""

    def __init__(self, in_channels, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class ResNet(nn.Module):
    """A stem, four stages of two blocks, and a linear layer."""

    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self._stage(width, width, 1)
        self.layer2 = self._stage(width, 2 * width, 2)
        self.layer3 = self._stage(2 * width, 4 * width, 2)
        self.layer4 = self._stage(4 * width, 8 * width, 2)
        self.fc = nn.Linear(8 * width, 10)

    def _stage(self, in_channels, channels, stride):
        return nn.Sequential(
            BasicBlock(in_channels, channels, stride), BasicBlock(channels, channels, 1)
        )

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = F.adaptive_avg_pool2d(x, 1).reshape(len(x), -1)
        return self.fc(x)


def build(problem: ResNet18):
    """The model, the loss and the optimizer."""
    model = ResNet(problem.width)
    load_params(model, problem.initial_params())  # PyTorch's draws
    criterion = nn.CrossEntropyLoss()
    optimizer = sgd(
        lr=problem.learning_rate,
        momentum=problem.momentum,
        weight_decay=problem.weight_decay,
    )
    return model, criterion, optimizer


def init_state(model, optimizer):
    """What the first step is given: parameters, the optimizer's state, running statistics."""
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return params, optimizer.init(params), nnx.state(model, nnx.Not(nnx.Param))


def make_train_step(model, criterion, optimizer):
    """The step, compiled: (state, batch) -> (state, loss)."""
    graph = nnx.graphdef(model)

    def loss_fn(params, rest, images, labels):
        model = nnx.merge(graph, params, rest, copy=True)
        loss = criterion(model(images), labels)
        return loss, nnx.state(model, nnx.Not(nnx.Param))

    @jax.jit
    def train_step(state, batch):
        params, opt_state, rest = state
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, rest), grads = grad_fn(params, rest, *batch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, rest), loss

    return train_step


def train(model, criterion, optimizer, batches, log=print):
    """The loop. batches: of each epoch what gives images (N, 3, H, W) and labels (N,)"""
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
    outputs = model(images)
    model.train()
    predictions = jnp.argmax(outputs, axis=1)
    return outputs, predictions, jnp.sum(predictions == labels)


def main():
    """Trains an epoch, and prints its lines."""
    problem = ResNet18.from_flags()
    jax.config.update("jax_enable_x64", problem.dtype == "float64")
    model, criterion, optimizer = build(problem)
    samples = problem.samples()
    loader = TorchDataLoader(
        (jnp.asarray(samples["images"]), jnp.asarray(samples["labels"])),
        problem.batch_size,
        shuffle=True,
        generator=TorchGenerator(problem.seed),
    )
    params, _, rest = train(model, criterion, optimizer, [loader] * problem.epochs)
    nnx.update(model, params, rest)
    images, labels = map(jnp.asarray, problem.test_set())
    _, _, correct = evaluate(model, images, labels)
    print(f"Test Accuracy: {100 * correct.item() / len(labels):.2f} %")


if __name__ == "__main__":
    main()
