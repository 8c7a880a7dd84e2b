"""torch.optim.Adafactor."""

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
    lerp,
    rate_at,
    require_params,
)


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
    weight_decay: float = 0.0,
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
        weight_decay: The parameters first shrink by lr weight_decay of themselves; 0 or more.
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
        t, lr_now = step.astype(float), rate_at(lr, step)
        weight = t**beta2_decay
        rho = jnp.minimum(lr_now, 1 / jnp.sqrt(t))
        grads = descent(grads, maximize)

        def rule(
            g: jax.Array, p: jax.Array, row: Any, col: Any, whole: Any
        ) -> tuple[Any, Any, Any, Any]:
            finfo: Any = jnp.finfo  # JAX says no types of it
            eps1 = finfo(p.dtype).eps if eps[0] is None else eps[0]
            w = cast(weight, g)
            alpha = jnp.maximum(eps[1], _rms(p)) * cast(rho, p)
            if g.ndim > 1:
                row = lerp(row, jnp.mean(g * g, axis=-1, keepdims=True), w)
                col = lerp(col, jnp.mean(g * g, axis=-2, keepdims=True), w)
                size = jnp.maximum(jnp.mean(row, axis=-2, keepdims=True), eps1)
                estimate = row * col / size
            else:
                estimate = whole = lerp(whole, g * g, w)
            change = g * jax.lax.rsqrt(jnp.maximum(estimate, eps1 * eps1))
            denom = jnp.maximum(1.0, _rms(change) / d)
            kept = p * cast(1 - lr_now * weight_decay, p) if weight_decay else p
            return (kept - alpha / denom * change) - p, row, col, whole

        # None stands for a leaf that a parameter has not
        leaves, treedef = jax.tree.flatten(grads)
        trees = [require_params(params), state.row_var, state.col_var, state.variance]
        columns = [jax.tree.leaves(tree, is_leaf=lambda leaf: leaf is None) for tree in trees]
        results = [rule(*row) for row in zip(leaves, *columns, strict=True)]
        updates, *kept = (
            jax.tree.unflatten(treedef, list(column)) for column in zip(*results, strict=True)
        )
        return updates, AdafactorState(step, *kept)

    return optax.GradientTransformation(init, update)


def _rms(array: jax.Array) -> jax.Array:
    rms: jax.Array = jnp.sqrt(jnp.sum(array * array)) / array.size**0.5
    return rms
