"""What a step's state carries beside parameters and the optimizer's state.

An example may keep gradients, in a tree like the parameters; and of its model, as an nnx.State,
what is no parameter: the rest, which is buffers and the words of a generator.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from twinstep.jax.nn.generator import GeneratorState, rng_states, words_of
from twinstep.jax.nn.weights import entries
from twinstep.problems.torch_random import TorchGenerator

State = tuple[Any, ...]
Rest = nnx.State[Any, Any]


def kept(state: State) -> list[Any]:
    """The gradients that an example's step keeps."""
    return [part for part in state[2:] if not isinstance(part, nnx.State)]


def rest(state: State) -> Rest | None:
    """What a model has beside its parameters; None: it has nothing, or a step does not carry it."""
    found = [part for part in state[2:] if isinstance(part, nnx.State)]
    return found[0] if found else None


def with_rest(state: State, changed: Rest | None) -> State:
    """The state with another rest."""
    return tuple(changed if isinstance(part, nnx.State) else part for part in state)


class RestLayout:
    """Where a model's buffers and the generator's words lie in its rest."""

    def __init__(self, model: nnx.Module) -> None:
        self._model = model

    @cached_property
    def _names(self) -> dict[tuple[str, ...], str]:
        """{path: the buffer's name}"""
        found = entries(self._model).items()
        return {
            tuple(map(str, entry.path)): name
            for name, entry in found
            if isinstance(entry.variable, nnx.BatchStat)
        }

    def buffers(self, rest: Rest | None) -> dict[str, Any]:
        """{PyTorch's name: array}"""
        flat = {} if rest is None else dict(nnx.to_flat_state(rest))
        named = {self._names.get(tuple(map(str, path))): leaf for path, leaf in flat.items()}
        return {name: leaf[...] for name, leaf in named.items() if name is not None}

    def words(self, rest: Rest | None) -> Any:
        """(628,) what the generator holds; None where no layer draws."""
        leaves = [] if rest is None else [leaf for _, leaf in nnx.to_flat_state(rest)]
        words = [leaf[...] for leaf in leaves if isinstance(leaf, GeneratorState)]
        return words[0] if words else None

    def like(self, rest: Rest, buffers: Mapping[str, Any], words: Any = None) -> Rest:
        """The rest with these buffers; words: and these of the generator, if any are given."""
        flat = []
        for path, leaf in nnx.to_flat_state(rest):
            name = self._names.get(tuple(map(str, path)), "")
            if name in buffers:
                leaf = leaf.replace(jnp.asarray(buffers[name], leaf[...].dtype))
            elif words is not None and isinstance(leaf, GeneratorState):
                leaf = leaf.replace(words)
            flat.append((path, leaf))
        return nnx.from_flat_state(flat)


def start_words(generator: TorchGenerator) -> Any:
    """(628,) of a generator."""
    return words_of(generator.get_state()[None])[0]


def drawn(words: Any, seed: int) -> dict[str, np.ndarray]:
    """{"torch": (T, 5056)}, PyTorch's state before each step, where all steps draw.

    words: (T + 1, 628), before the first step and after each
    """
    if words is None or not np.any(words[1:] != words[:-1], axis=1).all():
        return {}
    return {"torch": rng_states(words[:-1], seed)}


def in_torch_dtypes(buffers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Buffers as PyTorch has them: what it counts in 64 bits, JAX may hold in 32."""
    return {
        name: array.astype(np.int64) if array.dtype.kind == "i" else array
        for name, array in buffers.items()
    }
