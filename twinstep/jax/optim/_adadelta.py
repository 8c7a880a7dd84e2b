"""torch.optim.Adadelta."""

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
    l2_regularized,
    over_leaves,
    rate_at,
    zeros_like,
)


class AdadeltaState(NamedTuple):
    """step: () int32, updates made; square_avg, acc_delta: like params, of g^2 and of delta^2."""

    step: jax.Array
    square_avg: Any
    acc_delta: Any


def adadelta(
    lr: Scheduled = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    *,
    foreach: bool | None = None,
    capturable: bool = False,
    maximize: bool = False,
    differentiable: bool = False,
) -> optax.GradientTransformation:
    """p - lr delta, delta = g sqrt(acc_delta + eps) / sqrt(square_avg + eps).

    optax.adadelta trains alike; its state has other names and no count.
    Raises InputError for a value that PyTorch refuses.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Adadelta.html
    """
    check_arguments(
        "adadelta",
        lr=at_least_0(lr),
        rho=(rho, "a number from 0 to 1", lambda v: 0.0 <= v <= 1.0),
        eps=at_least_0(eps),
        weight_decay=at_least_0(weight_decay),
    )

    def init(params: optax.Params) -> AdadeltaState:
        return AdadeltaState(jnp.zeros((), jnp.int32), zeros_like(params), zeros_like(params))

    def update(
        grads: optax.Updates, state: AdadeltaState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, AdadeltaState]:
        step = state.step + 1
        rate = rate_at(lr, step)
        grads = l2_regularized(descent(grads, maximize), params, weight_decay)

        def rule(g: jax.Array, square: jax.Array, acc: jax.Array) -> tuple[jax.Array, ...]:
            square = rho * square + (1 - rho) * (g * g)
            delta = jnp.sqrt(acc + eps) / jnp.sqrt(square + eps) * g
            acc = rho * acc + (1 - rho) * (delta * delta)
            return -cast(rate, g) * delta, square, acc

        updates, square_avg, acc_delta = over_leaves(rule, grads, state.square_avg, state.acc_delta)
        return updates, AdadeltaState(step, square_avg, acc_delta)

    return optax.GradientTransformation(init, update)
