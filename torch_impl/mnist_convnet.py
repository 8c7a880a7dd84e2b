"""A convolutional network for handwritten digits, with dropout.

Mirror: jax_impl/mnist_convnet.py
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from twinstep.problems.nets.mnist_convnet import MnistConvnet


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
        x = torch.flatten(x, 1)
        x = self.dropout2(F.relu(self.fc1(x)))
        return F.log_softmax(self.fc2(x), dim=1)


def build(problem: MnistConvnet):
    """The model, the loss and the optimizer."""
    model = Net(problem.channels, problem.features, problem.hidden_size)
    criterion = F.nll_loss
    optimizer = torch.optim.Adadelta(model.parameters(), lr=problem.learning_rate)
    return model, criterion, optimizer


def train(model, criterion, optimizer, batches, log=print):
    """The loop. batches: of each epoch what gives images (N, 28, 28), bytes, and labels (N,)"""
    model.train()
    for loader in batches:
        for i, (images, labels) in enumerate(loader):
            output = model(images[:, None] / 255)
            loss = criterion(output, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if (i + 1) % 10 == 0:
                log(f"Step [{i + 1}/{len(loader)}], Loss: {loss.item():.4f}")


@torch.no_grad()
def evaluate(model, images, labels):
    """The outputs (N, 10), the digits named (N,), and how many rightly, ()."""
    model.eval()
    outputs = model(images[:, None] / 255)
    model.train()
    predictions = torch.argmax(outputs, dim=1)
    return outputs, predictions, torch.sum(predictions == labels)


def main():
    """Trains an epoch, and prints its lines."""
    problem = MnistConvnet.from_flags()
    torch.set_default_dtype(getattr(torch, problem.dtype))
    torch.manual_seed(problem.seed)
    model, criterion, optimizer = build(problem)
    digits = problem.images
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
