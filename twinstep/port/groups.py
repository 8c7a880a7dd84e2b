"""Which of a port's entries have one norm: those of a leaf of its own, or of a unit in one.

A leaf of PyTorch's may be several of the port's, such as queries, keys and values, and the other
way round; what a rule of optax's does by leaf or unit, it does by the port's.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from twinstep.port.sides import Side
from twinstep.trace.leaves import ReadLeaves
from twinstep.trace.ledger import Leaves

SCOPES = "leaf", "unit"


def numbered(shapes: Mapping[str, Sequence[int]]) -> dict[str, Leaves]:
    """{scope: {leaf: the number of each entry's group}}, of leaves of these shapes."""
    found: dict[str, Leaves] = {}
    for scope in SCOPES:
        readers, count = {}, 0
        for name, shape in shapes.items():
            summed = [*range(len(shape))] if scope == "leaf" else unit_axes(shape)
            readers[name] = partial(_numbers, tuple(shape), tuple(summed), count)
            count += int(np.prod([n for axis, n in enumerate(shape) if axis not in summed]))
        found[scope] = ReadLeaves(readers)
    return found


def unit_axes(shape: Sequence[int]) -> list[int]:
    """The axes over which `optax.adaptive_grad_clip` takes a norm."""
    count = len(shape)
    if sum(n != 1 for n in shape) <= 1 or count > 5:
        return [*range(count)]
    return [0] if count <= 3 else [*range(count - 1)]


def groups_of(jax: Side, leaves: Sequence[str]) -> dict[str, Leaves]:
    """{scope: {PyTorch's leaf: the number of each entry's group in the port}}."""
    own = dict.fromkeys(name for leaf in leaves for name in jax.own(leaf))
    if jax.mapping is None:
        return numbered({name: jax.trace.params[name].shape[1:] for name in own})
    found = numbered({name: jax.mapping.shapes[name] for name in own})
    return {
        scope: ReadLeaves({leaf: partial(_laid_out, jax, leaf, numbers) for leaf in leaves})
        for scope, numbers in found.items()
    }


def _laid_out(jax: Side, leaf: str, numbers: Leaves) -> np.ndarray:
    return jax.laid_out(leaf, {name: numbers[name] for name in jax.own(leaf)})


def _numbers(shape: tuple[int, ...], summed: tuple[int, ...], first: int) -> np.ndarray:
    kept = tuple(1 if axis in summed else n for axis, n in enumerate(shape))
    numbers = first + np.arange(int(np.prod(kept)), dtype=np.int32).reshape(kept)
    return np.broadcast_to(numbers, shape)
