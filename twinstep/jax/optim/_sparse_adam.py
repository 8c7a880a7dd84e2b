"""torch.optim.SparseAdam."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from twinstep.errors import InputError
from twinstep.jax.optim.base import (
    Scheduled,
    check_arguments,
    check_real,
    fractions,
    rate_at,
    value_at,
    zeros_like,
)
from twinstep.jax.optim.corrections import bias_correction
from twinstep.jax.optim.ops import Array, Ops, per_parameter


class SparseAdamState(NamedTuple):
    """step: () int32, updates made; exp_avg, exp_avg_sq: like params, the moments."""

    step: jax.Array
    exp_avg: Any
    exp_avg_sq: Any


def sparse_adam(
    lr: Scheduled = 1e-3,
    betas: tuple[Scheduled, Scheduled] = (0.9, 0.999),
    eps: float = 1e-8,
    *,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Adam that moves only the rows that a gradient touches, moments included.

    PyTorch sees them in a sparse gradient; here `update(..., touched=...)` says it: {like params:
    (rows,) booleans}, rows being axis 0. A row that is touched by a gradient of 0 moves too.
    optax.adam moves every row, and forgets in those that no gradient touches.

    Args:
        lr: Learning rate, above 0: a float, or a schedule (function of the updates made so far).
        betas: Decays of the first and the second moment, each at least 0 and below 1: numbers or
            schedules.
        eps: Added to the root before its correction, unlike Adam's; above 0.
        maximize: Whether to climb: every gradient's sign is turned.

    Returns:
        An `optax.GradientTransformationExtraArgs`; its state is `SparseAdamState`, whose fields are
        PyTorch's state names.

    Raises:
        InputError: For a value that PyTorch refuses; in `update`, without `touched`.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import sparse_adam
        >>> optimizer, table = sparse_adam(lr=0.1), jnp.ones((3, 1))
        >>> state, touched = optimizer.init(table), jnp.array([True, False, False])
        >>> grads = jnp.array([[2.0], [0.0], [0.0]])
        >>> updates, state = optimizer.update(grads, state, table, touched=touched)
        >>> [round(u, 4) for u in updates.ravel().tolist()]
        [-0.1, 0.0, 0.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.SparseAdam.html
    """
    above_0 = ("above 0", lambda v: v > 0.0)
    check_arguments("sparse_adam", lr=(lr, *above_0), betas=fractions(betas), eps=(eps, *above_0))

    def init(params: optax.Params) -> SparseAdamState:
        check_real("sparse_adam", params)
        return SparseAdamState(jnp.zeros((), jnp.int32), zeros_like(params), zeros_like(params))

    def update(
        grads: optax.Updates,
        state: SparseAdamState,
        params: optax.Params | None = None,
        *,
        touched: Any = None,
        **_: Any,
    ) -> tuple[optax.Updates, SparseAdamState]:
        if touched is None:
            raise InputError("sparse_adam: touched is None, expected the rows: update(touched=...)")
        step = state.step + 1
        beta1, beta2 = (value_at(beta, step) for beta in betas)
        root = jnp.sqrt(bias_correction(beta2, step))
        step_size = rate_at(lr, step) * root / bias_correction(beta1, step)

        def rule(ops: Ops, g: Array, p: Array, rows: Array, m: Array, v: Array) -> Any:
            g = ops.gradient(g, p, maximize)
            here = rows.reshape(rows.shape + (1,) * (g.ndim - 1))

            def of_mean(old: jax.Array, new: jax.Array, beta: Any) -> tuple[jax.Array, jax.Array]:
                moved = ops.rounded(old + ops.mul(ops.rounded(new - old), 1 - beta))
                return jnp.where(here, moved, old), moved

            m, new_m = of_mean(m, g, beta1)
            v, new_v = of_mean(v, ops.mul(g, g), beta2)
            change = ops.mul(ops.div(new_m, ops.add(ops.sqrt(new_v), eps)), -step_size)
            return jnp.where(here, ops.update(p, change), 0.0), m, v

        updates, exp_avg, exp_avg_sq = per_parameter(
            rule, grads, params, state.exp_avg, state.exp_avg_sq, beside=[touched]
        )
        return updates, SparseAdamState(step, exp_avg, exp_avg_sq)

    return optax.GradientTransformationExtraArgs(init, update)
