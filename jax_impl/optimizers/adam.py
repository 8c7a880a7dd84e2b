"""torch.optim.Adam."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

_LONGEST_TABLE = 2**16
_DECAYED = 37  # beta**t is e**-37 there, below half an eps of 1


class AdamState(NamedTuple):
    """step: () int32, updates made; exp_avg, exp_avg_sq: like params, the moments."""

    step: jax.Array
    exp_avg: Any
    exp_avg_sq: Any


def adam(
    lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
) -> optax.GradientTransformation:
    """p - lr m_hat / (sqrt(v_hat) + eps), rounded as PyTorch rounds it.

    optax.adam computes 1 - beta2**t in the run's dtype: in float32 that is up to 2e-5 off.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Adam.html
    """
    beta1, beta2 = betas

    def init(params: optax.Params) -> AdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdamState(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(
        grads: optax.Updates, state: AdamState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, AdamState]:
        step = state.step + 1
        exp_avg = jax.tree.map(lambda m, g: m + (1 - beta1) * (g - m), state.exp_avg, grads)
        exp_avg_sq = jax.tree.map(
            lambda v, g: beta2 * v + (1 - beta2) * (g * g), state.exp_avg_sq, grads
        )
        step_size = lr / bias_correction(beta1, step)
        root = jnp.sqrt(bias_correction(beta2, step))
        updates = jax.tree.map(
            lambda m, v: (
                -step_size.astype(m.dtype) * (m / (jnp.sqrt(v) / root.astype(v.dtype) + eps))
            ),
            exp_avg,
            exp_avg_sq,
        )
        return updates, AdamState(step, exp_avg, exp_avg_sq)

    return optax.GradientTransformation(init, update)


def bias_correction(beta: float, step: jax.Array) -> jax.Array:
    """1 - beta**step, (), as PyTorch has it: computed in float64 on the host, a table here.

    The subtraction magnifies an ulp of beta**step until that has decayed; an exponential takes over
    where the table ends, and keeps what error there is below an ulp in any dtype.
    """
    # a new array each time: JAX remembers one NumPy array's conversion, whatever x64 says since
    table = jnp.asarray(np.array(_corrections(beta), jnp.result_type(float)))
    log_beta = math.log(beta) if beta else -math.inf
    computed = -jnp.expm1(step.astype(table.dtype) * log_beta)
    return jnp.where(step <= len(table), table[jnp.minimum(step, len(table)) - 1], computed)


@functools.cache
def _corrections(beta: float) -> tuple[float, ...]:
    """1 - beta**t for t = 1, 2, ... until that is 1, or the table is long enough."""
    length = min(math.ceil(_DECAYED / (1 - beta)), _LONGEST_TABLE)
    return tuple(1 - beta ** float(t) for t in range(1, length + 1))
