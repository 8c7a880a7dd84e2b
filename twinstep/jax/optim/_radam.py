"""torch.optim.RAdam."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from twinstep.jax.optim._adam import AdamState
from twinstep.jax.optim.base import (
    Scheduled,
    at_least_0,
    check_arguments,
    fractions,
    is_zero,
    rate_at,
    value_at,
    zeros_like,
)
from twinstep.jax.optim.corrections import bias_correction, table_length
from twinstep.jax.optim.ops import Array, Ops, per_parameter


def radam(
    lr: Scheduled = 1e-3,
    betas: tuple[Scheduled, Scheduled] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: Scheduled = 0.0,
    decoupled_weight_decay: bool = False,
    *,
    foreach: bool | None = None,
    maximize: bool = False,
    capturable: bool = False,
    differentiable: bool = False,
) -> optax.GradientTransformation:
    """Adam whose second moment counts once enough steps have told of it, and by how much.

    optax.radam adds eps to the corrected root; PyTorch adds it to sqrt(v) before the correction.

    Args:
        lr: Learning rate, 0 or more: a float, or a schedule (function of the updates made so far).
        betas: Decays of the first and the second moment, each at least 0 and below 1: numbers or
            schedules.
        eps: Added to the root before its correction, 0 or more.
        weight_decay: L2 penalty, 0 or more, or a schedule: weight_decay p is added to the gradient,
            and `update` then needs the parameters.
        decoupled_weight_decay: Whether weight decay passes the moments by, as in `adamw`.
        foreach, capturable, differentiable: How PyTorch computes; of no effect here.
        maximize: Whether to climb: every gradient's sign is turned.

    Returns:
        An `optax.GradientTransformation`; its state is `AdamState`, whose fields are PyTorch's
        state names.

    Raises:
        InputError: For a value that PyTorch refuses.

    Example:
        The first 5 updates use no second moment: they are as large as the gradients make them.

        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import radam
        >>> optimizer, params = radam(lr=0.1), jnp.array(1.0)
        >>> state, seen = optimizer.init(params), []
        >>> for _ in range(6):
        ...     updates, state = optimizer.update(jnp.array(3.0), state, params)
        ...     seen.append(round(float(updates), 4))
        >>> seen
        [-0.3, -0.3, -0.3, -0.3, -0.3, -0.0026]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.RAdam.html
    """
    check_arguments(
        "radam",
        lr=at_least_0(lr),
        betas=fractions(betas),
        eps=at_least_0(eps),
        weight_decay=at_least_0(weight_decay),
    )

    def init(params: optax.Params) -> AdamState:
        return AdamState(jnp.zeros((), jnp.int32), zeros_like(params), zeros_like(params))

    def update(
        grads: optax.Updates, state: AdamState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, AdamState]:
        step = state.step + 1
        rate, decay = rate_at(lr, step), value_at(weight_decay, step)
        beta1, beta2 = (value_at(beta, step) for beta in betas)
        correction1 = bias_correction(beta1, step)
        root = jnp.sqrt(bias_correction(beta2, step))
        trust = rectification(beta2, step)
        coupled, decoupled = (0.0, decay) if decoupled_weight_decay else (decay, 0.0)

        def rule(ops: Ops, g: Array, p: Array, m: Array, v: Array) -> Any:
            start = ops.decayed(p, rate, decoupled)
            g = ops.gradient(g, p, maximize, coupled)
            m = ops.lerp(m, g, 1 - beta1)
            v = ops.addcmul(ops.mul(v, beta2), g, g, 1 - beta2)
            plain = ops.mul(ops.div(m, correction1), rate)
            ratio = ops.mul(ops.rounded(1 / ops.add(ops.sqrt(v), eps)), root)
            adapted = ops.mul(ops.mul(plain, ratio), trust)
            return ops.update(p, -jnp.where(trust > 0, adapted, plain), start=start), m, v

        kept = [state.exp_avg, state.exp_avg_sq]
        updates, *kept = per_parameter(
            rule, grads, params, *kept, needs_params=not is_zero(weight_decay)
        )
        return updates, AdamState(step, *kept)

    return optax.GradientTransformation(init, update)


def rectification(beta2: float | jax.Array, step: jax.Array) -> jax.Array:
    """r_t, (): how far the second moment is to be trusted; 0 while it is not at all.

    A table made in float64: in float32 rho_t cancels, and the second moment would count from the
    wrong step on. The last value is the limit. What a schedule gives for beta2 has no table.
    """
    if not isinstance(beta2, (int, float)):
        beta2 = jnp.asarray(beta2, float)
        squared, rho = _rectified(beta2, step.astype(float), bias_correction(beta2, step))
        return jnp.where(rho > 5, jnp.sqrt(jnp.where(rho > 5, squared, 1.0)), 0.0)
    table = jnp.asarray(np.array(_rectifications(beta2), jnp.result_type(float)))
    return table[jnp.minimum(step, len(table)) - 1]


@functools.cache
def _rectifications(beta2: float) -> tuple[float, ...]:
    found = []
    for t in range(1, table_length(beta2) + 1):
        squared, rho = _rectified(beta2, t, 1 - beta2**t)
        found.append(squared**0.5 if rho > 5 else 0.0)
    return tuple(found)


def _rectified(beta2: Any, t: Any, correction: Any) -> tuple[Any, Any]:
    """r_t squared; and rho_t, above 5 where that means something."""
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * t * beta2**t / correction
    return (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho), rho
