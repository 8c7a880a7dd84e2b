"""A variational autoencoder of handwritten digits: each step draws from the normal distribution.

Mirror: torch_impl/vae.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import twinstep.jax.nn.functional as F
from twinstep.jax import nn
from twinstep.jax.layout import load_params
from twinstep.jax.optim import adam
from twinstep.problems.nets.vae import PIXELS, VariationalAutoencoder
from twinstep.problems.torch_loader import TorchDataLoader
from twinstep.problems.torch_random import TorchGenerator


class VAE(nn.Module):
    """An image is encoded as a distribution; what is drawn from it is decoded."""

    def __init__(self, hidden_size, latent_size):
        super().__init__()
        self.encoder = nn.Linear(PIXELS, hidden_size)
        self.mean = nn.Linear(hidden_size, latent_size)
        self.log_variance = nn.Linear(hidden_size, latent_size)
        self.decoder = nn.Linear(latent_size, hidden_size)
        self.output = nn.Linear(hidden_size, PIXELS)
        self.generator = nn.default_generator()  # its state is the model's, and a step's

    def encode(self, x):
        hidden = F.relu(self.encoder(x))
        return self.mean(hidden), self.log_variance(hidden)

    def draw(self, mean, log_variance):
        std = jnp.exp(0.5 * log_variance)
        return mean + self.generator.randn(*std.shape) * std

    def decode(self, z):
        return F.sigmoid(self.output(F.relu(self.decoder(z))))

    def forward(self, x):
        mean, log_variance = self.encode(x)
        return self.decode(self.draw(mean, log_variance)), mean, log_variance


def criterion(output, images, mean, log_variance):
    """What the decoder makes of it, and the divergence from the standard normal distribution."""
    reconstruction = F.binary_cross_entropy(output, images, reduction="sum")
    divergence = -0.5 * jnp.sum(1 + log_variance - mean**2 - jnp.exp(log_variance))
    return reconstruction + divergence


def build(problem: VariationalAutoencoder):
    """The model, the loss and the optimizer."""
    model = VAE(problem.hidden_size, problem.latent_size)
    load_params(model, problem.initial_params())  # PyTorch's draws
    optimizer = adam(lr=problem.learning_rate)
    return model, criterion, optimizer


def init_state(model, optimizer):
    """What the first step is given: parameters, the optimizer's state, random numbers."""
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return params, optimizer.init(params), nnx.state(model, nnx.Not(nnx.Param))


def make_train_step(model, criterion, optimizer):
    """The step, compiled: (state, batch) -> (state, loss)."""
    graph = nnx.graphdef(model)

    def loss_fn(params, rest, images):
        model = nnx.merge(graph, params, rest, copy=True)
        output, mean, log_variance = model(images)
        loss = criterion(output, images, mean, log_variance)
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
    """The loop. batches: of each epoch what gives images (N, 64)"""
    train_step = make_train_step(model, criterion, optimizer)
    state = init_state(model, optimizer)
    for loader in batches:
        for i, batch in enumerate(loader):
            state, loss = train_step(state, batch)
            if (i + 1) % 10 == 0:
                log(f"Step [{i + 1}/{len(loader)}], Loss: {loss.item():.4f}")
    return state


def main():
    """Trains an epoch, and prints its lines."""
    problem = VariationalAutoencoder.from_flags()
    jax.config.update("jax_enable_x64", problem.dtype == "float64")
    nn.manual_seed(problem.seed)
    model, criterion, optimizer = build(problem)
    images = jnp.asarray(problem.batches().data["images"])
    loader = TorchDataLoader(
        (images,),
        problem.batch_size,
        shuffle=True,
        generator=TorchGenerator(problem.seed),
    )
    train(model, criterion, optimizer, [loader] * problem.epochs)


if __name__ == "__main__":
    main()
