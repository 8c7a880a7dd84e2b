"""PyTorch's random numbers where they are drawn in a compiled step: the words are in the state.

A `TorchGenerator` draws in NumPy. A layer that draws while it is called, as dropout does, keeps the
624 words of its generator as an array of the module's state, so that they are twisted in JAX, under
jit and scan too. Whoever was given the same TorchGenerator shares them, and so does it itself.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from twinstep.errors import InputError
from twinstep.jax.nn import twister
from twinstep.problems.torch_random import TorchGenerator

_SEED = 67280421310721  # that of a PyTorch process that was given none
_KEPT, _SINE, _SIZE = 625, slice(626, 628), 628  # behind the words and the position


class GeneratorState(nnx.RngState):
    """The state of a generator: 624 words, the position, whether a sine is kept, its 64 bits."""


class Generator(nnx.Pytree):
    """PyTorch's CPU generator as a part of a module's state.

    In a compiled step it draws from there, elsewhere in NumPy. Its methods are `TorchGenerator`'s.

    Args:
        source: A seed, or the TorchGenerator whose state it holds from now on: what one draws, the
            other has drawn.

    Raises:
        InputError: For a seed that is none.

    Example:
        >>> import jax
        >>> from flax import nnx
        >>> from twinstep.jax.nn import Generator
        >>> generator = Generator(0)  # torch.manual_seed(0)
        >>> nnx.jit(lambda generator: generator.rand(2))(generator)  # torch.rand(2)
        Array([0.4962566, 0.7682218], dtype=float32)
        >>> generator.rand(1)
        Array([0.08847743], dtype=float32)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.Generator.html
    """

    def __init__(self, source: TorchGenerator | int = _SEED) -> None:
        given = TorchGenerator(source) if isinstance(source, int) else source
        empty: Any = np.zeros(_SIZE, np.uint32)
        self.state = GeneratorState(empty)
        held = _HeldTwister(self.state)
        held.set_state(given._twister.get_state(legacy=True))
        given._twister = held

    def __deepcopy__(self, memo: Any = None) -> "Generator":
        return self  # a copy of a layer draws from where the layer does

    def manual_seed(self, seed: int) -> None:
        """Starts anew, as `torch.manual_seed(seed)` does.

        Args:
            seed: -2**63 to 2**64 - 1, of which the low 32 bits count.

        Raises:
            InputError: For any other seed.
        """
        _HeldTwister(self.state).set_state(TorchGenerator(seed)._twister.get_state(legacy=True))

    @property
    def is_known(self) -> bool:
        """Whether it draws in NumPy: not so in a compiled function whose argument it is."""
        return not isinstance(self.state[...], jax.core.Tracer)

    @property
    def _host(self) -> TorchGenerator | None:
        """What draws in NumPy; None in a compiled function, where the words are not known."""
        if not self.is_known:
            return None
        host = TorchGenerator(0)
        host._twister = _HeldTwister(self.state)
        return host

    def _words(self, count: int) -> jax.Array:
        """(count,) words, in a compiled function."""
        state = self.state[...]
        words, after = twister.draw(state[:625], count)
        self.state[...] = jnp.concatenate([after, state[625:]])
        return words

    def rand(self, *shape: int, dtype: Any = None) -> jax.Array:
        """Uniform numbers from 0 to below 1.

        Args:
            shape: The sizes.
            dtype: float32 or float64; None: the default.

        Returns:
            The numbers, of that shape.
        """
        kind = dtype_name(dtype)
        if host := self._host:
            return jnp.asarray(host.rand(*shape, dtype=kind))
        count = math.prod(shape)
        return twister.uniforms(self._words(_words_for(count, kind)), kind).reshape(shape)

    def uniform(
        self, shape: Sequence[int], low: float, high: float, dtype: Any = None
    ) -> jax.Array:
        """What `tensor.uniform_(low, high)` fills a tensor with.

        Args:
            shape: The sizes.
            low, high: The bounds.
            dtype: float32 or float64; None: the default.

        Returns:
            The numbers, of that shape.
        """
        if host := self._host:
            return jnp.asarray(host.uniform(shape, low, high, dtype_name(dtype)))
        return self.rand(*shape, dtype=dtype) * (high - low) + low

    def randn(self, *shape: int, dtype: Any = None) -> jax.Array:
        """Numbers of the standard normal distribution.

        Args:
            shape: The sizes.
            dtype: float32 or float64; None: the default.

        Returns:
            The numbers, of that shape.

        Raises:
            InputError: In a compiled function without x64, for less than 16 numbers, which PyTorch
                computes in float64.
        """
        kind = dtype_name(dtype)
        if host := self._host:
            return jnp.asarray(host.randn(*shape, dtype=kind))
        count = math.prod(shape)
        if count < 16:
            return self._few_normals(count).astype(kind).reshape(shape)
        uniforms = twister.uniforms(self._words(_words_for(count, kind)), kind)
        values = twister.box_muller(uniforms[: count - count % 16])
        if count % 16:  # the last 16 values are drawn anew
            last = twister.box_muller(twister.uniforms(self._words(_words_for(16, kind)), kind))
            values = jnp.concatenate([values[: count - 16], last])
        return values.reshape(shape)

    def _few_normals(self, count: int) -> jax.Array:
        """Pairs of normals by Box-Muller; the sine of an odd count's last pair is kept."""
        if dtype_name(None) != "float64":
            raise InputError(
                f"Generator.randn: {count} numbers in a compiled function, expected 16 or more, or "
                "JAX_ENABLE_X64: fewer are computed in float64"
            )
        state = self.state[...]
        kept, pairs = state[_KEPT].astype(int), (count + 1) // 2
        words, _ = twister.draw(state[:625], 4 * pairs)
        drawn = twister.pairs(twister.uniforms(words, "float64"))  # cosine, sine, cosine, ...
        sine = jax.lax.bitcast_convert_type(state[_SINE], jnp.float64)
        values = jnp.where(kept, jnp.concatenate([sine[None], drawn])[:count], drawn[:count])
        fresh = count - kept  # so many are from new pairs
        used = (fresh + 1) // 2
        after = twister.moved(state[:625], 4 * used, 4 * pairs)
        left = jax.lax.bitcast_convert_type(
            drawn[jnp.clip(fresh, 0, 2 * pairs - 1)] if count else sine, jnp.uint32
        )
        odd = (fresh % 2).astype(jnp.uint32)
        self.state[...] = jnp.concatenate([after, odd[None], left])
        return values

    def normal(self, shape: Sequence[int], mean: float, std: float, dtype: Any = None) -> jax.Array:
        """What `tensor.normal_(mean, std)` fills a tensor with.

        Args:
            shape: The sizes.
            mean, std: Of the distribution.
            dtype: float32 or float64; None: the default.

        Returns:
            The numbers, of that shape.
        """
        if host := self._host:
            return jnp.asarray(host.normal(shape, mean, std, dtype_name(dtype)))
        return self.randn(*shape, dtype=dtype) * std + mean

    def exponential(self, shape: Sequence[int], dtype: Any = None) -> jax.Array:
        """What `tensor.exponential_()` fills a tensor with.

        Args:
            shape: The sizes.
            dtype: float32 or float64; None: the default.

        Returns:
            The numbers, of that shape.
        """
        if host := self._host:
            return jnp.asarray(host.exponential(shape, dtype=dtype_name(dtype)))
        uniforms = twister.uniforms(self._words(2 * math.prod(shape)), "float64")
        return -jnp.log1p(-uniforms).reshape(shape).astype(dtype_name(dtype))

    def bernoulli(self, shape: Sequence[int], p: float, dtype: Any = None) -> jax.Array:
        """What `tensor.bernoulli_(p)` fills a tensor with: 1 with that probability, else 0.

        Args:
            shape: The sizes.
            p: From 0 to 1.
            dtype: Of what it gives; None: the default.

        Returns:
            Ones and zeros, of that shape.
        """
        if host := self._host:
            return jnp.asarray(host.bernoulli(shape, p), dtype_name(dtype))
        words = self._words(2 * math.prod(shape)).reshape(-1, 2)
        # a uniform is 53 bits of two words: compared as such, no float64 is needed
        bound = math.ceil(Fraction(p) * 2**53)
        high, low = words[:, 0] & np.uint32(2**21 - 1), words[:, 1]
        top, rest = np.uint32(bound >> 32), np.uint32(bound & 0xFFFFFFFF)
        below = (high < top) | ((high == top) & (low < rest))
        return below.astype(dtype_name(dtype)).reshape(shape)

    def uniform_at(self, places: jax.Array, low: float, high: float) -> jax.Array:
        """A float64 uniform for each place that is True, in their order: so rrelu draws.

        Args:
            places: Bools, of any shape.
            low, high: The bounds.

        Returns:
            Numbers of the default dtype, of the places' shape; any number where they are False.
        """
        if (host := self._host) and is_known(places):
            where = np.asarray(known(places))
            found = np.ones(where.shape)
            found[where] = host.uniform((int(where.sum()),), low, high, "float64")
            return jnp.asarray(found, dtype_name(None))
        flat, state = places.reshape(-1), self.state[...]
        words, _ = twister.draw(state[:625], 2 * flat.size)
        drawn = twister.uniforms(words, "float64") * (high - low) + low
        after = twister.moved(state[:625], 2 * jnp.sum(flat), 2 * flat.size)
        self.state[...] = jnp.concatenate([after, state[625:]])
        order = jnp.maximum(jnp.cumsum(flat) - 1, 0)
        return drawn[order].reshape(places.shape) if flat.size else drawn.reshape(places.shape)

    def randint(self, low: int, high: int, shape: Sequence[int]) -> jax.Array:
        """What `torch.randint(low, high, shape)` gives.

        Args:
            low, high: The lowest, and one above the highest; in a compiled function less than
                2**28 apart.
            shape: The sizes.

        Returns:
            Integers, of that shape.

        Raises:
            InputError: For other bounds.
        """
        if host := self._host:
            return jnp.asarray(host.randint(low, high, shape))
        if not 0 < high - low < 2**28:
            raise InputError(f"Generator.randint: {low} to {high}, expected up to 2**28 numbers")
        words = self._words(math.prod(shape)) % np.uint32(high - low)
        return words.astype(int).reshape(shape) + low

    def randperm(self, n: int) -> jax.Array:
        """What `torch.randperm(n)` gives.

        Args:
            n: How many.

        Returns:
            The integers below n, (n,).

        Raises:
            InputError: In a compiled function.
        """
        if host := self._host:
            return jnp.asarray(host.randperm(n))
        raise InputError(
            f"Generator.randperm: {n} in a compiled function, expected a call outside of it"
        )


