"""An RNN reads handwritten digits row by row (document 001, the comment below it).

Mirror: jax_impl/mnist_rnn.py
"""

import torch
from torch import nn

from twinstep.problems.mnist_rnn import MnistRnn
from twinstep.torch.layers import to_tensor
from twinstep.torch.state import Batch, Criterion, Step, TrainState


class RNN(nn.Module):
    """Reads an image row by row; the last output names the digit."""

    def __init__(self, input_size: int, hidden_size: int, num_classes: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.rnn = nn.RNN(input_size, hidden_size, batch_first=True)
        self.fc = nn.Linear(hidden_size, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h0 = torch.zeros(1, x.size(0), self.hidden_size, device=x.device)
        out, _ = self.rnn(x, h0)
        return self.fc(out[:, -1, :])


def init(spec: MnistRnn) -> TrainState:
    """The model with the spec's parameters, the criterion and the optimizer."""
    model = RNN(28, spec.hidden_size, 10)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(
        model.parameters(), lr=spec.learning_rate, betas=spec.betas, eps=spec.eps
    )
    return TrainState.create(model, spec.initial_params(), criterion, optimizer)


def loss_fn(model: nn.Module, criterion: Criterion, batch: Batch) -> torch.Tensor:
    """The loss of a batch, (). images: (N, 28, 28) bytes, labels: (N,)"""
    images = to_tensor(batch["images"]).reshape(-1, 28, 28)
    outputs = model(images)
    return criterion(outputs, batch["labels"])


def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Step]:
    """Forward, loss, backward, update."""
    loss = loss_fn(state.model, state.criterion, batch)
    state.optimizer.zero_grad()  # .grad accumulates: cleared before it is filled anew
    loss.backward()
    state.optimizer.step()  # changes the parameters in place
    return state, Step(loss)


@torch.no_grad()
def evaluate(
    state: TrainState, images: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The outputs (N, 10), the digits named (N,), and how many rightly, ().

    images: (N, 28, 28), labels: (N,)
    """
    outputs = state.model(to_tensor(images).reshape(-1, 28, 28))
    predictions = torch.argmax(outputs, dim=1)
    return outputs, predictions, torch.sum(predictions == labels)
