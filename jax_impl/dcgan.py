"""A generative adversarial network: two networks, two optimizers, in turn.

Mirror: torch_impl/dcgan.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from twinstep.jax import nn
from twinstep.jax.optim import adam
from twinstep.problems.nets.dcgan import Dcgan
from twinstep.problems.torch_loader import TorchDataLoader
from twinstep.problems.torch_random import TorchGenerator


class Generator(nn.Module):
    """Makes images (N, 1, 8, 8) of noise (N, Z, 1, 1)."""

    def __init__(self, noise_size, width):
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(noise_size, 4 * width, 2, bias=False),
            nn.BatchNorm2d(4 * width),
            nn.ReLU(),
            nn.ConvTranspose2d(4 * width, width, 4, 2, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.ConvTranspose2d(width, 1, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, noise):
        return self.main(noise)


class Discriminator(nn.Module):
    """How probably images are real, (N,)."""

    def __init__(self, width):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(1, width, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 2, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, images):
        return self.main(images).reshape(-1)


def _initialize(layer):
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)
        nn.init.zeros_(layer.bias)


def build(problem: Dcgan):
    """Both models, the loss, both optimizers."""
    generator = Generator(problem.noise_size, problem.width)
    generator.apply(_initialize)
    discriminator = Discriminator(problem.width)
    discriminator.apply(_initialize)
    criterion = nn.BCELoss()
    generators = adam(lr=problem.learning_rate, betas=problem.betas)
    discriminators = adam(lr=problem.learning_rate, betas=problem.betas)
    return (generator, discriminator), criterion, (generators, discriminators)


def init_state(model, optimizer):
    """What the first step is given: each network's parameters, optimizer's state, statistics."""
    states = []
    for network, one in zip(model, optimizer, strict=True):
        params = nnx.to_pure_dict(nnx.state(network, nnx.Param))
        states.append((params, one.init(params), nnx.state(network, nnx.Not(nnx.Param))))
    return tuple(states)


def make_train_step(model, criterion, optimizer):
    """The step, compiled, of both in turn: (states, images, noise) -> (states, losses)."""
    generator_graph, discriminator_graph = map(nnx.graphdef, model)
    generators, discriminators = optimizer

    def discriminator_loss(params, rest, images, fakes):
        discriminator = nnx.merge(discriminator_graph, params, rest, copy=True)
        real_loss = criterion(discriminator(images), jnp.ones(len(images)))
        fake_loss = criterion(discriminator(fakes), jnp.zeros(len(images)))
        return real_loss + fake_loss, nnx.state(discriminator, nnx.Not(nnx.Param))

    def generator_loss(params, rest, noise, other_params, other_rest):
        generator = nnx.merge(generator_graph, params, rest, copy=True)
        discriminator = nnx.merge(discriminator_graph, other_params, other_rest, copy=True)
        loss = criterion(discriminator(generator(noise)), jnp.ones(len(noise)))
        rests = (nnx.state(network, nnx.Not(nnx.Param)) for network in (generator, discriminator))
        return loss, tuple(rests)

    @jax.jit
    def train_step(states, images, noise):
        (made_by, made_state, made_rest), (params, opt_state, rest) = states
        # the discriminator: of real images, and of what was made
        fakes = nnx.merge(generator_graph, made_by, made_rest, copy=True)(noise)
        grad_fn = jax.value_and_grad(discriminator_loss, has_aux=True)
        (against, rest), grads = grad_fn(params, rest, images, fakes)
        updates, opt_state = discriminators.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        # the generator: what it made is to be taken for real
        grad_fn = jax.value_and_grad(generator_loss, has_aux=True)
        (loss, (made_rest, rest)), grads = grad_fn(made_by, made_rest, noise, params, rest)
        updates, made_state = generators.update(grads, made_state, made_by)
        made_by = optax.apply_updates(made_by, updates)
        return ((made_by, made_state, made_rest), (params, opt_state, rest)), (against, loss)

    return train_step


def train(model, criterion, optimizer, batches, noise_size, log=print):
    """The loop. batches: of each epoch what gives images (N, 1, 8, 8)"""
    train_step = make_train_step(model, criterion, optimizer)
    states = init_state(model, optimizer)
    for loader in batches:
        for i, (images,) in enumerate(loader):
            noise = nn.default_generator().randn(len(images), noise_size, 1, 1)
            states, (against, loss) = train_step(states, images, noise)
            if (i + 1) % 10 == 0:
                log(f"Step [{i + 1}/{len(loader)}], Losses: {against:.4f}, {loss:.4f}")
    return states


def main():
    """Trains an epoch, and prints its lines."""
    problem = Dcgan.from_flags()
    jax.config.update("jax_enable_x64", problem.dtype == "float64")
    nn.manual_seed(problem.seed)
    model, criterion, optimizer = build(problem)
    loader = TorchDataLoader(
        (jnp.asarray(problem.batches().data["images"]),),
        problem.batch_size,
        shuffle=True,
        generator=TorchGenerator(problem.seed),
    )
    train(model, criterion, optimizer, [loader] * problem.epochs, problem.noise_size)


if __name__ == "__main__":
    main()
