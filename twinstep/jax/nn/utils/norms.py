"""Weight norm and spectral norm of an array, for either way to keep what they are computed of."""

from typing import Any

import jax
import jax.numpy as jnp

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn import functional
from twinstep.jax.nn.conv_transpose import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d

__all__ = [
    "as_matrix",
    "check_dim",
    "check_steps",
    "first_vectors",
    "outputs_dim",
    "over_largest",
    "power_steps",
    "rescaled",
    "sizes",
    "unit",
]

_ALL = -1  # PyTorch's dim of all axes, where others count from behind


def check_dim(what: str, weight: jax.Array, dim: int | None) -> None:
    """Raises InputError for an axis that a weight does not have."""
    n = weight.ndim
    right = dim in (None, _ALL) or (isinstance(dim, int) and -n <= dim < n)
    if not right:
        raise InputError(f"{what}: dim is {dim!r}, expected {-n} to {n - 1}, or None")


def sizes(weight: jax.Array, dim: int | None) -> jax.Array:
    """The norm of each slice along an axis, of as many axes as the weight; None, -1: of all, ()."""
    if dim is None or dim == _ALL:
        return jnp.sqrt(jnp.sum(jnp.square(jnp.abs(weight))))
    others = tuple(axis for axis in range(weight.ndim) if axis != dim % weight.ndim)
    return jnp.sqrt(jnp.sum(jnp.square(jnp.abs(weight)), axis=others, keepdims=True))


def rescaled(v: jax.Array, g: jax.Array, dim: int | None) -> jax.Array:
    """A weight of a direction v and norms g."""
    return v * (g / sizes(v, dim))


def outputs_dim(module: Any, dim: int | None) -> int:
    """The axis of a layer's outputs in its weight, if it is not said."""
    if dim is not None:
        return dim
    return int(isinstance(module, ConvTranspose1d | ConvTranspose2d | ConvTranspose3d))


def as_matrix(weight: jax.Array, dim: int) -> jax.Array:
    """A weight with an axis first and the others in one."""
    front = jnp.moveaxis(weight, dim, 0)
    return front.reshape(front.shape[0], -1)


def unit(vector: jax.Array, eps: float) -> jax.Array:
    """A vector divided by its norm, or by eps where that is less."""
    return functional.normalize(vector, dim=0, eps=eps)


def check_steps(steps: int) -> None:
    """Raises InputError for less than a step of the power method."""
    check_arguments(
        "spectral_norm", n_power_iterations=(steps, "at least 1", lambda value: value > 0)
    )


def first_vectors(matrix: jax.Array, eps: float, draws: Any) -> tuple[jax.Array, jax.Array]:
    """u and v as they are drawn, of norm 1."""
    u, v = (unit(draws.normal((size,), 0.0, 1.0, matrix.dtype), eps) for size in matrix.shape)
    return u, v


def power_steps(
    matrix: jax.Array, u: jax.Array, v: jax.Array, steps: int, eps: float, *, left_first: bool
) -> tuple[jax.Array, jax.Array]:
    """u and v nearer to the largest singular value's vectors; nothing is derived through them."""
    matrix = jax.lax.stop_gradient(matrix)
    for _ in range(steps):
        if left_first:
            u = unit(matrix @ v, eps)
            v = unit(matrix.conj().T @ u, eps)
        else:
            v = unit(matrix.T @ u, eps)
            u = unit(matrix @ v, eps)
    return jax.lax.stop_gradient(u), jax.lax.stop_gradient(v)


def over_largest(weight: jax.Array, matrix: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
    """A weight divided by u^H W v, which is near its largest singular value."""
    return weight / jnp.vdot(u, matrix @ v)
