"""torch.optim.Adam and AdamW."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from twinstep.errors import InputError
from twinstep.jax.optim.base import (
    Scheduled,
    at_least_0,
    check_arguments,
    fractions,
    is_known,
    is_zero,
    rate_at,
    value_at,
    zeros_like,
)
from twinstep.jax.optim.corrections import bias_correction
from twinstep.jax.optim.ops import Array, Ops, per_parameter


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
    weight_decay: Scheduled = 0.0,
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

    Args:
        lr: Learning rate, 0 or more: a float, or a schedule (function of the updates made so far).
        betas: Decays of the first and the second moment, each at least 0 and below 1: floats (0 as
            0.0, as PyTorch asks for) or schedules.
        eps: Added to the corrected root, 0 or more.
        weight_decay: L2 penalty, 0 or more, or a schedule: weight_decay p is added to the gradient,
            and `update` then needs the parameters.
        amsgrad: Whether the largest second moment so far counts, not the last.
        foreach, capturable, differentiable, fused: How PyTorch computes; of no effect here.
        maximize: Whether to climb: every gradient's sign is turned.
        decoupled_weight_decay: Whether weight decay passes the moments by, as in `adamw`.

    Returns:
        An `optax.GradientTransformation`; its state is `AdamState`, whose fields are PyTorch's
        state names.

    Raises:
        InputError: For a value that PyTorch refuses.

    Example:
        The first update is -lr times the gradient's sign, whatever its size.

        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import adam
        >>> optimizer, params = adam(lr=0.1), jnp.array([1.0, 1.0])
        >>> grads = jnp.array([3.0, -0.5])
        >>> updates, state = optimizer.update(grads, optimizer.init(params), params)
        >>> [round(u, 4) for u in updates.tolist()]
        [-0.1, 0.1]

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
    if not all(isinstance(beta, float) for beta in betas if is_known(beta)):
        raise InputError(f"{name}: betas is {betas!r}, expected two floats, and 0 as 0.0")

    def init(params: optax.Params) -> AdamState:
        largest = zeros_like(params) if amsgrad else None
        return AdamState(jnp.zeros((), jnp.int32), zeros_like(params), zeros_like(params), largest)

    def update(
        grads: optax.Updates, state: AdamState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, AdamState]:
        step = state.step + 1
        rate, decay = rate_at(lr, step), value_at(weight_decay, step)
        beta1, beta2 = (value_at(beta, step) for beta in betas)
        step_size = rate / bias_correction(beta1, step)
        root = jnp.sqrt(bias_correction(beta2, step))
        coupled, decoupled = (0.0, decay) if decoupled_weight_decay else (decay, 0.0)

        def rule(ops: Ops, g: Array, p: Array, m: Array, v: Array, *largest: Array) -> Any:
            start = ops.decayed(p, rate, decoupled)
            g = ops.gradient(g, p, maximize, coupled)
            m = ops.lerp(m, g, 1 - beta1)
            v = ops.addcmul(ops.mul(v, beta2), g, g, 1 - beta2)
            kept = [jnp.maximum(old, v) for old in largest]
            denom = ops.add(ops.div(ops.sqrt(kept[0] if amsgrad else v), root), eps)
            change = -ops.number(step_size) * (m / denom)
            return ops.update(p, change, start=start), m, v, *kept

        moments = [state.exp_avg, state.exp_avg_sq] + [state.max_exp_avg_sq] * amsgrad
        updates, *moments = per_parameter(
            rule, grads, params, *moments, needs_params=not is_zero(weight_decay)
        )
        return updates, AdamState(step, *moments)

    return optax.GradientTransformation(init, update)


def adamw(
    lr: Scheduled = 1e-3,
    betas: tuple[Scheduled, Scheduled] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: Scheduled = 1e-2,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
    foreach: bool | None = None,
    capturable: bool = False,
    differentiable: bool = False,
    fused: bool | None = None,
) -> optax.GradientTransformation:
    """Adam whose weight decay, lr weight_decay p, passes the moments by.

    optax.adamw has another default of weight_decay, 1e-4, and differs as optax.adam does.

    Args:
        lr: Learning rate, 0 or more: a float, or a schedule (function of the updates made so far).
        betas: Decays of the first and the second moment, each at least 0 and below 1: floats (0 as
            0.0, as PyTorch asks for) or schedules.
        eps: Added to the corrected root, 0 or more.
        weight_decay: The parameters first shrink by lr weight_decay of themselves; 0 or more, or a
            schedule. `update` then needs the parameters.
        amsgrad: Whether the largest second moment so far counts, not the last.
        maximize: Whether to climb: every gradient's sign is turned; weight decay still shrinks.
        foreach, capturable, differentiable, fused: How PyTorch computes; of no effect here.

    Returns:
        An `optax.GradientTransformation`; its state is `AdamState`, whose fields are PyTorch's
        state names.

    Raises:
        InputError: For a value that PyTorch refuses.

    Example:
        Without a gradient the parameters shrink, by lr weight_decay of themselves.

        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import adamw
        >>> optimizer, params = adamw(lr=0.1, weight_decay=0.5), jnp.array(4.0)
        >>> updates, state = optimizer.update(jnp.array(0.0), optimizer.init(params), params)
        >>> round(float(updates), 4)
        -0.2

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.AdamW.html
    """
    return adam(
        lr, betas, eps, weight_decay, amsgrad, maximize=maximize, decoupled_weight_decay=True
    )
