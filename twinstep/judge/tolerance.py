"""How much rounding may explain: every tolerance of twinstep, each with its reason.

Amounts are in eps, the machine epsilon of the run's dtype, times a scale that is measured on the
step itself. The same figures serve float64 and float32: rounding is the same in both, in eps.
"""

import numpy as np

from twinstep.trace import dtypes
from twinstep.trace.ledger import Trace

# What one step may round, from the same state (teacher-forced), stands with its stage in
# `trace.stages`: 4 to 64 eps of
# loss: itself, and its first-order dependence on the parameters
# raw_grads: the largest mean absolute per-sample term, and how far rounding moves that
# evaluation: the largest output, and how far rounding moves that
# opt_state, params: the tensor's largest entry, before or after the update; or the update's own,
# which is larger where a parameter changes its sign: Adam's is itself off by three or four eps

# A size that is cheap to have bounds the true one from below. Where a difference is more than this
# part of what it allows, the true one is measured: for the verdict, and so that the figure reported
# is not that of a poor bound.
WELL_EXPLAINED = 0.5

# A free run may part as far as rounding carries this very run: JAX reruns it with every parameter
# perturbed by up to one eps after each step, and every gradient by up to GRADIENT_PERTURBATION eps
# of what it is made of, before Adam makes much of one that cancels. Honest runs stayed within 1.9
# times the running maximum of three such reruns, even without the gradients' part, over 14
# optimizers, tanh and relu, 300 steps. Honest gradients were up to 18 eps of that size apart, which
# is four times four and a little: with one eps an honest float32 run of mnist_rnn came to 0.8 of
# its allowance. To that comes what one step may round: rounding noise that is not yet there cannot
# be carried. Two of the reruns are perturbed alike at every step, by whole eps, one each way.
# Perturbations that change wander off by the root of the steps; but where gradients stay the same
# for many steps (a loss of absolute values) rounding errs by as much each time, and is as many
# times off after all of them. And where a sample crosses a kink a step sooner, one of the two has
# it cross so too. Without them honest float32 runs of linear_regression_l1 were drift.
PERTURBED_RERUNS = 3
ROUNDING_NOISE_FACTOR = 4
GRADIENT_PERTURBATION = 4


# A single step that evaluates the loss many times (LBFGS's, `Spec.uses_closure`) carries the
# rounding of each evaluation on to the next: 20 of them make hundreds of eps of one, more than the
# table allows. So the gate reruns such a step as often, from perturbed parameters and with every
# evaluation perturbed, and allows its state and parameters ROUNDING_NOISE_FACTOR times that beside:
# honest rows stayed below 0.4 of the sum. But a fault that makes a step chaotic must not explain
# itself: at most three quarters of the digits may go. In float64 honest steps lose a third, in
# float32 half. The same bounds what else is measured on the very numbers that it is to excuse.
def max_noise_share(dtype: str) -> float:
    """How far a measured loss of digits may excuse an entry, as a part of the largest one."""
    return eps(dtype) ** 0.25


def max_perturbation_share(judged: str, measures: str) -> float:
    """How far perturbed parameters may excuse a value, as a part of what it is made of.

    A program that measures itself is bounded as above. float32 is measured by a float64 program
    that is not the one in question: there a perturbation may take a sample across a kink (of ReLU,
    of an absolute value), and rounding does so too, which exchanges as much as there is.
    """
    return max_noise_share(judged) if judged == measures else 1.0


# A free run drifts from another by growing apart, from rounding on: each step makes a difference a
# few times larger. One that loses more than half of its digits in a single step (a difference grown
# by the root of 1 / eps), or leaves its allowance in the first, has met a fault that no step of the
# gate has.
def max_growth(dtype: str) -> float:
    """How many times further off a drifting run may be than it, or its allowance, was before."""
    return 1 / chaos_threshold(dtype)


# Where rounding alone has moved the loss of those reruns by more than half of its digits (the root
# of eps, of the largest loss so far), a chaotic training is about to become another run, which
# passes other peaks at other times. From there on only single steps are judged; the report says so.
def chaos_threshold(dtype: str) -> float:
    """The relative rounding noise of the loss from which on a free run is not judged."""
    return eps(dtype) ** 0.5


# Two saved traces that bring no rounding noise are judged by this plain bound: eps of the leaf's
# largest entry so far, times PLAIN_EPS + PLAIN_EPS_A_STEP * steps made. Typical training amplifies
# rounding to 25 eps at 100 steps and 50 at 300; chaotic runs need the measured rounding noise.
# In bfloat16 64 eps are half of the largest entry, and would excuse nearly anything: as above, at
# most three quarters of the digits may go (`max_noise_share`: .3 of the largest entry in bfloat16,
# .18 in float16), after which there is little left to be judged by.
PLAIN_EPS = 64
PLAIN_EPS_A_STEP = 4

# Each leaf is judged by the eps of its own dtype; the loss, which is made of all parameters, by the
# coarsest of theirs. A complex leaf is judged by modulus, not by part: a product of two complex
# numbers errs by an eps of its modulus, also in a part that nearly cancels.


def eps(dtype: str) -> float:
    """The distance from 1 to the next larger number of `dtype`; 0 for integers, which are exact."""
    return dtypes.precision(dtype).eps


def precision(trace: Trace, stage: str, array: np.ndarray) -> str:
    """The dtype by whose eps a leaf is judged."""
    if stage != "loss":
        return dtypes.name(array.dtype)
    kinds = [trace.metadata.dtype, *(dtypes.name(leaf.dtype) for leaf in trace.params.values())]
    return max(kinds, key=eps)


def floor(dtype: str) -> float:
    """What is allowed of any entry: 1e-292 in float64, 1e-31 in float32; nothing of integers.

    On a CPU XLA flushes numbers below `tiny` to 0, PyTorch does not. What was flushed may have gone
    into the entry, times other numbers: their product is taken to be up to 1 / eps. Met with
    weights that a strong decay had made 1e-307, where a gradient was 20 times `tiny` on one side.
    """
    found = dtypes.precision(dtype)
    return found.lost / found.eps if found.eps else 0.0


def plain_bound(sizes: np.ndarray, steps: np.ndarray, dtype: str) -> np.ndarray:
    """(T,) the allowance of a free run after so many steps, of entries of these sizes."""
    share = (PLAIN_EPS + PLAIN_EPS_A_STEP * steps) * eps(dtype)
    return np.minimum(share, max_noise_share(dtype)) * sizes + floor(dtype)
