"""How many steps are held at once: enough to make calls rare, few enough to bound memory."""

import numpy as np

from twinstep.problems.base import Spec

MOST_BYTES = 16 * 2**20
MOST_STEPS = 4096


def steps_at_once(spec: Spec) -> int:
    """Steps whose trace (gradients, two moments, parameters) takes at most MOST_BYTES."""
    entries = sum(array.size for array in spec.initial_params().values())
    bytes_a_step = 4 * entries * np.dtype(spec.dtype).itemsize
    return max(1, min(MOST_STEPS, MOST_BYTES // bytes_a_step))
