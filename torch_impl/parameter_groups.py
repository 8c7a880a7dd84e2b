"""One Adam over two networks, or over one of them (document 001, section 2).

Mirror: jax_impl/parameter_groups.py
"""

import torch
from torch import nn

from twinstep.problems.groups import ParameterGroups
from twinstep.torch.state import Batch, Criterion, Step, TrainState


class Networks(nn.Module):
    """A GRU reads the sequence; the model reads the GRU's last output."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(16, 1)
        self.gru = nn.GRU(10, 16, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h0 = torch.zeros(1, x.size(0), 16, device=x.device)
        out, _ = self.gru(x, h0)
        return self.model(out[:, -1, :])


def init(spec: ParameterGroups) -> TrainState:
    """The model with the spec's parameters, the criterion and the optimizer."""
    model = Networks()
    criterion = nn.MSELoss()
    groups = [{"params": model.model.parameters()}]
    if spec.update_gru:
        groups.append({"params": model.gru.parameters()})
    optimizer = torch.optim.Adam(groups, lr=spec.learning_rate, betas=spec.betas, eps=spec.eps)
    return TrainState.create(
        model, spec.initial_params(), criterion, optimizer, keep_grads=not spec.update_gru
    )


def loss_fn(model: nn.Module, criterion: Criterion, batch: Batch) -> torch.Tensor:
    """The loss of a batch, (). x: (5, 7, 10), y: (5, 1)"""
    output = model(batch["x"])
    return criterion(output, batch["y"])


def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Step]:
    """Forward, loss, backward, update."""
    loss = loss_fn(state.model, state.criterion, batch)
    state.optimizer.zero_grad()  # clears what the optimizer is given: another network's .grad grows
    loss.backward()
    state.optimizer.step()  # changes the parameters in place
    return state, Step(loss)
