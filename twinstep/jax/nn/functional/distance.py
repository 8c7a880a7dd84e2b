"""torch.nn.functional's distances, with its gradients at 0 and at ties."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn.functional._reduction import broadcast, floats, raised

__all__ = ["cosine_similarity", "pairwise_distance", "pdist"]


def pairwise_distance(
    x1: jax.Array, x2: jax.Array, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> jax.Array:
    """The p-norm of differences, over the last axis.

    At a norm of 0 the gradient is 0, where that of `jnp.linalg.norm` is NaN.

    Args:
        x1, x2: Vectors, (N, D) or (D,); broadcast.
        p: The norm's exponent, which may be infinite or below 0.
        eps: What is added to each difference.
        keepdim: Whether the last axis is kept, of length 1.

    Returns:
        The distances, (N,) or ().

    Raises:
        InputError: For shapes that do not broadcast, an infinite norm of nothing.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import pairwise_distance
        >>> round(float(pairwise_distance(jnp.array([3.0, 4.0]), jnp.zeros(2))), 4)
        5.0

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.pairwise_distance.html
    """
    x1, x2 = broadcast("pairwise_distance", x1=x1, x2=x2)
    difference = jnp.atleast_1d(x1 - x2 + eps)
    if difference.shape[-1] == 0 and (p < 0 or np.isinf(p)):
        raise InputError(
            f"pairwise_distance: p is {p} and the last axis of length 0, expected a norm that "
            "nothing has"
        )
    distance = vector_norm(difference, p)
    if keepdim:
        return distance[..., None]
    return distance if x1.ndim else distance.reshape(())


def cosine_similarity(x1: jax.Array, x2: jax.Array, dim: int = 1, eps: float = 1e-8) -> jax.Array:
    """The cosine of the angle between vectors.

    Args:
        x1, x2: Vectors along an axis; broadcast.
        dim: That axis, of the common shape.
        eps: What a norm is at least; its gradient is as if it were not.

    Returns:
        The cosines, of the common shape without that axis.

    Raises:
        InputError: For shapes that do not broadcast, an axis that there is not, integers.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import cosine_similarity
        >>> round(float(cosine_similarity(jnp.array([1.0, 0.0]), jnp.array([1.0, 1.0]), 0)), 4)
        0.7071

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.cosine_similarity.html
    """
    x1, x2 = broadcast("cosine_similarity", x1=x1, x2=x2)
    dtype = jnp.promote_types(x1.dtype, x2.dtype)
    floats("cosine_similarity", **{"x1 or x2": jnp.zeros((), dtype)})
    rank = max(x1.ndim, 1)
    check_arguments(
        "cosine_similarity", dim=(dim, f"from {-rank} to {rank - 1}", lambda v: -rank <= v < rank)
    )
    both = [jnp.moveaxis(jnp.atleast_1d(x.astype(dtype)), dim, -1) for x in (x1, x2)]
    units = [x / raised(vector_norm(x, 2.0)[..., None], eps) for x in both]
    cosine = jnp.sum(units[0] * units[1], axis=-1)
    return cosine if x1.ndim else cosine.reshape(())


def pdist(input: jax.Array, p: float = 2.0) -> jax.Array:
    """The p-norm distances between all pairs of rows.

    Args:
        input: Rows, (N, M).
        p: The norm's exponent, at least 0; it may be infinite.

    Returns:
        The distances, row 0 with 1 to N - 1, then row 1 with those after it: (N (N - 1) / 2,).

    Raises:
        InputError: For what is not of two axes, integers, a p below 0.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import pdist
        >>> pdist(jnp.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])).tolist()[:2]
        [5.0, 1.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.pdist.html
    """
    input = jnp.asarray(input)
    floats("pdist", input=input)
    check_arguments(
        "pdist",
        input=(input.shape, "of shape (N, M)", lambda v: len(v) == 2),
        p=(p, "at least 0", lambda v: v >= 0),
    )
    one, other = np.triu_indices(input.shape[0], 1)
    if input.shape[1] == 0:
        return jnp.zeros(one.shape, input.dtype)
    return vector_norm(input[one] - input[other], p, True)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def vector_norm(x: jax.Array, p: float, ties_in_full: bool = False) -> jax.Array:
    """The p-norm over the last axis, with PyTorch's gradient.

    ties_in_full: of an infinite norm, whether each of the largest has the whole gradient, or they
        share it
    """
    size = jnp.abs(x)
    if p == 0:
        return jnp.sum(x != 0, axis=-1, dtype=size.dtype)
    if np.isinf(p):
        return jnp.max(size, axis=-1) if p > 0 else jnp.min(size, axis=-1)
    if p == 1:
        return jnp.sum(size, axis=-1)
    if p == 2:
        return jnp.sqrt(jnp.sum(x * x, axis=-1))
    return jnp.sum(size**p, axis=-1) ** (1 / p)


@vector_norm.defjvp
def _norm_tangent(
    p: float, ties_in_full: bool, primals: tuple[Any], tangents: tuple[Any]
) -> tuple[jax.Array, jax.Array]:
    (x,), (tangent,) = primals, tangents
    norm = vector_norm(x, p, ties_in_full)
    slope = _norm_slope(x, norm[..., None], p, ties_in_full)
    return norm, jnp.sum(slope * tangent, axis=-1)


def _norm_slope(x: jax.Array, norm: jax.Array, p: float, ties_in_full: bool) -> jax.Array:
    sign, size = jnp.where(jnp.isnan(x), 0, jnp.sign(x)), jnp.abs(x)
    if p == 0:
        return jnp.zeros_like(x)
    if p == 1:
        return sign
    if np.isinf(p):
        largest = (size == norm) | jnp.isnan(size)
        among = 1 if ties_in_full else jnp.sum(largest, axis=-1, keepdims=True, dtype=x.dtype)
        return sign * largest / among
    if p < 1:
        power = jnp.where(x == 0, 0, jnp.where(x == 0, 1, size) ** (p - 1))
        return sign * power * norm ** (1 - p)
    flat = norm == 0
    scale = jnp.where(flat, 1, norm)
    if p == 2:
        return jnp.where(flat, 0, x / scale)
    power = sign * size ** (p - 1) if p < 2 else x * size ** (p - 2)
    return jnp.where(flat, 0, power / scale ** (p - 1))
