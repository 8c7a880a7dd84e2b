"""torch.optim.Adamax."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

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
from twinstep.jax.optim.corrections import bias_correction
from twinstep.jax.optim.ops import Array, Ops, per_parameter


class AdamaxState(NamedTuple):
    """step: () int32, updates made; exp_avg, exp_inf: like params, first moment, infinity norm."""

    step: jax.Array
    exp_avg: Any
    exp_inf: Any


def adamax(
    lr: Scheduled = 2e-3,
    betas: tuple[Scheduled, Scheduled] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: Scheduled = 0.0,
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
        weight_decay: L2 penalty, 0 or more, or a schedule: weight_decay p is added to the gradient,
            and `update` then needs the parameters.
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
        rate, decay = rate_at(lr, step), value_at(weight_decay, step)
        beta1, beta2 = (value_at(beta, step) for beta in betas)
        step_size = rate / bias_correction(beta1, step)

        def rule(ops: Ops, g: Array, p: Array, m: Array, u: Array) -> Any:
            g = ops.gradient(g, p, maximize, decay)
            m = ops.lerp(m, g, 1 - beta1)
            u = jnp.maximum(ops.mul(u, beta2), ops.add(jnp.abs(g), eps))
            return ops.update(p, -ops.number(step_size) * (m / u)), m, u

        kept = [state.exp_avg, state.exp_inf]
        updates, *kept = per_parameter(
            rule, grads, params, *kept, needs_params=not is_zero(weight_decay)
        )
        return updates, AdamaxState(step, *kept)

    return optax.GradientTransformation(init, update)
