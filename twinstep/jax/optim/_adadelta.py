"""torch.optim.Adadelta."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from twinstep.jax.optim.base import (
    Scheduled,
    at_least_0,
    check_arguments,
    is_zero,
    rate_at,
    value_at,
    zeros_like,
)
from twinstep.jax.optim.ops import Array, Ops, per_parameter


class AdadeltaState(NamedTuple):
    """step: () int32, updates made; square_avg, acc_delta: like params, of g^2 and of delta^2."""

    step: jax.Array
    square_avg: Any
    acc_delta: Any


def adadelta(
    lr: Scheduled = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: Scheduled = 0.0,
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
        weight_decay: L2 penalty, 0 or more, or a schedule: weight_decay p is added to the gradient,
            and `update` then needs the parameters.
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
        rate, decay = rate_at(lr, step), value_at(weight_decay, step)

        def rule(ops: Ops, g: Array, p: Array, square: Array, acc: Array) -> Any:
            g = ops.gradient(g, p, maximize, decay)
            square = ops.addcmul(ops.mul(square, rho), g, g, 1 - rho)
            ratio = ops.div(ops.sqrt(ops.add(acc, eps)), ops.sqrt(ops.add(square, eps)))
            delta = ops.mul(ratio, g)
            acc = ops.addcmul(ops.mul(acc, rho), delta, delta, 1 - rho)
            return ops.update(p, ops.scaled(delta, -rate)), square, acc

        kept = [state.square_avg, state.acc_delta]
        updates, *kept = per_parameter(
            rule, grads, params, *kept, needs_params=not is_zero(weight_decay)
        )
        return updates, AdadeltaState(step, *kept)

    return optax.GradientTransformation(init, update)
