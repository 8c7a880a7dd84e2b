"""Numbers of a leaf's own dtype, rounded as often as PyTorch rounds them.

PyTorch's CPU kernels compute bfloat16 and float16 in float32 and round each result. A scalar of
JAX's takes an array's dtype before it is used (0.999 is 1 in bfloat16), and XLA may leave out the
rounding between two operations.
"""

from typing import Any

import jax
import jax.numpy as jnp


def wide(x: jax.Array) -> jax.Array:
    """In the dtype that PyTorch computes it in: float32 for what is narrower."""
    return x.astype(jnp.float32) if is_narrow(x.dtype) else x


def is_narrow(dtype: Any) -> bool:
    """Whether it is bfloat16 or float16."""
    return dtype in (jnp.bfloat16, jnp.float16)


def rounded(x: jax.Array, dtype: Any) -> jax.Array:
    """A result in a dtype, rounded for good; an integer is cut, and wraps round, as PyTorch's."""
    if jnp.issubdtype(dtype, jnp.integer) and jnp.issubdtype(x.dtype, jnp.floating):
        x = x.astype(int)
    return (nearest(x.astype(jnp.float32), dtype) if is_narrow(dtype) else x).astype(dtype)


def nearest(x: jax.Array, dtype: Any) -> jax.Array:
    """The nearest values of a narrow dtype, in float32 still."""
    if dtype == jnp.bfloat16:
        return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)
    normal = jax.lax.reduce_precision(x, exponent_bits=5, mantissa_bits=10)
    # which makes 0 of what is below the least normal number
    return jnp.where(jnp.abs(x) < 2.0**-14, jnp.rint(x * 2.0**24) * 2.0**-24, normal)


def times(x: jax.Array, number: Any) -> jax.Array:
    """A product with a real number, rounded no earlier than PyTorch's and before it is added.

    XLA fuses a product and a sum, which rounds once where PyTorch rounds twice: so it is not to
    know that it is the product which is added. An integer's is of the widest float.
    """
    if jnp.iscomplexobj(x):
        return jax.lax.complex(times(x.real, number), times(x.imag, number))
    if not jnp.issubdtype(x.dtype, jnp.floating):
        product = x.astype(float) * number
        return jnp.where(abs(product) > 2.0**100, 0, product)  # which it never is
    product = wide(x) * jnp.asarray(number, wide(x).dtype)
    return rounded(jnp.where(jnp.isnan(x), x, product), x.dtype)


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
