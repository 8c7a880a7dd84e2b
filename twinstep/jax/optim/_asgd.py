"""torch.optim.ASGD."""

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
    number,
    over_leaves,
    rate_at,
    require_params,
    zeros_like,
)


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
    weight_decay: float = 0.0,
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
        weight_decay: L2 penalty, 0 or more: weight_decay p is added to the gradient.
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
        params = require_params(params)
        grads = l2_regularized(descent(grads, maximize), params, weight_decay)
        eta, mu = state.eta, state.mu

        def rule(g: jax.Array, p: jax.Array, ax: jax.Array) -> tuple[jax.Array, ...]:
            new = p * cast(1 - lambd * eta, p) - cast(eta, p) * g
            return new - p, jnp.where(mu == 1, new, ax + (new - ax) * cast(mu, p))

        updates, ax = over_leaves(rule, grads, params, state.ax)
        step = state.step + 1
        rate, t = rate_at(lr, step), step.astype(float)
        next_eta = rate / (1 + lambd * rate * t) ** alpha
        return updates, ASGDState(step, next_eta, 1 / jnp.maximum(1, t - t0), ax)

    return optax.GradientTransformation(init, update)
