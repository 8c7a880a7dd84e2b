"""torch.optim in optax's form: PyTorch's names, arguments and arithmetic.

Each optimizer gives an `optax.GradientTransformation` whose state's fields are PyTorch's state
names. Beside them: parameter groups and frozen parameters, gradient clipping and accumulation,
averaged parameters, and the way from and to PyTorch's own optimizers and their state.
"""

from jax_impl.optimizers.accumulate import accumulate
from jax_impl.optimizers.adadelta import adadelta
from jax_impl.optimizers.adafactor import adafactor
from jax_impl.optimizers.adagrad import adagrad
from jax_impl.optimizers.adam import adam, adamw
from jax_impl.optimizers.adamax import adamax
from jax_impl.optimizers.asgd import asgd
from jax_impl.optimizers.averaging import averaged, ema_avg, swa_avg, swa_lr, update_averaged
from jax_impl.optimizers.clipping import clip_grad_norm, clip_grad_value, total_norm
from jax_impl.optimizers.from_torch import from_torch, torch_options
from jax_impl.optimizers.groups import frozen, param_groups
from jax_impl.optimizers.lbfgs import lbfgs
from jax_impl.optimizers.muon import muon
from jax_impl.optimizers.nadam import nadam
from jax_impl.optimizers.radam import radam
from jax_impl.optimizers.rmsprop import rmsprop
from jax_impl.optimizers.rprop import rprop
from jax_impl.optimizers.sgd import sgd
from jax_impl.optimizers.sparse_adam import sparse_adam
from jax_impl.optimizers.state_dict import opt_state_from_torch, opt_state_to_torch
from jax_impl.optimizers.torch_layout import in_torch_layout

__all__ = [
    "accumulate",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "asgd",
    "averaged",
    "clip_grad_norm",
    "clip_grad_value",
    "ema_avg",
    "from_torch",
    "frozen",
    "in_torch_layout",
    "lbfgs",
    "muon",
    "nadam",
    "opt_state_from_torch",
    "opt_state_to_torch",
    "param_groups",
    "radam",
    "rmsprop",
    "rprop",
    "sgd",
    "sparse_adam",
    "swa_avg",
    "swa_lr",
    "torch_options",
    "total_norm",
    "update_averaged",
]
