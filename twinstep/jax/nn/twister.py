"""The Mersenne Twister in JAX, and what PyTorch makes of its words: they are known in no trace.

A state is (625,) uint32: 624 words and how many of them are used.
"""

import jax
import jax.numpy as jnp
import numpy as np

_N = 624
_UPPER, _LOWER = np.uint32(0x80000000), np.uint32(0x7FFFFFFF)


def draw(state: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """(count,) words, and the state after them."""
    if not count:
        return jnp.zeros(0, jnp.uint32), state
    words = _words(state, count)
    drawn = jax.lax.dynamic_slice(words.reshape(-1), (state[_N],), (count,))
    return _tempered(drawn), _state(words, state[_N] + np.uint32(count))


def moved(state: jax.Array, count: jax.Array, most: int) -> jax.Array:
    """The state behind a number of words that is known in a run only, and is at most `most`."""
    words = _words(state, most)
    return jnp.where(count > 0, _state(words, state[_N] + count.astype(jnp.uint32)), state)


def _words(state: jax.Array, count: int) -> jax.Array:
    """(blocks, 624): the words of the state, and those that come after them."""

    def step(words: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        words = _twisted(words)
        return words, words

    _, more = jax.lax.scan(step, state[:_N], None, length=-(-count // _N))
    return jnp.concatenate([state[None, :_N], more])


def _state(words: jax.Array, position: jax.Array) -> jax.Array:
    """Blocks of words, of which so many are used, as a state: a used up block is kept, as NumPy's.

    position: 1 or more
    """
    block = (position - 1) // np.uint32(_N)
    return jnp.concatenate([words[block], (position - block * np.uint32(_N))[None]])


def _twisted(w: jax.Array) -> jax.Array:
    """The next 624 words; the later ones are made of the first ones of the same block."""

    def mixed(now: jax.Array, after: jax.Array, far: jax.Array) -> jax.Array:
        y = (now & _UPPER) | (after & _LOWER)
        return far ^ (y >> 1) ^ jnp.where(y & 1, np.uint32(0x9908B0DF), np.uint32(0))

    first = mixed(w[:227], w[1:228], w[397:])
    second = mixed(w[227:454], w[228:455], first)
    third = mixed(w[454:623], w[455:], second[:169])
    last = mixed(w[623:], first[:1], second[169:170])
    return jnp.concatenate([first, second, third, last])


def _tempered(y: jax.Array) -> jax.Array:
    y = y ^ (y >> 11)
    y = y ^ ((y << 7) & np.uint32(0x9D2C5680))
    y = y ^ ((y << 15) & np.uint32(0xEFC60000))
    return y ^ (y >> 18)


def uniforms(words: jax.Array, dtype: str) -> jax.Array:
    """Multiples of 2**-24 from a word each, in float64 of 2**-53 from two."""
    if dtype == "float32":
        return (words & np.uint32(2**24 - 1)).astype(dtype) * np.float32(2.0**-24)
    high, low = words[::2] & np.uint32(2**21 - 1), words[1::2]
    wide = jnp.zeros(0).dtype  # float32 without x64: rounded
    return high.astype(wide) * 2.0**-21 + low.astype(wide) * 2.0**-53


def box_muller(uniforms: jax.Array) -> jax.Array:
    """Normals from as many uniforms, in blocks of 16: eight cosines, then eight sines."""
    blocks = uniforms.reshape(-1, 2, 8)
    radius, angle = jnp.sqrt(-2 * jnp.log(1 - blocks[:, 0])), 2 * np.pi * blocks[:, 1]
    return jnp.stack([radius * jnp.cos(angle), radius * jnp.sin(angle)], 1).reshape(-1)


def pairs(uniforms: jax.Array) -> jax.Array:
    """Normals from as many uniforms, in pairs: a cosine, a sine."""
    u1, u2 = uniforms[::2], uniforms[1::2]
    radius, angle = jnp.sqrt(-2 * jnp.log1p(-u2)), 2 * np.pi * u1
    return jnp.stack([radius * jnp.cos(angle), radius * jnp.sin(angle)], 1).reshape(-1)
