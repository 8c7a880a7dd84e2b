"""A residual network for small images, its batch norms with running statistics.

Mirror: jax_impl/resnet18.py
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from twinstep.problems.nets.resnet18 import ResNet18


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
        x = torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)
        return self.fc(x)


def build(problem: ResNet18):
    """The model, the loss and the optimizer."""
    model = ResNet(problem.width)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=problem.learning_rate,
        momentum=problem.momentum,
        weight_decay=problem.weight_decay,
    )
    return model, criterion, optimizer


def train(model, criterion, optimizer, batches, log=print):
    """The loop. batches: of each epoch what gives images (N, 3, H, W) and labels (N,)"""
    model.train()
    for loader in batches:
        for i, (images, labels) in enumerate(loader):
            optimizer.zero_grad()
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
            if (i + 1) % 10 == 0:
                log(f"Step [{i + 1}/{len(loader)}], Loss: {loss.item():.4f}")


@torch.no_grad()
def evaluate(model, images, labels):
    """The outputs (N, 10), the digits named (N,), and how many rightly, ()."""
    model.eval()
    outputs = model(images)
    model.train()
    predictions = torch.argmax(outputs, dim=1)
    return outputs, predictions, torch.sum(predictions == labels)


def main():
    """Trains an epoch, and prints its lines."""
    problem = ResNet18.from_flags()
    torch.set_default_dtype(getattr(torch, problem.dtype))
    torch.manual_seed(problem.seed)
    model, criterion, optimizer = build(problem)
    samples = problem.samples()
    loader = DataLoader(
        TensorDataset(torch.tensor(samples["images"]), torch.tensor(samples["labels"])),
        problem.batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(problem.seed),
    )
    train(model, criterion, optimizer, [loader] * problem.epochs)
    images, labels = map(torch.tensor, problem.test_set())
    _, _, correct = evaluate(model, images, labels)
    print(f"Test Accuracy: {100 * correct.item() / len(labels):.2f} %")


if __name__ == "__main__":
    main()
