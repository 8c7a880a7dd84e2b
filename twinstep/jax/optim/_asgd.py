"""torch.optim.ASGD."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from twinstep.jax.optim.base import (
    Scheduled,
    at_least_0,
    check_arguments,
    number,
    rate_at,
    value_at,
    zeros_like,
)
from twinstep.jax.optim.ops import Array, Ops, per_parameter


class ASGDState(NamedTuple):
    """step: () int32, updates made; eta, mu: (), of the next step; ax: the averaged parameters."""

    step: jax.Array
    eta: jax.Array
    mu: jax.Array
    ax: Any


def asgd(
    lr: Scheduled = 1e-2,
    lambd: float = 1e-4,
    alpha: float = 0.75,
    t0: float = 1e6,
    weight_decay: Scheduled = 0.0,
    *,
    foreach: bool | None = None,
    maximize: bool = False,
    differentiable: bool = False,
    capturable: bool = False,
) -> optax.GradientTransformation:
    """p (1 - lambd eta) - eta g, eta = lr / (1 + lambd lr t)^alpha; `ax` averages p from t0 on.

    optax has none. A step's eta is computed in the step before, so that another lr counts a step
    late. PyTorch keeps eta and mu in its default dtype.

    Args:
        lr: Learning rate, 0 or more: a float, or a schedule (function of the updates made so far).
        lambd: Decay of the parameters, and how fast eta falls; 0 or more.
        alpha: Power with which eta falls, 0 or more.
        t0: The update from which on `ax` is a mean; before, it is a copy of p. Any number.
        weight_decay: L2 penalty, 0 or more, or a schedule: weight_decay p is added to the gradient.
        foreach, differentiable, capturable: How PyTorch computes; of no effect here.
        maximize: Whether to climb: every gradient's sign is turned.

    Returns:
        An `optax.GradientTransformation`, whose `update` needs the parameters. Its state is
        `ASGDState`, whose fields are PyTorch's state names; `ax` is like the parameters.

    Raises:
        InputError: For a value that the newest PyTorch refuses; an older one takes lambd and alpha
            below 0.

    Example:
        The parameters go 0.5, 0, -0.5; `ax` is their mean from the second on.

        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import asgd
        >>> optimizer, params = asgd(lr=0.5, lambd=0.0, t0=0.0), jnp.array(1.0)
        >>> state = optimizer.init(params)
        >>> for _ in range(3):
        ...     updates, state = optimizer.update(jnp.array(1.0), state, params)
        ...     params = params + updates
        >>> print(params, state.ax)
        -0.5 -0.25

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.ASGD.html
    """
    check_arguments(
        "asgd",
        lr=at_least_0(lr),
        lambd=at_least_0(lambd),
        alpha=at_least_0(alpha),
        t0=number(t0),
        weight_decay=at_least_0(weight_decay),
    )

    def init(params: optax.Params) -> ASGDState:
        zero = jnp.zeros((), jnp.int32)
        eta = jnp.array(rate_at(lr, zero + 1))
        return ASGDState(zero, eta, jnp.ones((), float), zeros_like(params))

    def update(
        grads: optax.Updates, state: ASGDState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, ASGDState]:
        eta, mu = state.eta, state.mu
        step = state.step + 1
        decay = value_at(weight_decay, step)

        def rule(ops: Ops, g: Array, p: Array, ax: Array) -> Any:
            g = ops.gradient(g, p, maximize, decay)
            start = ops.decayed(p, eta, lambd)
            change = ops.scaled(g, -eta)
            new = ops.moved(start, change)
            mean = ops.add(ax, ops.mul(ops.rounded(new - ax), mu))
            return ops.update(p, change, start=start), jnp.where(mu == 1, new, mean)

        updates, ax = per_parameter(rule, grads, params, state.ax, needs_params=True)
        rate, t = rate_at(lr, step), step.astype(float)
        next_eta = rate / (1 + lambd * rate * t) ** alpha
        return updates, ASGDState(step, next_eta, 1 / jnp.maximum(1, t - t0), ax)

    return optax.GradientTransformation(init, update)
