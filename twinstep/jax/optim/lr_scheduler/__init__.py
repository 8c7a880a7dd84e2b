"""torch.optim.lr_scheduler as optax schedules: PyTorch's names, arguments and numbers.

Each is called with the learning rate in the optimizer's place, `step_lr(0.1, step_size=30)`, and
gives a `Schedule`: a function of the updates made so far, to be an optimizer's `lr`.
"""

from twinstep.jax.optim.lr_scheduler.base import Schedule
from twinstep.jax.optim.lr_scheduler.clocks import own_clock
from twinstep.jax.optim.lr_scheduler.combined import chained_scheduler, sequential_lr
from twinstep.jax.optim.lr_scheduler.cyclic import (
    cosine_annealing_lr,
    cosine_annealing_warm_restarts,
    cyclic_lr,
)
from twinstep.jax.optim.lr_scheduler.multiplicative import (
    constant_lr,
    exponential_lr,
    lambda_lr,
    multi_step_lr,
    multiplicative_lr,
    step_lr,
)
from twinstep.jax.optim.lr_scheduler.one_cycle import one_cycle_lr
from twinstep.jax.optim.lr_scheduler.plateau import Plateau, PlateauState, reduce_lr_on_plateau
from twinstep.jax.optim.lr_scheduler.polynomial import linear_lr, polynomial_lr

__all__ = [
    "Plateau",
    "PlateauState",
    "Schedule",
    "chained_scheduler",
    "constant_lr",
    "cosine_annealing_lr",
    "cosine_annealing_warm_restarts",
    "cyclic_lr",
    "exponential_lr",
    "lambda_lr",
    "linear_lr",
    "multi_step_lr",
    "multiplicative_lr",
    "one_cycle_lr",
    "own_clock",
    "polynomial_lr",
    "reduce_lr_on_plateau",
    "sequential_lr",
    "step_lr",
]
