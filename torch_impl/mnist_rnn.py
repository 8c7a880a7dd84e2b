"""An RNN reads handwritten digits row by row (document 001, the comment below it).

Mirror: jax_impl/mnist_rnn.py
"""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from twinstep.problems.mnist_rnn import MnistRnn


class RNN(nn.Module):
    """Reads an image row by row; the last output names the digit."""

    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.rnn = nn.RNN(input_size, hidden_size, batch_first=True)
        self.fc = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        h0 = torch.zeros(1, x.size(0), self.hidden_size, device=x.device)
        out, _ = self.rnn(x, h0)
        return self.fc(out[:, -1, :])


def build(problem: MnistRnn):
    """The model, the loss and the optimizer."""
    model = RNN(28, problem.hidden_size, 10)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(
        model.parameters(), lr=problem.learning_rate, betas=problem.betas, eps=problem.eps
    )
    return model, criterion, optimizer


def train(model, criterion, optimizer, batches, log=print):
    """The loop. batches: of each epoch what gives images (N, 28, 28), bytes, and labels (N,)"""
    for epoch, loader in enumerate(batches):
        for i, (images, labels) in enumerate(loader):
            images = images.reshape(-1, 28, 28) / 255  # torchvision's ToTensor
            outputs = model(images)
            loss = criterion(outputs, labels)
            optimizer.zero_grad()  # .grad accumulates: cleared before it is filled anew
            loss.backward()
            optimizer.step()  # changes the parameters in place
            if (i + 1) % min(100, len(loader)) == 0:
                where = f"Epoch [{epoch + 1}/{len(batches)}], Step [{i + 1}/{len(loader)}]"
                log(f"{where}, Loss: {loss.item():.4f}")


@torch.no_grad()
def evaluate(model, images, labels):
    """The outputs (N, 10), the digits named (N,), and how many rightly, ()."""
    outputs = model(images.reshape(-1, 28, 28) / 255)
    predictions = torch.argmax(outputs, dim=1)
    return outputs, predictions, torch.sum(predictions == labels)


def main():
    """Trains as the document does, and prints its lines."""
    problem = MnistRnn.from_flags()
    torch.set_default_dtype(getattr(torch, problem.dtype))
    torch.manual_seed(problem.seed)
    digits = problem.images
    train_set = torch.tensor(digits.train_images), torch.tensor(digits.train_labels)
    images, labels = torch.tensor(digits.test_images), torch.tensor(digits.test_labels)
    loader = DataLoader(TensorDataset(*train_set), problem.batch_size, shuffle=True)
    model, criterion, optimizer = build(problem)
    train(model, criterion, optimizer, [loader] * problem.epochs)
    _, _, correct = evaluate(model, images, labels)
    accuracy = 100 * correct.item() / len(labels)
    print(f"Test Accuracy of the model on the {len(labels)} test images: {accuracy} %")


if __name__ == "__main__":
    main()
