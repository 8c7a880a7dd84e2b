"""A generative adversarial network: two networks, two optimizers, in turn.

Mirror: jax_impl/dcgan.py
"""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from twinstep.problems.nets.dcgan import Dcgan


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
    generators = torch.optim.Adam(
        generator.parameters(), lr=problem.learning_rate, betas=problem.betas
    )
    discriminators = torch.optim.Adam(
        discriminator.parameters(), lr=problem.learning_rate, betas=problem.betas
    )
    return (generator, discriminator), criterion, (generators, discriminators)


def train(model, criterion, optimizer, batches, noise_size, log=print):
    """The loop. batches: of each epoch what gives images (N, 1, 8, 8)"""
    generator, discriminator = model
    generators, discriminators = optimizer
    for loader in batches:
        for i, (images,) in enumerate(loader):
            real, made = torch.ones(len(images)), torch.zeros(len(images))
            # the discriminator: of real images, and of what was made
            discriminators.zero_grad()
            real_loss = criterion(discriminator(images), real)
            real_loss.backward()
            noise = torch.randn(len(images), noise_size, 1, 1)
            fakes = generator(noise)
            fake_loss = criterion(discriminator(fakes.detach()), made)
            fake_loss.backward()
            discriminators.step()
            # the generator: what it made is to be taken for real
            generators.zero_grad()
            loss = criterion(discriminator(fakes), real)
            loss.backward()
            generators.step()
            if (i + 1) % 10 == 0:
                against = real_loss.item() + fake_loss.item()
                log(f"Step [{i + 1}/{len(loader)}], Losses: {against:.4f}, {loss.item():.4f}")


def main():
    """Trains an epoch, and prints its lines."""
    problem = Dcgan.from_flags()
    torch.set_default_dtype(getattr(torch, problem.dtype))
    torch.manual_seed(problem.seed)
    model, criterion, optimizer = build(problem)
    loader = DataLoader(
        TensorDataset(torch.tensor(problem.batches().data["images"])),
        problem.batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(problem.seed),
    )
    train(model, criterion, optimizer, [loader] * problem.epochs, problem.noise_size)


if __name__ == "__main__":
    main()
