"""An optimizer of torch.optim whose step evaluates the loss itself: LBFGS, on a small network.

Mirror: twinstep/runs/torch_programs/closure_training.py
"""

import jax
import optax
from flax import nnx

from twinstep.jax.layout import module_layout
from twinstep.jax.nn.functional import mse_loss
from twinstep.jax.optim import from_torch, in_torch_layout
from twinstep.jax.state import Batch, Criterion, Step, TrainState, Tree
from twinstep.problems.closures import ClosureTraining
from twinstep.problems.optimizers import WIDTHS
from twinstep.runs.jax_programs.optimizer_training import Network, loss_fn


def init(spec: ClosureTraining) -> TrainState:
    """The model with the spec's parameters, the criterion and the optimizer."""
    model = Network(*WIDTHS)
    params = spec.initial_params()
    mse = mse_loss
    criterion: Criterion = (lambda output, y: -mse(output, y)) if spec.maximize else mse
    optimizer = in_torch_layout(  # in PyTorch's order: all parameters are one vector to it
        from_torch(spec.optimizer, **spec.options), module_layout(model), names=list(params)
    )
    return TrainState.create(model, params, criterion, optimizer)


def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Step]:
    """Forward, loss, backward; an update that does so again, as often as it likes."""

    def loss_of(params: Tree) -> jax.Array:
        return loss_fn(nnx.merge(state.graph, params), state.criterion, batch)

    closure = jax.value_and_grad(loss_of)
    loss, grads = closure(state.params)  # PyTorch's step makes this evaluation itself
    updates, opt_state = state.optimizer.update(
        grads, state.opt_state, state.params, value=loss, value_and_grad_fn=closure
    )
    params = optax.apply_updates(state.params, updates)
    return state.replace(params=params, opt_state=opt_state), Step(loss, grads)
