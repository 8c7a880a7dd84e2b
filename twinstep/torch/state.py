"""What a training carries from step to step, and what a step leaves.

Mirror: twinstep/jax/state.py
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import nn

from twinstep.torch.conversion import load_params

Batch = Mapping[str, torch.Tensor]
Criterion = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Step(NamedTuple):
    """loss: (), as the update found it; the gradients are in the parameters' `.grad`."""

    loss: torch.Tensor


@dataclass(frozen=True)
class TrainState:
    """The model, whose parameters hold their `.grad`, and the optimizer; a step changes both.

    keep_grads: whether gradients pile up in `.grad` from step to step
    """

    model: nn.Module
    criterion: Criterion
    optimizer: torch.optim.Optimizer
    keep_grads: bool

    @classmethod
    def create(
        cls,
        model: nn.Module,
        initial_params: Mapping[str, np.ndarray],
        criterion: Criterion,
        optimizer: torch.optim.Optimizer,
        *,
        keep_grads: bool = False,
    ) -> Self:
        """The state before the first step.

        model: its own initial values are overwritten
        initial_params: by PyTorch's names, in PyTorch's layout. InputError where they don't fit.
        optimizer: over the model's parameters
        """
        load_params(model, initial_params)
        return cls(model, criterion, optimizer, keep_grads)
