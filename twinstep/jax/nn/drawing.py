"""What layers and functions draw from: PyTorch's generator, or JAX's keys."""

import weakref
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
from flax import nnx

from twinstep.errors import InputError
from twinstep.jax.nn.generator import Generator, dtype_name, is_known
from twinstep.problems.torch_random import TorchGenerator

__all__ = [
    "Drawing",
    "Keyed",
    "default_generator",
    "drawing",
    "drawing_for",
    "manual_seed",
]


class Keyed(nnx.Pytree):
    """The same distributions from JAX's keys: the methods of `Generator` that layers draw with.

    Args:
        stream: What gives a key a call: a stream of an nnx.Rngs.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def rand(self, *shape: int, dtype: Any = None) -> jax.Array:
        """As Generator's."""
        return jax.random.uniform(self.stream(), shape, dtype_name(dtype))

    def uniform(
        self, shape: Sequence[int], low: float, high: float, dtype: Any = None
    ) -> jax.Array:
        """As Generator's."""
        return jax.random.uniform(self.stream(), tuple(shape), dtype_name(dtype), low, high)

    def randn(self, *shape: int, dtype: Any = None) -> jax.Array:
        """As Generator's."""
        return jax.random.normal(self.stream(), shape, dtype_name(dtype))

    def normal(self, shape: Sequence[int], mean: float, std: float, dtype: Any = None) -> jax.Array:
        """As Generator's."""
        return jax.random.normal(self.stream(), tuple(shape), dtype_name(dtype)) * std + mean

    def exponential(self, shape: Sequence[int], dtype: Any = None) -> jax.Array:
        """As Generator's."""
        return jax.random.exponential(self.stream(), tuple(shape), dtype_name(dtype))

    def bernoulli(self, shape: Sequence[int], p: float, dtype: Any = None) -> jax.Array:
        """As Generator's."""
        return jax.random.bernoulli(self.stream(), p, tuple(shape)).astype(dtype_name(dtype))

    def uniform_at(self, places: jax.Array, low: float, high: float) -> jax.Array:
        """As Generator's."""
        return jax.random.uniform(self.stream(), places.shape, None, low, high)

    def randint(self, low: int, high: int, shape: Sequence[int]) -> jax.Array:
        """As Generator's."""
        return jax.random.randint(self.stream(), tuple(shape), low, high)

    def randperm(self, n: int) -> jax.Array:
        """As TorchGenerator's."""
        return jax.random.permutation(self.stream(), n)


Drawing: TypeAlias = Generator | Keyed
"""What a layer draws from."""


_HELD: "weakref.WeakKeyDictionary[TorchGenerator, Generator]" = weakref.WeakKeyDictionary()
_DEFAULT: list[Generator] = []


def default_generator() -> Generator:
    """What layers and functions draw from that are given neither a generator nor keys.

    Returns:
        The same generator in every call; `manual_seed` starts it anew.

    Example:
        >>> from twinstep.jax.nn import default_generator, manual_seed
        >>> manual_seed(0)
        >>> default_generator().rand(1)
        Array([0.4962566], dtype=float32)

    Source: https://docs.pytorch.org/docs/stable/random.html
    """
    if not _DEFAULT:
        _DEFAULT.append(Generator())
    return _DEFAULT[0]


def manual_seed(seed: int) -> None:
    """Starts the default generator anew, as `torch.manual_seed(seed)` does.

    Args:
        seed: -2**63 to 2**64 - 1, of which the low 32 bits count.

    Raises:
        InputError: For any other seed.

    Example:
        >>> from twinstep.jax.nn import Linear, manual_seed
        >>> manual_seed(0)
        >>> [round(float(w), 4) for w in Linear(1, 2).weight[:, 0]]  # torch.nn.Linear(1, 2)'s
        [-0.0075, 0.5364]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.manual_seed.html
    """
    default_generator().manual_seed(seed)


def drawing(
    generator: Any = None, rngs: Any = None, stream: str = "params", *, key: Any = None
) -> Drawing:
    """What is drawn from, of what was given.

    generator: a TorchGenerator or a Generator. In its place rngs: nnx.Rngs, or a stream of it;
    or key: one of JAX's, for a single call.
    """
    if sum(given is not None for given in (generator, rngs, key)) > 1:
        raise InputError("generator, rngs and key: more than one is given, expected one of them")
    if rngs is not None:
        return Keyed(rngs[stream].fork() if isinstance(rngs, nnx.Rngs) else rngs)
    if key is not None:
        return Keyed(lambda: key)
    if generator is None:
        return default_generator()
    if isinstance(generator, Generator | Keyed):
        return generator
    if not isinstance(generator, TorchGenerator):
        raise InputError(f"generator is {generator!r}, expected a TorchGenerator or a Generator")
    if generator not in _HELD:
        _HELD[generator] = Generator(generator)
    return _HELD[generator]


def drawing_for(what: str, input: jax.Array, generator: Any, key: Any) -> Drawing:
    """What a function draws from, that is called with an input.

    Numbers that are drawn while the function is traced would stand in what is compiled.
    """
    draws = drawing(generator, key=key)
    if isinstance(draws, Generator) and draws.is_known and not is_known(input):
        raise InputError(
            f"{what}: input is that of a function that is traced and the generator is none of its "
            "arguments, so each call would draw the same; pass generator= of the module or key="
        )
    return draws
