"""A small vision transformer for handwritten digits of 8 x 8 pixels.

Mirror: torch_impl/vision_transformer.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import twinstep.jax.nn.functional as F
from twinstep.jax import nn
from twinstep.jax.layout import load_params
from twinstep.jax.optim import adamw
from twinstep.problems.nets.vision_transformer import VisionTransformer
from twinstep.problems.torch_loader import TorchDataLoader
from twinstep.problems.torch_random import TorchGenerator


class ViT(nn.Module):
    """Patches, a class token before them, an encoder, and a head that reads the class token."""

    def __init__(self, problem: VisionTransformer):
        super().__init__()
        width, patch = problem.width, problem.patch_size
        self.class_token = nn.Parameter(jnp.zeros((1, 1, width)))
        self.position = nn.Parameter(jnp.zeros((1, problem.places, width)))
        nn.init.normal_(self.class_token)
        nn.init.normal_(self.position)
        self.patches = nn.Conv2d(1, width, patch, stride=patch)
        self.dropout = nn.Dropout(problem.dropout)
        layer = nn.TransformerEncoderLayer(
            width,
            problem.heads,
            problem.hidden_size,
            problem.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(
            layer, problem.layers, nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.head = nn.Linear(width, 10)

    def forward(self, images):
        x = self.patches(images)  # (N, width, rows, columns)
        x = jnp.swapaxes(x.reshape(*x.shape[:2], -1), 1, 2)  # (N, patches, width)
        token = jnp.broadcast_to(self.class_token[...], (len(x), 1, x.shape[2]))
        x = jnp.concatenate([token, x], axis=1)
        x = self.encoder(self.dropout(x + self.position))
        return self.head(x[:, 0])


def build(problem: VisionTransformer):
    """The model, the loss and the optimizer."""
    model = ViT(problem)
    load_params(model, problem.initial_params())  # PyTorch's draws
    optimizer = adamw(lr=problem.learning_rate, weight_decay=problem.weight_decay)
    return model, F.cross_entropy, optimizer


def init_state(model, optimizer):
    """What the first step is given: parameters, the optimizer's state, random numbers."""
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return params, optimizer.init(params), nnx.state(model, nnx.Not(nnx.Param))


def make_train_step(model, criterion, optimizer):
    """The step, compiled: (state, batch) -> (state, loss)."""
    graph = nnx.graphdef(model)

    def loss_fn(params, rest, images, labels):
        model = nnx.merge(graph, params, rest, copy=True)
        loss = criterion(model(images[:, None]), labels)
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
    """The loop. batches: of each epoch what gives images (N, 8, 8), in 0 to 1, and labels (N,)"""
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
    outputs = model(images[:, None])
    model.train()
    predictions = jnp.argmax(outputs, axis=1)
    return outputs, predictions, jnp.sum(predictions == labels)


def main():
    """Trains an epoch, and prints its lines."""
    problem = VisionTransformer.from_flags()
    jax.config.update("jax_enable_x64", problem.dtype == "float64")
    nn.manual_seed(problem.seed)
    model, criterion, optimizer = build(problem)
    digits = problem.digits
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
