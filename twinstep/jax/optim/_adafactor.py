"""torch.optim.Adafactor."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from twinstep.jax.optim.base import (
    Scheduled,
    at_least_0,
    check_arguments,
    check_real,
    rate_at,
    value_at,
)
from twinstep.jax.optim.ops import Array, Ops, per_parameter


class AdafactorState(NamedTuple):
    """step: () int32, updates made. One of the rest for each parameter, the others None there.

    row_var, col_var: means of g^2 over the last axis, (..., R, 1), and the one before it,
    (..., 1, C), of a parameter of shape (..., R, C); variance: like a parameter of fewer axes
    """

    step: jax.Array
    row_var: Any
    col_var: Any
    variance: Any


def adafactor(
    lr: Scheduled = 1e-2,
    beta2_decay: float = -0.8,
    eps: tuple[float | None, float] = (None, 1e-3),
    d: float = 1.0,
    weight_decay: Scheduled = 0.0,
    *,
    foreach: bool | None = None,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """Steps relative to the parameters' size, by second moments kept as rows times columns.

    Sees the last two axes as PyTorch has them: Flax's layouts go through `in_torch_layout`.
    optax.adafactor computes 1 - t^-0.8 in float32, adds eps where PyTorch clamps, and factors only
    axes of 128 or more.

    Args:
        lr: The relative step's upper limit, 0 or more: update t moves by min(lr, 1 / sqrt(t)) of
            the parameter's own root mean square. A float, or a schedule (function of the updates
            made so far).
        beta2_decay: The second moment's decay is 1 - t^beta2_decay; 0 or less.
        eps: Two numbers of 0 or more. The root of the second moment is at least the first, None
            being the dtype's own eps; a parameter's root mean square counts as at least the second.
        d: What an update's root mean square is clipped to, before it is scaled, 1 or more.
        weight_decay: The parameters first shrink by lr weight_decay of themselves; 0 or more, or a
            schedule.
        foreach: PyTorch's way to compute; of no effect here.
        maximize: Whether to climb: every gradient's sign is turned.

    Returns:
        An `optax.GradientTransformation`, whose `update` needs the parameters. Its state is
        `AdafactorState`, whose fields are PyTorch's state names: row_var (..., R, 1) and col_var
        (..., 1, C) of a parameter of shape (..., R, C), variance of one with fewer axes.

    Raises:
        InputError: For a value that PyTorch refuses.

    Example:
        Of a matrix it keeps a number a row and one a column.

        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import adafactor
        >>> optimizer, params = adafactor(lr=0.01), jnp.full((3, 2), 4.0)
        >>> state = optimizer.init(params)
        >>> state.row_var.shape, state.col_var.shape, state.variance
        ((3, 1), (1, 2), None)
        >>> updates, state = optimizer.update(jnp.ones((3, 2)), state, params)
        >>> round(float(updates[0, 0]), 4)  # 0.01 of 4
        -0.04

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Adafactor.html
    """
    check_arguments(
        "adafactor",
        lr=at_least_0(lr),
        beta2_decay=(beta2_decay, "0 or less", lambda v: v <= 0.0),
        eps=(
            eps,
            "None or a number of 0 or more, and a number of 0 or more",
            lambda v: len(v) == 2 and (v[0] is None or v[0] >= 0.0) and v[1] >= 0.0,
        ),
        d=(d, "1 or more", lambda v: v >= 1.0),
        weight_decay=at_least_0(weight_decay),
    )

    def init(params: optax.Params) -> AdafactorState:
        check_real("adafactor", params)

        def like(p: jax.Array, axis: int) -> jax.Array | None:
            shape = list(p.shape)
            if p.ndim > 1:
                shape[axis] = 1
            return jnp.zeros(shape, p.dtype)

        return AdafactorState(
            step=jnp.zeros((), jnp.int32),
            row_var=jax.tree.map(lambda p: like(p, -1) if p.ndim > 1 else None, params),
            col_var=jax.tree.map(lambda p: like(p, -2) if p.ndim > 1 else None, params),
            variance=jax.tree.map(lambda p: None if p.ndim > 1 else like(p, 0), params),
        )

    def update(
        grads: optax.Updates, state: AdafactorState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, AdafactorState]:
        step = state.step + 1
        t, rate = step.astype(float), rate_at(lr, step)
        decay = value_at(weight_decay, step)
        weight = t**beta2_decay
        rho = jnp.minimum(rate, 1 / jnp.sqrt(t))

        def rule(ops: Ops, g: Array, p: Array, row: Array, col: Array, whole: Array) -> Any:
            finfo: Any = jnp.finfo  # JAX says no types of it
            eps1 = finfo(ops.dtype).eps if eps[0] is None else eps[0]
            g = ops.gradient(g, p, maximize)

            def mean_square(axis: int) -> jax.Array:
                norm = ops.rounded(jnp.sqrt(jnp.sum(g * g, axis=axis, keepdims=True)))
                return ops.div(ops.mul(norm, norm), g.shape[axis])

            def rms(array: jax.Array) -> jax.Array:
                norm = ops.rounded(jnp.sqrt(jnp.sum(array * array)))
                return norm / math.sqrt(array.size)

            alpha = jnp.maximum(eps[1], rms(p)) * ops.number(rho)
            if g.ndim > 1:
                row = ops.lerp(row, mean_square(-1), weight)
                col = ops.lerp(col, mean_square(-2), weight)
                size = ops.rounded(jnp.mean(row, axis=-2, keepdims=True))
                estimate = ops.div(ops.mul(row, col), jnp.maximum(size, ops.alpha(eps1)))
            else:
                estimate = whole = ops.lerp(whole, ops.mul(g, g), weight)
            root = ops.rsqrt(jnp.maximum(estimate, ops.alpha(eps1 * eps1)))
            change = ops.mul(root, g)
            denom = jnp.maximum(1.0, rms(change) / d)
            start = ops.decayed(p, rate, decay)
            return ops.update(p, ops.scaled(change, -alpha / denom), start=start), row, col, whole

        kept = [state.row_var, state.col_var, state.variance]
        updates, *kept = per_parameter(rule, grads, params, *kept, needs_params=True, factored=True)
        return updates, AdafactorState(step, *kept)

    return optax.GradientTransformation(init, update)
