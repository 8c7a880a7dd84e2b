"""A small vision transformer for handwritten digits of 8 x 8 pixels.

Mirror: jax_impl/vision_transformer.py
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from twinstep.problems.nets.vision_transformer import VisionTransformer


class ViT(nn.Module):
    """Patches, a class token before them, an encoder, and a head that reads the class token."""

    def __init__(self, problem: VisionTransformer):
        super().__init__()
        width, patch = problem.width, problem.patch_size
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, problem.places, width))
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
        x = x.flatten(2).transpose(1, 2)  # (N, patches, width)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1)
        x = self.encoder(self.dropout(x + self.position))
        return self.head(x[:, 0])


def build(problem: VisionTransformer):
    """The model, the loss and the optimizer."""
    model = ViT(problem)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=problem.learning_rate, weight_decay=problem.weight_decay
    )
    return model, F.cross_entropy, optimizer


def train(model, criterion, optimizer, batches, log=print):
    """The loop. batches: of each epoch what gives images (N, 8, 8), in 0 to 1, and labels (N,)"""
    model.train()
    for loader in batches:
        for i, (images, labels) in enumerate(loader):
            loss = criterion(model(images[:, None]), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if (i + 1) % 10 == 0:
                log(f"Step [{i + 1}/{len(loader)}], Loss: {loss.item():.4f}")


@torch.no_grad()
def evaluate(model, images, labels):
    """The outputs (N, 10), the digits named (N,), and how many rightly, ()."""
    model.eval()
    outputs = model(images[:, None])
    model.train()
    predictions = torch.argmax(outputs, dim=1)
    return outputs, predictions, torch.sum(predictions == labels)


def main():
    """Trains an epoch, and prints its lines."""
    problem = VisionTransformer.from_flags()
    torch.set_default_dtype(getattr(torch, problem.dtype))
    torch.manual_seed(problem.seed)
    model, criterion, optimizer = build(problem)
    digits = problem.digits
    train_set = torch.tensor(digits.train_images), torch.tensor(digits.train_labels)
    loader = DataLoader(
        TensorDataset(*train_set),
        problem.batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(problem.seed),
    )
    train(model, criterion, optimizer, [loader] * problem.epochs)
    images, labels = torch.tensor(digits.test_images), torch.tensor(digits.test_labels)
    _, _, correct = evaluate(model, images, labels)
    print(f"Test Accuracy: {100 * correct.item() / len(labels):.2f} %")


if __name__ == "__main__":
    main()
