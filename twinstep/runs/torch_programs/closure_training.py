"""An optimizer of torch.optim whose step evaluates the loss itself: LBFGS, on a small network.

Mirror: twinstep/runs/jax_programs/closure_training.py
"""

from typing import Any

import torch
from torch import nn

from twinstep.problems.closures import ClosureTraining
from twinstep.problems.optimizers import WIDTHS
from twinstep.runs.torch_programs.optimizer_training import Network, loss_fn
from twinstep.torch.state import Batch, Criterion, Step, TrainState


def init(spec: ClosureTraining) -> TrainState:
    """The model with the spec's parameters, the criterion and the optimizer."""
    model = Network(*WIDTHS)
    params = spec.initial_params()
    mse = nn.MSELoss()
    criterion: Criterion = (lambda output, y: -mse(output, y)) if spec.maximize else mse
    optimizer = getattr(torch.optim, spec.optimizer)(model.parameters(), **spec.options)
    return TrainState.create(model, params, criterion, optimizer)


def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Step]:
    """Forward, loss, backward; an update that does so again, as often as it likes."""
    parameters = list(state.model.parameters())
    grads: list[torch.Tensor | None] = []

    def closure() -> Any:  # a tensor, where PyTorch's types say float
        state.optimizer.zero_grad()  # drops the last evaluation's gradients, writes over none
        loss = loss_fn(state.model, state.criterion, batch)
        loss.backward()
        if not grads:
            grads.extend(parameter.grad for parameter in parameters)
        return loss

    loss: Any = state.optimizer.step(closure)  # the first evaluation's
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad  # the first evaluation's too: a step's ledger is of one point
    return state, Step(loss)
