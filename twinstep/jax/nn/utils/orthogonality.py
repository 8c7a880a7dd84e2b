"""Orthogonal matrices of triangles: the module that `parametrizations.orthogonal` registers.

Letters: m rows, n columns; k columns of a tall matrix.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError
from twinstep.jax.nn.module import Buffer, Module
from twinstep.jax.nn.utils.matrix_exp import matrix_exp

__all__ = ["MAPS", "Orthogonal"]

MAPS = ("matrix_exp", "cayley", "householder")


class Orthogonal(Module):
    """An orthogonal matrix of the triangle below a matrix's diagonal."""

    base: Buffer

    def __init__(
        self, weight: jax.Array, orthogonal_map: str, use_trivialization: bool, draws: Any
    ) -> None:
        if orthogonal_map == "householder" and jnp.iscomplexobj(weight):
            raise InputError(f"orthogonal: weight is {weight.dtype}, expected floats, as PyTorch")
        self.shape, self.orthogonal_map = weight.shape, orthogonal_map
        self.use_trivialization = use_trivialization
        self.generator = draws

    def forward(self, x: jax.Array) -> jax.Array:
        """The matrix, (..., m, n) as x."""
        wide = x.shape[-2] < x.shape[-1]
        tall = x.mT if wide else x
        q = _reflected(tall) if self.orthogonal_map == "householder" else self._of_skew(tall)
        if self.use_trivialization:
            q = self.base[...] @ q
        return q.mT if wide else q

    def _of_skew(self, x: jax.Array) -> jax.Array:
        """The first columns of the rotation that a skew matrix is the logarithm of, or near it."""
        n, k = x.shape[-2:]
        x = jnp.tril(x)
        x = jnp.concatenate([x, jnp.zeros((*x.shape[:-1], n - k), x.dtype)], axis=-1)
        skew = x - x.conj().mT
        if self.orthogonal_map == "matrix_exp":
            q = matrix_exp(skew)
        else:
            one = jnp.eye(n, dtype=x.dtype)
            q = jnp.linalg.solve(one - skew / 2, one + skew / 2)
        first: jax.Array = q[..., :k]
        return first

    def right_inverse(self, q: jax.Array) -> jax.Array:
        """What gives a matrix, or the orthogonal one that its QR decomposition has."""
        if q.shape != self.shape:
            raise InputError(f"orthogonal: value has shape {q.shape}, expected {self.shape}")
        wide = q.shape[-2] < q.shape[-1]
        tall = q.mT if wide else q
        if not self.use_trivialization:
            if self.orthogonal_map != "householder":
                raise NotImplementedError("no value can be set without use_trivialization")
            found = _reflectors(tall)
            return found.mT if wide else found
        n, k = tall.shape[-2:]
        if n == k:
            base = jnp.where(_is_orthogonal(tall), tall, _orthogonalized(tall))
        else:
            more = self.generator.normal((*tall.shape[:-1], n - k), 0.0, 1.0, tall.dtype)
            base = _orthogonalized(jnp.concatenate([tall, more], axis=-1))
        if "base" in vars(self):
            self.base[...] = base
        else:
            self.base = Buffer(base)
        return jnp.broadcast_to(-jnp.eye(q.shape[-2], q.shape[-1], dtype=q.dtype), q.shape)


def _is_orthogonal(q: jax.Array) -> jax.Array:
    """Whether all are, ()."""
    eps = 10.0 * q.shape[-2] * float(np.finfo(q.dtype).eps)
    return jnp.allclose(q.conj().mT @ q, jnp.eye(q.shape[-1], dtype=q.dtype), atol=eps)


def _orthogonalized(a: jax.Array) -> jax.Array:
    """Q of the QR decomposition with a diagonal of R that is not negative."""
    q, r = jnp.linalg.qr(a)
    return q * jnp.sign(jnp.diagonal(r, axis1=-2, axis2=-1))[..., None, :]


def _reflected(x: jax.Array) -> jax.Array:
    """The product of the reflections whose vectors stand below the diagonal of x, (..., n, k).

    The diagonal is 1 or -1, each column's sign, and not trained.
    """
    n, k = x.shape[-2:]
    below = jnp.tril(x, -1)
    factors = 2.0 / (1.0 + jnp.sum(below * below, axis=-2))
    vectors = below + jnp.eye(n, k, dtype=x.dtype)
    q = jnp.broadcast_to(jnp.eye(n, k, dtype=x.dtype), x.shape)
    for i in reversed(range(k)):
        vector = vectors[..., i, None]
        q = q - factors[..., None, None, i] * vector * (vector.mT @ q)
    signs = jax.lax.stop_gradient(jnp.trunc(jnp.diagonal(x, axis1=-2, axis2=-1)))
    return q * signs[..., None, :]


def _reflectors(q: jax.Array) -> jax.Array:
    """What `_reflected` gives the orthogonal factor of q of; above the diagonal stands R's."""
    k = q.shape[-1]
    columns = []
    for i in range(k):
        column = q[..., i]
        rest = jnp.where(jnp.arange(q.shape[-2]) > i, column, 0)
        below = jnp.sum(rest * rest, axis=-1, keepdims=True)
        head = column[..., i, None]
        norm = jnp.sqrt(head * head + below)
        beta = -jnp.where(head < 0, -norm, norm)
        none = below == 0  # nothing to reflect: the column's sign is turned in its place
        vector = jnp.where(none, 0, rest / jnp.where(none, 1, head - beta))
        unit = vector.at[..., i].set(1)
        factor = jnp.where(none, 0, (beta - head) / jnp.where(none, 1, beta))
        moved = factor[..., None] * unit[..., :, None] * (unit[..., None, :] @ q)
        q = q - moved
        sign = jnp.where(none, -jnp.sign(head), jnp.sign(beta))
        columns.append(vector.at[..., i].set(sign[..., 0]))
    return jnp.stack(columns, axis=-1) + jnp.triu(q, 1)
