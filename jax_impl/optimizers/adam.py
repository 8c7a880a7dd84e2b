"""torch.optim.Adam."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

_LONGEST_TABLE = 2**16


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

    return optax.GradientTransformation(init, update)  # type: ignore[arg-type]


def bias_correction(beta: float, step: jax.Array) -> jax.Array:
    """1 - beta**step, (), as PyTorch has it: computed in float64 on the host, a table here.

    The subtraction magnifies an ulp of beta**step until that has decayed; from there on, an ulp is
    an ulp, and the device computes it.
    """
    decayed = min(math.ceil(1 / (1 - beta)), _LONGEST_TABLE)
    table = jnp.asarray([1 - beta ** float(t) for t in range(1, decayed + 1)])
    computed = 1 - beta ** step.astype(table.dtype)
    return jnp.where(step <= decayed, table[jnp.minimum(step, decayed) - 1], computed)
