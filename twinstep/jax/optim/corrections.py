"""Numbers that depend on the step alone, computed in float64 on the host, as PyTorch does.

In float32 1 - beta2**t loses up to 2e-5 of itself, in the run's own dtype; so the first values, in
which the subtraction magnifies an ulp of the power, are a table.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

_LONGEST_TABLE = 2**16
_DECAYED = 37  # beta**t is e**-37 there, below half an eps of 1


def bias_correction(beta: float | jax.Array, step: jax.Array) -> jax.Array:
    """1 - beta**step, (). beta: a number, or the value of a schedule in this step.

    An exponential takes over where the table ends, and keeps what error there is below an ulp.
    """
    if not isinstance(beta, (int, float)):
        return 1 - beta ** step.astype(float)
    # a new array each time: JAX remembers one NumPy array's conversion, whatever x64 says since
    table = jnp.asarray(np.array(_corrections(float(beta)), jnp.result_type(float)))
    log_beta = math.log(beta) if beta else -math.inf
    computed = -jnp.expm1(step.astype(table.dtype) * log_beta)
    return jnp.where(step <= len(table), table[jnp.minimum(step, len(table)) - 1], computed)


@functools.cache
def _corrections(beta: float) -> tuple[float, ...]:
    """1 - beta**t for t = 1, 2, ... until that is 1, or the table is long enough."""
    return tuple(1 - beta ** float(t) for t in range(1, table_length(beta) + 1))


def table_length(beta: float) -> int:
    """How many steps beta**step matters for, up to the longest table."""
    return min(math.ceil(_DECAYED / (1 - beta)), _LONGEST_TABLE)
