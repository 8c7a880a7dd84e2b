"""Gradient clipping: torch.nn.utils.clip_grad_norm_ and clip_grad_value_."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.experimental import checkify

from twinstep.jax.optim.base import check_arguments

_EPS = 1e-6  # PyTorch adds it to the norm: a gradient of exactly max_norm is clipped by 1e-6, too


def total_norm(grads: Any, norm_type: float = 2.0) -> jax.Array:
    """The p-norm of all gradients as one vector, (), by way of each tensor's own, as PyTorch's.

    norm_type: p of any sign; inf: the largest entry; 0: how many are not 0, of tensors, since the
        norms of the tensors are counted again
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.get_total_norm.html
    """
    norms = [_norm(leaf, float(norm_type)) for leaf in jax.tree.leaves(grads)]
    return _norm(jnp.stack(norms), float(norm_type)) if norms else jnp.zeros(())


def clip_grad_norm(
    max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> optax.GradientTransformation:
    """Gradients times min(1, max_norm / (norm + 1e-6)), which optax has without the 1e-6.

    As PyTorch: a NaN in one makes all NaN. Stands before the optimizer: `optax.chain(clip, adam())`
    error_if_nonfinite: check that the norm is finite, by `jax.experimental.checkify`: the step has
        to go through `checkify.checkify`, whose error then says so
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html
    """
    check_arguments("clip_grad_norm", max_norm=_number(max_norm), norm_type=_number(norm_type))

    def clip(grads: optax.Updates) -> optax.Updates:
        norm = total_norm(grads, norm_type)
        if error_if_nonfinite:
            checkify.check(jnp.isfinite(norm), "the total norm of the gradients is not finite")
        factor = float(max_norm) / (norm + _EPS)
        factor = jnp.where(factor > 1, 1, factor)  # a NaN stays one
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), grads)

    return optax.stateless(lambda grads, params: clip(grads))


def clip_grad_value(clip_value: float) -> optax.GradientTransformation:
    """Each entry kept between -clip_value and clip_value; a NaN stays one.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_value_.html
    """
    check_arguments("clip_grad_value", clip_value=_number(clip_value))
    bound = float(clip_value)
    return optax.stateless(
        lambda grads, params: jax.tree.map(lambda g: jnp.clip(g, -bound, bound), grads)
    )


def _number(value: Any) -> Any:
    """What PyTorch makes a float of, 'inf' as well."""
    return value, "a number", lambda v: isinstance(float(v), float)


def _norm(array: jax.Array, p: float) -> jax.Array:
    size = jnp.abs(array)
    if p == math.inf:
        return jnp.max(size)
    if p == -math.inf:
        return jnp.min(size)
    if p == 0:
        return jnp.sum(size != 0).astype(array.dtype)
    if p == 1:
        return jnp.sum(size)
    if p == 2:
        return jnp.sqrt(jnp.sum(size * size))
    return jnp.sum(size**p) ** (1 / p)
