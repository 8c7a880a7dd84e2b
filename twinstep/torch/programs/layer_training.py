"""torch.nn's layers and losses, one trained with its inputs: the sets `layers` and `losses`.

Mirror: twinstep/jax/programs/layer_training.py
"""

from typing import Any

import torch
from torch import nn

from twinstep.problems.layers.training import LEARNING_RATE, LayerTraining


class Trained(nn.Module):
    """A layer, and as parameters those of its inputs that are trained."""

    def __init__(self, problem: LayerTraining) -> None:
        super().__init__()
        self.layer = problem.row.layer.made(nn)
        self.inputs = problem.row.inputs
        for i, given in enumerate(self.inputs):
            if given.trained:
                self.register_parameter(f"input{i}", nn.Parameter(torch.zeros(given.shape)))

    def forward(self, *data: torch.Tensor) -> Any:
        args, options = [], {}
        for i, (given, value) in enumerate(zip(self.inputs, data, strict=True)):
            value = value + getattr(self, f"input{i}") if given.trained else value
            if given.name:
                options[given.name] = value
            else:
                args.append(value)
        return self.layer(*args, **options)


def objective(output: Any) -> torch.Tensor:
    """A number that all outputs have a part in."""
    if not isinstance(output, torch.Tensor):
        return sum((objective(one) for one in output if one is not None), torch.zeros(()))
    if not output.is_floating_point():
        return torch.zeros(())
    if output.dim() == 0:
        return output
    flat = output.reshape(-1)
    weights = torch.arange(len(flat)) % 7 + 0.5
    return (flat * weights + flat.square()).mean()


def build(problem: LayerTraining) -> tuple[nn.Module, Any, torch.optim.Optimizer]:
    """The model, the loss and the optimizer."""
    model = Trained(problem)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9)
    return model, objective, optimizer


def train(model: nn.Module, criterion: Any, optimizer: Any, batches: Any, log: Any = print) -> None:
    """The loop. batches: what the layer is called with"""
    for batch in batches:
        optimizer.zero_grad()
        loss = criterion(model(*batch))
        loss.backward()
        optimizer.step()
