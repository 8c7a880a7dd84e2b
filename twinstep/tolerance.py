"""How much rounding may explain: every tolerance of twinstep, each with its reason.

Amounts are in eps, the machine epsilon of the run's dtype, times a scale that is measured on the
step itself. The same figures serve float64 and float32: rounding is the same in both, in eps.
"""

import numpy as np

# One step from the same state (teacher-forced). Over 300 steps of MLPs, batches of 32 and 512,
# SGD, momentum, Adam and AdamW, float64 and float32, honest steps of the two frameworks were at
# most 5.6 eps (loss), 18 eps of the mean absolute per-sample term (gradient), 42 eps (optimizer
# state) and 1.2 eps (parameters) apart; these are about three times as much.
LOSS_EPS = 16
GRADS_EPS = 64
OPT_STATE_EPS = 128
PARAMS_EPS = 4

# A free run may part as far as rounding carries this very run: JAX reruns it with every parameter
# nudged by up to one eps after each step. Honest runs stayed within 1.9 times the running maximum
# of three such reruns over 14 optimizers, tanh and relu, 300 steps.
NUDGED_RERUNS = 3
NOISE_FACTOR = 4
FREE_EPS = 4

# Two saved traces that bring no noise are judged by this plain bound: eps of the leaf's largest
# entry so far, times PLAIN_EPS + PLAIN_EPS_A_STEP * steps made. Typical training amplifies
# rounding to 25 eps at 100 steps and 50 at 300; chaotic runs need the measured noise.
PLAIN_EPS = 64
PLAIN_EPS_A_STEP = 4


def eps(dtype: str) -> float:
    """The distance from 1 to the next larger number of `dtype`."""
    return float(np.finfo(dtype).eps)


def floor(dtype: str) -> float:
    """What is allowed of any entry: XLA flushes numbers below this to 0 on a CPU, PyTorch not."""
    return float(np.finfo(dtype).tiny)
