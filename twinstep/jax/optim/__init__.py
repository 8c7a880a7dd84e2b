"""torch.optim in optax's form: PyTorch's names, arguments and arithmetic.

Each optimizer gives an `optax.GradientTransformation` whose state's fields are PyTorch's state
names. Beside them: parameter groups and frozen parameters, gradient clipping and accumulation,
averaged parameters, and the way from and to PyTorch's own optimizers and their state. Schedules are
in `lr_scheduler`.

Parameters are of any float dtype, and complex where PyTorch's optimizer takes them (`conj_grads`
turns JAX's gradients). In bfloat16 and float16 each operation rounds as PyTorch's, `update` needs
the parameters, and updates are float32: `optax.apply_updates` gives the parameters' dtype, and
`optax.apply_if_finite`, whose two ways out have to be alike, wants gradients in float32. What
belongs together is paired by the keys of its leaves. Each number may be an array, traced or not, as
`optax.inject_hyperparams` makes them: in the parameters' dtype, so that narrow ones want its
`hyperparam_dtype=jnp.float32`.
"""

from twinstep.jax.optim import lr_scheduler
from twinstep.jax.optim._accumulate import accumulate, zero_grad
from twinstep.jax.optim._adadelta import adadelta
from twinstep.jax.optim._adafactor import adafactor
from twinstep.jax.optim._adagrad import adagrad
from twinstep.jax.optim._adam import adam, adamw
from twinstep.jax.optim._adamax import adamax
from twinstep.jax.optim._asgd import asgd
from twinstep.jax.optim._conj_grads import conj_grads
from twinstep.jax.optim._from_torch import from_torch, torch_options
from twinstep.jax.optim._lbfgs import lbfgs
from twinstep.jax.optim._muon import muon
from twinstep.jax.optim._nadam import nadam
from twinstep.jax.optim._radam import radam
from twinstep.jax.optim._rmsprop import rmsprop
from twinstep.jax.optim._rprop import rprop
from twinstep.jax.optim._sgd import sgd
from twinstep.jax.optim._sparse_adam import sparse_adam
from twinstep.jax.optim.averaging import (
    averaged,
    ema_avg,
    ema_multi_avg,
    swa_avg,
    swa_lr,
    swa_multi_avg,
    update_averaged,
)
from twinstep.jax.optim.clipping import clip_grad_norm, clip_grad_value, total_norm
from twinstep.jax.optim.groups import frozen, param_groups
from twinstep.jax.optim.state_dict import opt_state_from_torch, opt_state_to_torch
from twinstep.jax.optim.torch_layout import in_torch_layout

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
    "conj_grads",
    "ema_avg",
    "ema_multi_avg",
    "from_torch",
    "frozen",
    "in_torch_layout",
    "lbfgs",
    "lr_scheduler",
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
    "swa_multi_avg",
    "torch_options",
    "total_norm",
    "update_averaged",
    "zero_grad",
]
