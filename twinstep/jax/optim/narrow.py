"""Numbers of a leaf's own dtype, rounded as often as PyTorch rounds them.

PyTorch's CPU kernels compute bfloat16 and float16 in float32 and round each result. A scalar of
JAX's takes an array's dtype before it is used (0.999 is 1 in bfloat16), and XLA may leave out the
rounding between two operations.
"""

from typing import Any

import jax
import jax.numpy as jnp

from twinstep.errors import InputError
from twinstep.jax.trees import by_path, dotted, paired

_BITS = {"bfloat16": (8, 7), "float16": (5, 10)}  # of exponent and mantissa


def wide(x: jax.Array) -> jax.Array:
    """In the dtype that PyTorch computes it in: float32 for what is narrower."""
    return x.astype(jnp.float32) if is_narrow(x.dtype) else x


def is_narrow(dtype: Any) -> bool:
    """Whether it is bfloat16 or float16."""
    return dtype in (jnp.bfloat16, jnp.float16)


def rounded(x: jax.Array, dtype: Any) -> jax.Array:
    """A result in a dtype, rounded for good."""
    if is_narrow(dtype):
        exponent, mantissa = _BITS[str(dtype)]
        x = jax.lax.reduce_precision(x.astype(jnp.float32), exponent, mantissa)
    return x.astype(dtype)


def times(x: jax.Array, number: Any) -> jax.Array:
    """A product with a real number, which is rounded no earlier than PyTorch's is."""
    return rounded(wide(x) * jnp.asarray(number, wide(x).real.dtype), x.dtype)


def divided(x: jax.Array, number: Any) -> jax.Array:
    """A quotient of a real number, rounded once; of a complex one the product with 1 / number.

    XLA multiplies by 1 / number wherever one divides all of an array: so it is not to know.
    """
    if jnp.iscomplexobj(x):
        inverse = 1 / jnp.asarray(number, x.real.dtype)
        return jax.lax.complex(x.real * inverse, x.imag * inverse)
    above = wide(x)
    return rounded(
        above / jnp.where(jnp.isnan(above), 1, jnp.asarray(number, above.dtype)), x.dtype
    )


def leaves_like(like: Any, tree: Any, what: str) -> list[jax.Array]:
    """The leaves of a tree in the order of those of `like`, each of the same shape.

    what: what tree is, for the InputError that names the leaf that differs
    """
    leaves = [jnp.asarray(leaf) for leaf in paired(like, tree, what)]
    for (path, wanted), leaf in zip(by_path(like).items(), leaves, strict=True):
        if leaf.shape != jnp.shape(wanted):
            raise InputError(
                f"{what}: {dotted(path)!r} has shape {leaf.shape}, expected {jnp.shape(wanted)}"
            )
    return leaves
