"""A problem's samples as JAX arrays, the batches taken of them, and what tells those apart."""

import jax
import jax.numpy as jnp

from twinstep.problems.base import Spec
from twinstep.trace.fingerprint import PLACE, mixed

Data = dict[str, jax.Array]


def to_device(spec: Spec) -> Data:
    """The spec's samples as JAX arrays."""
    return {name: jnp.asarray(array) for name, array in spec.batches().data.items()}


def take(data: Data, index: jax.Array) -> Data:
    """The samples that an update trains on. index: (batch size,)"""
    return {name: array[index] for name, array in data.items()}


def fingerprints(batch: Data) -> dict[str, jax.Array]:
    """{name: () uint32}, as `twinstep.trace.fingerprint` has it of NumPy's arrays."""

    def one(array: jax.Array) -> jax.Array:
        if jnp.issubdtype(array.dtype, jnp.floating):
            words = jax.lax.bitcast_convert_type(array, jnp.uint32).reshape(-1)
        else:
            words = array.astype(jnp.uint32).reshape(-1)
        place = jax.lax.iota(jnp.uint32, len(words)) * jnp.uint32(PLACE)
        return jnp.sum(mixed(words + place), dtype=jnp.uint32)

    return {name: one(array) for name, array in batch.items()}
