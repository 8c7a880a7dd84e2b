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

    Args:
        lr: What delta is multiplied by, 0 or more: a float, or a schedule (function of the updates
            made so far).
        rho: Decay of both averages, from 0 to 1.
        eps: Added under both roots, 0 or more.
        weight_decay: L2 penalty, 0 or more: weight_decay p is added to the gradient, and `update`
            then needs the parameters.
        foreach, capturable, differentiable: How PyTorch computes; of no effect here.
        maximize: Whether to climb: every gradient's sign is turned.

    Returns:
        An `optax.GradientTransformation`; its state is `AdadeltaState`, whose fields are PyTorch's
        state names.

    Raises:
        InputError: For a value that PyTorch refuses.

    Example:
        The first update is about sqrt(eps / (1 - rho)), whatever the gradient's size.

        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import adadelta
        >>> optimizer, params = adadelta(lr=1.0), jnp.array([1.0, 1.0])
        >>> grads = jnp.array([3.0, -0.5])
        >>> updates, state = optimizer.update(grads, optimizer.init(params), params)
        >>> [round(u, 4) for u in updates.tolist()]
        [-0.0032, 0.0032]

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
