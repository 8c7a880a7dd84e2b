"""Gradient clipping: torch.nn.utils.clip_grad_norm_ and clip_grad_value_."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.experimental import checkify

from twinstep.jax.optim.base import Scheduled, check_arguments, check_real, is_known, value_at
from twinstep.jax.optim.ops import Ops

_EPS = 1e-6  # PyTorch adds it to the norm: a gradient of exactly max_norm is clipped by 1e-6, too


def total_norm(grads: Any, norm_type: float = 2.0) -> jax.Array:
    """The p-norm of all gradients as one vector, (), by way of each tensor's own, as PyTorch's.

    Args:
        grads: A tree of arrays.
        norm_type: p of any sign; inf is the largest entry; 0 counts the tensors that are not all 0,
            since the tensors' own counts are counted again.

    Returns:
        The norm, (); 0 of no gradients.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import total_norm
        >>> grads = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([4.0, 4.0])}
        >>> [round(float(total_norm(grads, p)), 4) for p in (2.0, float("inf"), 0.0)]
        [6.4031, 4.0, 2.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.get_total_norm.html
    """
    leaves = jax.tree.leaves(grads)
    if not leaves:
        return jnp.zeros(())
    norms = [_norm(Ops(leaf.dtype), leaf, float(norm_type)) for leaf in leaves]
    ops = Ops(jnp.result_type(*(leaf.real for leaf in leaves)))
    return _norm(ops, jnp.stack(norms), float(norm_type)).astype(ops.dtype)


class ClipGradNormState(NamedTuple):
    """count: () int32, updates made, where max_norm is a schedule; else None."""

    count: Any = None


def clip_grad_norm(
    max_norm: Scheduled, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> optax.GradientTransformation:
    """Gradients times min(1, max_norm / (norm + 1e-6)), which optax has without the 1e-6.

    As PyTorch: a norm of exactly max_norm is clipped by the 1e-6, too; a NaN in one makes all NaN.
    Stands before the optimizer: `optax.chain(clip, adam())`.

    Args:
        max_norm: What the norm of all gradients as one vector is brought down to: a number, inf
            included, or a schedule (function of the updates made so far).
        norm_type: p of the norm, as for `total_norm`.
        error_if_nonfinite: Whether to check that the norm is finite, by
            `jax.experimental.checkify`: the step has to go through `checkify.checkify`, whose error
            then says so.

    Returns:
        An `optax.GradientTransformation`; its state is `ClipGradNormState`, a count for a schedule.

    Raises:
        InputError: For what is no number.

    Example:
        The norm is 5 before, 1 after.

        >>> import jax.numpy as jnp
        >>> import optax
        >>> from twinstep.jax.optim import clip_grad_norm, sgd
        >>> optimizer = optax.chain(clip_grad_norm(1.0), sgd(lr=1.0))
        >>> params = {"a": jnp.array(3.0), "b": jnp.array(4.0)}
        >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
        >>> round(float(updates["a"]), 4), round(float(updates["b"]), 4)
        (-0.6, -0.8)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html
    """
    check_arguments("clip_grad_norm", max_norm=_number(max_norm), norm_type=_number(norm_type))

    def init(params: optax.Params) -> ClipGradNormState:
        return ClipGradNormState(jnp.zeros((), jnp.int32) if callable(max_norm) else None)

    def update(
        grads: optax.Updates, state: ClipGradNormState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, ClipGradNormState]:
        largest = max_norm
        if state.count is not None:
            state = ClipGradNormState(state.count + 1)
            largest = value_at(max_norm, state.count)
        elif is_known(max_norm):
            largest = float(max_norm)  # 'inf', too
        norm = total_norm(grads, norm_type)
        if error_if_nonfinite:
            checkify.check(jnp.isfinite(norm), "the total norm of the gradients is not finite")
        return clipped_to_norm(grads, largest, norm), state

    return optax.GradientTransformation(init, update)


def clipped_to_norm(grads: Any, max_norm: Any, norm: jax.Array) -> Any:
    """Gradients of a known norm times min(1, max_norm / (norm + 1e-6)), rounded as PyTorch does."""
    ops = Ops(norm.dtype)
    inverse = ops.rounded(1 / ops.add(norm.astype(ops.computed), _EPS))
    coefficient = jnp.minimum(ops.mul(inverse, max_norm), 1.0)

    def clipped(g: jax.Array) -> jax.Array:
        ops = Ops(g.dtype)
        wide = g.astype(ops.computed) if ops.narrow else g
        return ops.mul(wide, coefficient).astype(g.dtype)

    return jax.tree.map(clipped, grads)


def clip_grad_value(clip_value: float | jax.Array) -> optax.GradientTransformation:
    """Each entry kept between -clip_value and clip_value; a NaN stays one.

    Stands before the optimizer, as `clip_grad_norm` does.

    Args:
        clip_value: The bound, any number.

    Returns:
        An `optax.GradientTransformation` without a state.

    Raises:
        InputError: For what is no number; in `update`, for complex gradients, which have no order.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import clip_grad_value
        >>> clip, grads = clip_grad_value(0.5), jnp.array([3.0, -0.25, jnp.nan])
        >>> print(clip.update(grads, clip.init(grads))[0])
        [ 0.5  -0.25   nan]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_value_.html
    """
    check_arguments("clip_grad_value", clip_value=_number(clip_value))
    known = is_known(clip_value)

    def clipped(g: jax.Array) -> jax.Array:
        bound = float(clip_value) if known else jnp.asarray(clip_value, g.dtype)
        return jnp.clip(g, -bound, bound)

    def clip(grads: optax.Updates, params: optax.Params | None) -> optax.Updates:
        check_real("clip_grad_value", grads)
        return jax.tree.map(clipped, grads)

    return optax.stateless(clip)


def _number(value: Any) -> Any:
    """What PyTorch makes a float of, 'inf' as well."""
    return value, "a number", lambda v: isinstance(float(v), float)


def _norm(ops: Ops, array: jax.Array, p: float) -> jax.Array:
    """In what is computed, rounded to the dtype."""
    size = jnp.abs(array).astype(ops.computed)
    if p == math.inf:
        return jnp.max(size)
    if p == -math.inf:
        return jnp.min(size)
    if p == 0:
        return ops.rounded(jnp.sum(size != 0).astype(ops.computed))
    if p == 1:
        return ops.rounded(jnp.sum(size))
    if p == 2:
        return ops.rounded(jnp.sqrt(jnp.sum(size * size)))
    return ops.rounded(jnp.sum(size**p) ** (1 / p))
