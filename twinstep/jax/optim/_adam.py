"""torch.optim.Adam and AdamW."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from twinstep.errors import InputError
from twinstep.jax.optim import base
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


class AdamState(NamedTuple):
    """step: () int32, updates made; exp_avg, exp_avg_sq: like params, the moments.

    max_exp_avg_sq: like params with amsgrad, else None
    """

    step: jax.Array
    exp_avg: Any
    exp_avg_sq: Any
    max_exp_avg_sq: Any = None


def adam(
    lr: Scheduled = 1e-3,
    betas: tuple[Scheduled, Scheduled] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
    *,
    foreach: bool | None = None,
    maximize: bool = False,
    capturable: bool = False,
    differentiable: bool = False,
    fused: bool | None = None,
    decoupled_weight_decay: bool = False,
) -> optax.GradientTransformation:
    """p - lr m_hat / (sqrt(v_hat) + eps), rounded as PyTorch rounds it.

    optax.adam computes 1 - beta2**t in the run's dtype: in float32 that is up to 2e-5 off.
    optax.amsgrad keeps the largest v_hat; PyTorch keeps the largest v and corrects that.
    Raises InputError for a value that PyTorch refuses.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Adam.html
    """
    name = "adamw" if decoupled_weight_decay else "adam"
    check_arguments(
        name,
        lr=at_least_0(lr),
        betas=fractions(betas),
        eps=at_least_0(eps),
        weight_decay=at_least_0(weight_decay),
    )
    if not all(callable(beta) or isinstance(beta, float) for beta in betas):
        raise InputError(f"{name}: betas is {betas!r}, expected two floats, and 0 as 0.0")

    def init(params: optax.Params) -> AdamState:
        largest = zeros_like(params) if amsgrad else None
        return AdamState(jnp.zeros((), jnp.int32), zeros_like(params), zeros_like(params), largest)

    def update(
        grads: optax.Updates, state: AdamState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, AdamState]:
        step = state.step + 1
        rate = rate_at(lr, step)
        beta1, beta2 = (value_at(beta, step) for beta in betas)
        step_size = rate / bias_correction(beta1, step)
        root = jnp.sqrt(bias_correction(beta2, step))
        grads = descent(grads, maximize)
        if not decoupled_weight_decay:
            grads = l2_regularized(grads, params, weight_decay)

        def rule(g: jax.Array, m: jax.Array, v: jax.Array, *rest: jax.Array) -> tuple[Any, ...]:
            b2 = cast(beta2, g)
            m = lerp(m, g, cast(1 - beta1, g))
            v = b2 * v + (1 - b2) * (g * g)
            largest = [jnp.maximum(rest[0], v)] if amsgrad else []
            denom = jnp.sqrt(largest[0] if amsgrad else v) / cast(root, g) + eps
            return -cast(step_size, g) * (m / denom), m, v, *largest

        moments = [state.exp_avg, state.exp_avg_sq] + [state.max_exp_avg_sq] * amsgrad
        updates, *moments = over_leaves(rule, grads, *moments)
        if decoupled_weight_decay:
            updates = base.decoupled_weight_decay(updates, params, rate, weight_decay)
        return updates, AdamState(step, *moments)

    return optax.GradientTransformation(init, update)


def adamw(
    lr: Scheduled = 1e-3,
    betas: tuple[Scheduled, Scheduled] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
    foreach: bool | None = None,
    capturable: bool = False,
    differentiable: bool = False,
    fused: bool | None = None,
) -> optax.GradientTransformation:
    """Adam whose weight decay, lr weight_decay p, passes the moments by.

    Raises InputError for a value that PyTorch refuses.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.AdamW.html
    """
    return adam(
        lr, betas, eps, weight_decay, amsgrad, maximize=maximize, decoupled_weight_decay=True
    )
