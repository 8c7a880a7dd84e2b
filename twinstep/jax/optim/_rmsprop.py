"""torch.optim.RMSprop."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from twinstep.jax.optim.base import (
    Scheduled,
    at_least_0,
    check_arguments,
    is_known,
    is_zero,
    rate_at,
    value_at,
    zeros_like,
)
from twinstep.jax.optim.ops import Array, Ops, per_parameter


class RMSpropState(NamedTuple):
    """step: () int32, updates made; the rest like params, None where the options need none.

    square_avg: of g^2; momentum_buffer: of the updates; grad_avg: of g, where centered
    """

    step: jax.Array
    square_avg: Any
    momentum_buffer: Any = None
    grad_avg: Any = None


def rmsprop(
    lr: Scheduled = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: Scheduled = 0.0,
    momentum: Scheduled = 0.0,
    centered: bool = False,
    *,
    capturable: bool = False,
    foreach: bool | None = None,
    maximize: bool = False,
    differentiable: bool = False,
) -> optax.GradientTransformation:
    """p - lr g / (sqrt(square_avg) + eps), through a momentum buffer where there is momentum.

    optax.rmsprop adds eps under the root, unless it is told otherwise, and multiplies by lr before
    the momentum, which another lr in each step shows.

    Args:
        lr: Learning rate, 0 or more: a float, or a schedule (function of the updates made so far).
        alpha: Decay of the mean of g^2, 0 or more.
        eps: Added to the root, 0 or more.
        weight_decay: L2 penalty, 0 or more, or a schedule: weight_decay p is added to the gradient,
            and `update` then needs the parameters.
        momentum: Decay of the buffer, 0 or more: a number or a schedule.
        centered: Whether the gradient's variance stands under the root, not the mean of g^2.
        capturable, foreach, differentiable: How PyTorch computes; of no effect here.
        maximize: Whether to climb: every gradient's sign is turned.

    Returns:
        An `optax.GradientTransformation`; its state is `RMSpropState`, whose fields are PyTorch's
        state names.

    Raises:
        InputError: For a value that PyTorch refuses.

    Example:
        The mean starts at 0 and is not corrected: the first update is lr / sqrt(1 - alpha), 10
        times lr.

        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import rmsprop
        >>> optimizer, params = rmsprop(lr=0.01), jnp.array([1.0, 1.0])
        >>> grads = jnp.array([3.0, -0.5])
        >>> updates, state = optimizer.update(grads, optimizer.init(params), params)
        >>> [round(u, 4) for u in updates.tolist()]
        [-0.1, 0.1]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.RMSprop.html
    """
    check_arguments(
        "rmsprop",
        lr=at_least_0(lr),
        alpha=at_least_0(alpha),
        eps=at_least_0(eps),
        weight_decay=at_least_0(weight_decay),
        momentum=at_least_0(momentum),
    )
    buffered = not is_zero(momentum)

    def init(params: optax.Params) -> RMSpropState:
        return RMSpropState(
            step=jnp.zeros((), jnp.int32),
            square_avg=zeros_like(params),
            momentum_buffer=zeros_like(params) if buffered else None,
            grad_avg=zeros_like(params) if centered else None,
        )

    def update(
        grads: optax.Updates, state: RMSpropState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, RMSpropState]:
        step = state.step + 1
        rate, decay = rate_at(lr, step), value_at(weight_decay, step)
        beta = value_at(momentum, step)

        def rule(ops: Ops, g: Array, p: Array, square: Array, *rest: Array) -> Any:
            g = ops.gradient(g, p, maximize, decay)
            square = ops.addcmul(ops.mul(square, alpha), g, g, 1 - alpha)
            mean = [ops.lerp(rest[-1], g, 1 - alpha)] if centered else []
            below = ops.addcmul(square, mean[0], mean[0], -1) if centered else square
            root = ops.add(ops.sqrt(below), eps)
            if not buffered:
                return ops.update(p, -ops.number(rate) * (g / root)), square, *mean
            b = change = ops.addcdiv(ops.mul(rest[0], beta), g, root)
            if not is_known(momentum):  # PyTorch passes the buffer by while it is 0
                b = jnp.where(beta > 0, b, rest[0])
            return ops.update(p, ops.scaled(change, -rate)), square, b, *mean

        kept = [tree for tree in state[1:] if tree is not None]
        updates, square_avg, *rest = per_parameter(
            rule, grads, params, *kept, needs_params=not is_zero(weight_decay)
        )
        return updates, RMSpropState(
            step=step,
            square_avg=square_avg,
            momentum_buffer=rest[0] if buffered else None,
            grad_avg=rest[-1] if centered else None,
        )

    return optax.GradientTransformation(init, update)