class _HeldTwister:
    """What a TorchGenerator draws words from, once a module's state holds them."""

    def __init__(self, state: GeneratorState) -> None:
        self._state = state

    def get_state(self, legacy: bool = True) -> tuple[str, NDArray[np.uint32], int, int, float]:
        """NumPy's, of a RandomState."""
        value = self._state[...]
        if isinstance(value, jax.core.Tracer):
            raise InputError(
                "TorchGenerator: it draws in NumPy, and its words are those of a compiled "
                "function; expected a layer's own generator there, or a key"
            )
        return _unpacked(np.asarray(value))

    def set_state(self, state: Any) -> None:
        """NumPy's, of a RandomState."""
        value: Any = np.empty(_SIZE, np.uint32)
        _fill(value, state)
        # [...] would write into an array that others hold; and Flax lets a Variable be set only in
        # the trace that made it, while what NumPy draws has no part in one, as in jax.grad's
        object.__setattr__(self._state, "_raw_value", value)

    def randint(self, low: int, high: int, size: int, dtype: Any) -> NDArray[Any]:
        """NumPy's, of a RandomState."""
        twister = np.random.RandomState()
        twister.set_state(self.get_state())
        drawn = twister.randint(low, high, size, dtype)
        self.set_state(twister.get_state(legacy=True))
        return drawn


