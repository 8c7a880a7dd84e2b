"""torch.optim.SGD."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from twinstep.errors import InputError
from twinstep.jax.optim.base import (
    Scheduled,
    check_arguments,
    first_count,
    is_known,
    is_zero,
    next_count,
    number,
    rate_at,
    value_at,
    zeros_like,
)
from twinstep.jax.optim.ops import Array, Ops, per_parameter


class SGDState(NamedTuple):
    """count: () int32, updates made, where a schedule asks for them; else None, or with a buffer
    () bool, whether any was.

    momentum_buffer: like params with momentum, else None
    """

    count: Any = None
    momentum_buffer: Any = None


def sgd(
    lr: Scheduled = 1e-3,
    momentum: Scheduled = 0.0,
    dampening: float = 0.0,
    weight_decay: Scheduled = 0.0,
    nesterov: bool = False,
    *,
    maximize: bool = False,
    foreach: bool | None = None,
    differentiable: bool = False,
    fused: bool | None = None,
) -> optax.GradientTransformation:
    """p - lr b, b = momentum b + (1 - dampening) g; the first b is g itself.

    optax.sgd is the same without dampening, under a constant momentum.

    Args:
        lr: Learning rate, 0 or more: a float, or a schedule (function of the updates made so far).
        momentum: Decay of the buffer b, 0 or more: a number or a schedule.
        dampening: The share of each later gradient that the buffer does not take, any number;
            without momentum it counts for nothing.
        weight_decay: L2 penalty, 0 or more, or a schedule: weight_decay p is added to the gradient,
            and `update` then needs the parameters.
        nesterov: Whether to go by g + momentum b. It takes momentum above 0 and no dampening.
        maximize: Whether to climb: every gradient's sign is turned.
        foreach, differentiable, fused: How PyTorch computes; of no effect here.

    Returns:
        An `optax.GradientTransformation`; its state is `SGDState`, whose momentum_buffer is
        PyTorch's.

    Raises:
        InputError: For a value that PyTorch refuses.

    Example:
        Dampening leaves out the first gradient: the updates are -1, then -(0.5 + 0.75).

        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import sgd
        >>> optimizer, params = sgd(lr=1.0, momentum=0.5, dampening=0.25), jnp.array(1.0)
        >>> state = optimizer.init(params)
        >>> for _ in range(2):
        ...     updates, state = optimizer.update(jnp.array(1.0), state, params)
        ...     print(updates)
        -1.0
        -1.25

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html
    """
    check_arguments("sgd", lr=_not_below_0(lr), momentum=_not_below_0(momentum))
    check_arguments("sgd", weight_decay=_not_below_0(weight_decay), dampening=number(dampening))
    buffered = not is_zero(momentum)
    if nesterov and (not buffered or (is_known(dampening) and dampening != 0)):
        raise InputError("sgd: nesterov is True, expected momentum above 0 and dampening 0 with it")
    scheduled = any(map(callable, (lr, weight_decay, momentum)))

    def init(params: optax.Params) -> SGDState:
        return SGDState(
            count=first_count(scheduled) if scheduled or buffered else None,
            momentum_buffer=zeros_like(params) if buffered else None,
        )

    def update(
        grads: optax.Updates, state: SGDState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, SGDState]:
        step = jnp.ones((), jnp.int32) if state.count is None else state.count + 1
        rate, decay = rate_at(lr, step), value_at(weight_decay, step)
        beta = value_at(momentum, step)

        def rule(ops: Ops, g: Array, p: Array, *buffer: Array) -> Any:
            g = ops.gradient(g, p, maximize, decay)
            if not buffered:
                return (ops.update(p, ops.scaled(g, -rate)),)
            (old,) = buffer
            b = jnp.where(step == 1, g, ops.add(ops.mul(old, beta), g, 1 - dampening))
            change = ops.add(g, b, beta) if nesterov else b
            if not is_known(momentum):  # PyTorch passes the buffer by while it is 0
                change, b = jnp.where(beta == 0, g, change), jnp.where(beta == 0, old, b)
            return ops.update(p, ops.scaled(change, -rate)), b

        kept = [state.momentum_buffer] if buffered else []
        updates, *kept = per_parameter(
            rule, grads, params, *kept, needs_params=not is_zero(weight_decay)
        )
        return updates, SGDState(next_count(state.count), *kept)

    return optax.GradientTransformation(init, update)


def _not_below_0(value: Any) -> tuple[Any, str, Callable[[Any], bool]]:
    """Asked this way round by PyTorch's SGD alone, which so lets a NaN pass."""
    return value, "0 or more", lambda v: not v < 0.0
