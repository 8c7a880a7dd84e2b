"""torch.optim.Rprop."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from twinstep.jax.optim.base import (
    Scheduled,
    at_least_0,
    check_arguments,
    full_like,
    value_at,
    zeros_like,
)
from twinstep.jax.optim.ops import Array, Ops, per_parameter


class RpropState(NamedTuple):
    """step: () int32, updates made; prev: like params, the last gradient, 0 where it turned.

    step_size: like params, how far each entry moves
    """

    step: jax.Array
    prev: Any
    step_size: Any


def rprop(
    lr: Scheduled = 1e-2,
    etas: tuple[float, float] = (0.5, 1.2),
    step_sizes: tuple[float, float] = (1e-6, 50),
    *,
    capturable: bool = False,
    foreach: bool | None = None,
    maximize: bool = False,
    differentiable: bool = False,
) -> optax.GradientTransformation:
    """Each entry by a step of its own, longer while its gradient keeps its sign, else shorter.

    optax.rprop gives out each update one step late.

    Args:
        lr: The first step size of every entry, 0 or more: a float, or a schedule, whose first value
            it is.
        etas: What a step size is multiplied by where the sign turned, between 0 and 1, and where it
            stayed, above 1.
        step_sizes: The least and the largest step size.
        capturable, foreach, differentiable: How PyTorch computes; of no effect here.
        maximize: Whether to climb: every gradient's sign is turned.

    Returns:
        An `optax.GradientTransformation`; its state is `RpropState`, whose fields are PyTorch's
        state names.

    Raises:
        InputError: For a value that PyTorch refuses.

    Example:
        Only signs count. Where one turned, the entry waits once.

        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import rprop
        >>> optimizer, params = rprop(lr=0.1), jnp.array(1.0)
        >>> state = optimizer.init(params)
        >>> for grad in (3.0, 0.5, -0.5):
        ...     updates, state = optimizer.update(jnp.array(grad), state, params)
        ...     print(round(float(abs(updates)), 4), round(float(state.step_size), 4))
        0.1 0.1
        0.12 0.12
        0.0 0.06

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Rprop.html
    """
    check_arguments(
        "rprop",
        lr=at_least_0(lr),
        etas=(etas, "one in (0, 1) and one above 1", lambda v: 0.0 < v[0] < 1.0 < v[1]),
        step_sizes=(step_sizes, "two numbers", lambda v: len(v) == 2),
    )

    def init(params: optax.Params) -> RpropState:
        first = value_at(lr, jnp.ones((), jnp.int32))
        return RpropState(jnp.zeros((), jnp.int32), zeros_like(params), full_like(params, first))

    def update(
        grads: optax.Updates, state: RpropState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, RpropState]:
        def rule(ops: Ops, g: Array, p: Array, prev: Array, size: Array) -> Any:
            g = ops.gradient(g, p, maximize)
            turn = ops.mul(g, prev)
            shorter, longer = map(ops.alpha, etas)
            factor = jnp.where(turn > 0, longer, jnp.where(turn < 0, shorter, 1.0))
            size = jnp.clip(ops.mul(size, factor), *map(ops.alpha, step_sizes))
            g = jnp.where(turn < 0, 0.0, g)
            # a NaN has no sign: such an entry waits
            sign = jnp.where(g > 0, 1.0, jnp.where(g < 0, -1.0, 0.0))
            return ops.update(p, -(sign * size)), g, size

        updates, prev, step_size = per_parameter(rule, grads, params, state.prev, state.step_size)
        return updates, RpropState(state.step + 1, prev, step_size)

    return optax.GradientTransformation(init, update)