def is_known(array: Any) -> bool:
    """Whether an array's numbers are known: not so in a compiled function and under vmap."""
    return known(array) is not None


def known(array: Any) -> Any:
    """An array without what derives it, or None where its numbers are not known."""
    return array.to_concrete_value() if isinstance(array, jax.core.Tracer) else array


def dtype_name(dtype: Any) -> str:
    """A dtype's name; the default one's is float64 under x64, else float32."""
    return str(jnp.zeros(0).dtype if dtype is None else jnp.dtype(dtype).name)


def _words_for(count: int, kind: str) -> int:
    return 2 * count if kind == "float64" else count


def words_of(states: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """(T, 628) what a generator's state holds, of T states of PyTorch's, (T, 5056)."""
    words = np.empty((len(states), _SIZE), np.uint32)
    for row, state in zip(words, states, strict=True):
        generator = TorchGenerator(0)
        generator.set_state(state)
        _fill(row, generator._twister.get_state(legacy=True))
    return words


def rng_states(words: NDArray[np.uint32], seed: int) -> NDArray[np.uint8]:
    """The way back: PyTorch's states, (T, 5056), of a generator that was given that seed."""
    generator = TorchGenerator(seed)
    states = []
    for row in np.asarray(words):
        generator._twister.set_state(_unpacked(row))
        states.append(generator.get_state())
    return np.stack(states)


def _fill(row: NDArray[np.uint32], state: Any) -> None:
    """NumPy's state, of a RandomState, as one array."""
    _, words, position, kept, sine = state
    row[:624], row[624], row[_KEPT] = words, position, kept
    row[_SINE] = np.array([sine], np.float64).view(np.uint32)


def _unpacked(row: NDArray[np.uint32]) -> tuple[str, NDArray[np.uint32], int, int, float]:
    sine = float(np.ascontiguousarray(row[_SINE]).view(np.float64)[0])
    return "MT19937", row[:624], int(row[624]), int(row[_KEPT]), sine
