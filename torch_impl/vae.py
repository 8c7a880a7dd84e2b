"""A variational autoencoder of handwritten digits: each step draws from the normal distribution.

Mirror: jax_impl/vae.py
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from twinstep.problems.nets.vae import PIXELS, VariationalAutoencoder


class VAE(nn.Module):
    """An image is encoded as a distribution; what is drawn from it is decoded."""

    def __init__(self, hidden_size, latent_size):
        super().__init__()
        self.encoder = nn.Linear(PIXELS, hidden_size)
        self.mean = nn.Linear(hidden_size, latent_size)
        self.log_variance = nn.Linear(hidden_size, latent_size)
        self.decoder = nn.Linear(latent_size, hidden_size)
        self.output = nn.Linear(hidden_size, PIXELS)

    def encode(self, x):
        hidden = F.relu(self.encoder(x))
        return self.mean(hidden), self.log_variance(hidden)

    def draw(self, mean, log_variance):
        std = torch.exp(0.5 * log_variance)
        return mean + torch.randn_like(std) * std

    def decode(self, z):
        return torch.sigmoid(self.output(F.relu(self.decoder(z))))

    def forward(self, x):
        mean, log_variance = self.encode(x)
        return self.decode(self.draw(mean, log_variance)), mean, log_variance


def criterion(output, images, mean, log_variance):
    """What the decoder makes of it, and the divergence from the standard normal distribution."""
    reconstruction = F.binary_cross_entropy(output, images, reduction="sum")
    divergence = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
    return reconstruction + divergence


def build(problem: VariationalAutoencoder):
    """The model, the loss and the optimizer."""
    model = VAE(problem.hidden_size, problem.latent_size)
    optimizer = torch.optim.Adam(model.parameters(), lr=problem.learning_rate)
    return model, criterion, optimizer


def train(model, criterion, optimizer, batches, log=print):
    """The loop. batches: of each epoch what gives images (N, 64)"""
    for loader in batches:
        for i, (images,) in enumerate(loader):
            optimizer.zero_grad()
            output, mean, log_variance = model(images)
            loss = criterion(output, images, mean, log_variance)
            loss.backward()
            optimizer.step()
            if (i + 1) % 10 == 0:
                log(f"Step [{i + 1}/{len(loader)}], Loss: {loss.item():.4f}")


def main():
    """Trains an epoch, and prints its lines."""
    problem = VariationalAutoencoder.from_flags()
    torch.set_default_dtype(getattr(torch, problem.dtype))
    torch.manual_seed(problem.seed)
    model, criterion, optimizer = build(problem)
    images = torch.tensor(problem.batches().data["images"])
    loader = DataLoader(
        TensorDataset(images),
        problem.batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(problem.seed),
    )
    train(model, criterion, optimizer, [loader] * problem.epochs)


if __name__ == "__main__":
    main()
