"""torch.optim.Adagrad."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from twinstep.jax.optim.base import (
    Scheduled,
    at_least_0,
    check_arguments,
    full_like,
    is_zero,
    rate_at,
    value_at,
)
from twinstep.jax.optim.ops import Array, Ops, per_parameter


class AdagradState(NamedTuple):
    """step: () int32, updates made; sum: like params, of all squared gradients."""

    step: jax.Array
    sum: Any


def adagrad(
    lr: Scheduled = 1e-2,
    lr_decay: float = 0.0,
    weight_decay: Scheduled = 0.0,
    initial_accumulator_value: float = 0.0,
    eps: float = 1e-10,
    *,
    foreach: bool | None = None,
    maximize: bool = False,
    differentiable: bool = False,
    fused: bool | None = None,
) -> optax.GradientTransformation:
    """p - lr / (1 + (t - 1) lr_decay) g / (sqrt(sum of g^2) + eps).

    optax.adagrad has g rsqrt(sum + eps), and other defaults.

    Args:
        lr: Learning rate, 0 or more: a float, or a schedule (function of the updates made so far).
        lr_decay: How fast the rate falls with the updates t, 0 or more.
        weight_decay: L2 penalty, 0 or more, or a schedule: weight_decay p is added to the gradient,
            and `update` then needs the parameters.
        initial_accumulator_value: What the sum of squares starts from, 0 or more.
        eps: Added to the root, 0 or more.
        foreach, differentiable, fused: How PyTorch computes; of no effect here.
        maximize: Whether to climb: every gradient's sign is turned.

    Returns:
        An `optax.GradientTransformation`; its state is `AdagradState`, whose fields are PyTorch's
        state names.

    Raises:
        InputError: For a value that PyTorch refuses.

    Example:
        Under a constant gradient, update t is lr / sqrt(t).

        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import adagrad
        >>> optimizer, params = adagrad(lr=0.1), jnp.array(1.0)
        >>> state = optimizer.init(params)
        >>> for _ in range(2):
        ...     updates, state = optimizer.update(jnp.array(3.0), state, params)
        ...     print(round(float(updates), 4))
        -0.1
        -0.0707

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Adagrad.html
    """
    check_arguments(
        "adagrad",
        lr=at_least_0(lr),
        lr_decay=at_least_0(lr_decay),
        weight_decay=at_least_0(weight_decay),
        initial_accumulator_value=at_least_0(initial_accumulator_value),
        eps=at_least_0(eps),
    )

    def init(params: optax.Params) -> AdagradState:
        return AdagradState(jnp.zeros((), jnp.int32), full_like(params, initial_accumulator_value))

    def update(
        grads: optax.Updates, state: AdagradState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, AdagradState]:
        step = state.step + 1
        rate = rate_at(lr, step) / (1 + (step - 1).astype(float) * lr_decay)
        decay = value_at(weight_decay, step)

        def rule(ops: Ops, g: Array, p: Array, s: Array) -> Any:
            g = ops.gradient(g, p, maximize, decay)
            s = ops.addcmul(s, g, g, 1)
            return ops.update(p, -ops.number(rate) * (g / ops.add(ops.sqrt(s), eps))), s

        updates, total = per_parameter(
            rule, grads, params, state.sum, needs_params=not is_zero(weight_decay)
        )
        return updates, AdagradState(step, total)

    return optax.GradientTransformation(init, update)
