"""torch.optim.Adamax."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from twinstep.jax.optim.base import (
    Scheduled,
    at_least_0,
    cast,
    check_arguments,
    descent,
    fractions,
    l2_regularized,
    lerp,
    over_leaves,
    rate_at,
    value_at,
    zeros_like,
)
from twinstep.jax.optim.corrections import bias_correction


class AdamaxState(NamedTuple):
    """step: () int32, updates made; exp_avg, exp_inf: like params, first moment, infinity norm."""

    step: jax.Array
    exp_avg: Any
    exp_inf: Any


def adamax(
    lr: Scheduled = 2e-3,
    betas: tuple[Scheduled, Scheduled] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    *,
    foreach: bool | None = None,
    maximize: bool = False,
    differentiable: bool = False,
    capturable: bool = False,
) -> optax.GradientTransformation:
    """p - lr m_hat / u, u the largest |g| + eps, of which older ones count less by beta2 a step.

    optax.adamax trains alike; its state has other names.

    Args:
        lr: Learning rate, 0 or more: a float, or a schedule (function of the updates made so far).
        betas: Decays of the first moment and of u, each at least 0 and below 1: numbers or
            schedules.
        eps: Added to each |g|, 0 or more.
        weight_decay: L2 penalty, 0 or more: weight_decay p is added to the gradient, and `update`
            then needs the parameters.
        foreach, differentiable, capturable: How PyTorch computes; of no effect here.
        maximize: Whether to climb: every gradient's sign is turned.

    Returns:
        An `optax.GradientTransformation`; its state is `AdamaxState`, whose fields are PyTorch's
        state names.

    Raises:
        InputError: For a value that PyTorch refuses.

    Example:
        A large gradient is remembered: u falls by beta2 alone.

        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import adamax
        >>> optimizer, params = adamax(lr=0.1), jnp.array(1.0)
        >>> state = optimizer.init(params)
        >>> for grad in (3.0, 0.5):
        ...     updates, state = optimizer.update(jnp.array(grad), state, params)
        ...     print(round(float(updates), 4), round(float(state.exp_inf), 4))
        -0.1 3.0
        -0.0562 2.997

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Adamax.html
    """
    check_arguments(
        "adamax",
        lr=at_least_0(lr),
        betas=fractions(betas),
        eps=at_least_0(eps),
        weight_decay=at_least_0(weight_decay),
    )

    def init(params: optax.Params) -> AdamaxState:
        return AdamaxState(jnp.zeros((), jnp.int32), zeros_like(params), zeros_like(params))

    def update(
        grads: optax.Updates, state: AdamaxState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, AdamaxState]:
        step = state.step + 1
        beta1, beta2 = (value_at(beta, step) for beta in betas)
        step_size = rate_at(lr, step) / bias_correction(beta1, step)
        grads = l2_regularized(descent(grads, maximize), params, weight_decay)

        def rule(g: jax.Array, m: jax.Array, u: jax.Array) -> tuple[jax.Array, ...]:
            m = lerp(m, g, cast(1 - beta1, g))
            u = jnp.maximum(cast(beta2, g) * u, jnp.abs(g) + eps)
            return -cast(step_size, g) * (m / u), m, u

        updates, exp_avg, exp_inf = over_leaves(rule, grads, state.exp_avg, state.exp_inf)
        return updates, AdamaxState(step, exp_avg, exp_inf)

    return optax.GradientTransformation(init, update)
