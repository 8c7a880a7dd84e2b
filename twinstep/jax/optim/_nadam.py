"""torch.optim.NAdam."""

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


class NAdamState(NamedTuple):
    """step: () int32, updates made; mu_product: (), of all mu so far; the rest like params."""

    step: jax.Array
    mu_product: jax.Array
    exp_avg: Any
    exp_avg_sq: Any


def nadam(
    lr: Scheduled = 2e-3,
    betas: tuple[Scheduled, Scheduled] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: Scheduled = 0.0,
    momentum_decay: float = 4e-3,
    decoupled_weight_decay: bool = False,
    *,
    foreach: bool | None = None,
    maximize: bool = False,
    capturable: bool = False,
    differentiable: bool = False,
) -> optax.GradientTransformation:
    """Adam that looks a step ahead, by mu_t = beta1 (1 - 0.96^(t momentum_decay) / 2).

    optax.nadam has a constant beta1 in mu's place. PyTorch keeps mu_product in its default dtype:
    under a default of float32 it rounds there even for float64 parameters.

    Args:
        lr: Learning rate, 0 or more: a float, or a schedule (function of the updates made so far).
        betas: Decays of the first and the second moment, each at least 0 and below 1: numbers or
            schedules.
        eps: Added to the corrected root, 0 or more.
        weight_decay: L2 penalty, 0 or more, or a schedule: weight_decay p is added to the gradient,
            and `update` then needs the parameters.
        momentum_decay: How fast mu rises from half of beta1 to beta1; 0 or more.
        decoupled_weight_decay: Whether weight decay passes the moments by, as in `adamw`.
        foreach, capturable, differentiable: How PyTorch computes; of no effect here.
        maximize: Whether to climb: every gradient's sign is turned.

    Returns:
        An `optax.GradientTransformation`; its state is `NAdamState`, whose fields are PyTorch's
        state names.

    Raises:
        InputError: For a value that PyTorch refuses.

    Example:
        The first update is a little more than Adam's, which is -lr times the gradient's sign.

        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import nadam
        >>> optimizer, params = nadam(lr=0.1), jnp.array([1.0, 1.0])
        >>> grads = jnp.array([3.0, -0.5])
        >>> updates, state = optimizer.update(grads, optimizer.init(params), params)
        >>> [round(u, 4) for u in updates.tolist()]
        [-0.1056, 0.1056]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.NAdam.html
    """
    check_arguments(
        "nadam",
        lr=at_least_0(lr),
        betas=fractions(betas),
        eps=at_least_0(eps),
        weight_decay=at_least_0(weight_decay),
        momentum_decay=at_least_0(momentum_decay),
    )

    def init(params: optax.Params) -> NAdamState:
        one = jnp.ones((), float)
        return NAdamState(jnp.zeros((), jnp.int32), one, zeros_like(params), zeros_like(params))

    def update(
        grads: optax.Updates, state: NAdamState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, NAdamState]:
        step = state.step + 1
        rate, decay = rate_at(lr, step), value_at(weight_decay, step)
        beta1, beta2 = (value_at(beta, step) for beta in betas)
        coupled, decoupled = (0.0, decay) if decoupled_weight_decay else (decay, 0.0)

        def mu_of(step: jax.Array) -> jax.Array:
            mu_t: jax.Array = beta1 * (1.0 - 0.5 * 0.96 ** (step.astype(float) * momentum_decay))
            return mu_t

        mu, mu_next = mu_of(step), mu_of(step + 1)
        mu_product = state.mu_product * mu
        of_grad = -rate * (1.0 - mu) / (1.0 - mu_product)
        of_mean = -rate * mu_next / (1.0 - mu_product * mu_next)
        correction = bias_correction(beta2, step)

        def rule(ops: Ops, g: Array, p: Array, m: Array, v: Array) -> Any:
            start = ops.decayed(p, rate, decoupled)
            g = ops.gradient(g, p, maximize, coupled)
            m = ops.lerp(m, g, 1 - beta1)
            v = ops.addcmul(ops.mul(v, beta2), g, g, 1 - beta2)
            denom = ops.add(ops.sqrt(ops.div(v, correction)), eps)
            changes = ops.number(of_grad) * (g / denom), ops.number(of_mean) * (m / denom)
            return ops.update(p, *changes, start=start), m, v

        kept = [state.exp_avg, state.exp_avg_sq]
        updates, *kept = per_parameter(
            rule, grads, params, *kept, needs_params=not is_zero(weight_decay)
        )
        return updates, NAdamState(step, mu_product, *kept)

    return optax.GradientTransformation(init, update)
