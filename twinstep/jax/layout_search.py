"""Which one change of how a port's start is laid out brings its first loss back to PyTorch's.

A wrong order of axes, gates or flattened channels leaves every shape as it is, and trains; in every
layer alike it is odd in none. The loss alone tells: it is computed from each changed start.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from twinstep.errors import InputError
from twinstep.jax.trees import by_name
from twinstep.judge import tolerance
from twinstep.trace import dtypes

Tree = Any
Leaves = dict[str, np.ndarray]
Change = Callable[[np.ndarray], np.ndarray | None]
"""Of a leaf, another of its shape; None where it has none."""

_MAX_AXES = 5
_SIBLINGS = 4
BUDGET = 600
"""Evaluations of the loss."""


@dataclass(frozen=True)
class Repair:
    """A change of the start after which the first loss is PyTorch's.

    Attributes:
        says: What was changed, in words.
        leaves: The leaves that it changes, by their paths with dots.
        loss: The loss then.
        params: The start then.
    """

    says: str
    leaves: tuple[str, ...]
    loss: float
    params: Tree


@dataclass(frozen=True)
class _Move:
    """says: what is done to some leaves; of: their new arrays"""

    says: str
    of: Leaves


def repairs(
    loss_fn: Callable[[Tree, Any], Any],
    params: Tree,
    batch: Any,
    loss: float,
    *,
    later: Sequence[tuple[Tree, Any, float]] = (),
    budget: int = BUDGET,
) -> list[Repair]:
    """Tries one change at a time, of a leaf and of all of its kind, by the first loss.

    Axes in other orders, conv kernels flipped, gates and fused parts in other orders, flattened
    channels first or last, heads split otherwise, leaves and layers of one shape exchanged.

    Args:
        loss_fn: Of parameters and a batch: the loss, or a tuple that begins with it. It is compiled
            once, so it has to be a function that `jax.jit` takes, without random numbers.
        params: The start, a tree of arrays.
        batch: What PyTorch's first loss was computed on.
        loss: PyTorch's first loss.
        later: Parameters, batch and loss of further steps, which the same change has to explain: of
            hundreds that are tried one may meet a loss by chance.
        budget: How often the loss may be computed.

    Returns:
        The changes that bring it back within rounding, the plainest first; none where the loss is
        right already, or no single change does.

    Raises:
        InputError: For a loss that is no finite number.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from twinstep.jax.layout_search import repairs
        >>> right = np.arange(9.0).reshape(3, 3)
        >>> x = np.array([0.1, 0.2, 0.3])
        >>> loss = float(np.tanh(x @ right).sum())
        >>> found = repairs(lambda p, x: jnp.sum(jnp.tanh(x @ p["w"])), {"w": right.T}, x, loss)
        >>> [(repair.says, repair.leaves) for repair in found]
        [('axes in the order (1, 0)', ('w',))]
    """
    if not math.isfinite(loss):
        raise InputError(f"PyTorch's first loss is {loss}, expected a finite number")
    treedef = jax.tree.structure(params)

    @jax.jit
    def first(leaves: Sequence[Any], batch: Any) -> Any:
        found = loss_fn(jax.tree.unflatten(treedef, leaves), batch)
        return found[0] if isinstance(found, tuple) else found

    def fits(leaves: Leaves, batch: Any, loss: float) -> float | None:
        value = float(first([*leaves.values()], batch))
        allowed = tolerance.plain_bound(np.array([abs(loss)]), np.ones(1), kind)
        return value if abs(value - loss) <= allowed[0] else None

    named = _named(params)
    # NumPy's float64 is JAX's float32, where x64 is off
    of_jax = [jax.dtypes.canonicalize_dtype(array.dtype) for array in named.values()]
    kinds = [dtypes.name(kind) for kind in of_jax if tolerance.eps(dtypes.name(kind))]
    kind = max(kinds, key=tolerance.eps, default="float32")
    if fits(named, batch, loss) is not None:
        return []
    found = []
    for move in itertools.islice(_moves(named), budget):
        leaves = {**named, **move.of}
        value = fits(leaves, batch, loss)
        if value is None:
            continue
        again = (({**other, **_same(move, other)}, *rest) for other, *rest in _later(later))
        if all(fits(*given) is not None for given in again):
            tree = jax.tree.unflatten(treedef, [*leaves.values()])
            found.append(Repair(move.says, tuple(move.of), value, tree))
    return found


def _named(params: Tree) -> Leaves:
    return {name: np.asarray(leaf) for name, leaf in by_name(params).items()}


def _later(later: Sequence[tuple[Tree, Any, float]]) -> Iterator[tuple[Leaves, Any, float]]:
    return ((_named(params), batch, loss) for params, batch, loss in later)


def _same(move: _Move, named: Leaves) -> Leaves:
    """What a change makes of other values."""
    alike = (one.of for one in _moves(named) if one.says == move.says)
    return next((of for of in alike if of.keys() == move.of.keys()), {})


def _moves(named: Leaves) -> Iterator[_Move]:
    """Every change, once; the plainest first."""
    shapes = {array.shape for array in named.values()}
    known: set[int] = set()
    for move in itertools.chain(
        _by_leaf(named, _axes(shapes)),
        _layers_exchanged(named),
        _parts(named, (2, 3)),
        _by_leaf(named, _flips(shapes)),
        _by_leaf(named, _regrouped(shapes)),
        _leaves_exchanged(named),
        _parts(named, (4,)),  # many: 23 orders each
    ):
        changed = {n: a for n, a in move.of.items() if not np.array_equal(a, named[n])}
        key = hash(tuple((name, changed[name].tobytes()) for name in sorted(changed)))
        if changed and key not in known:
            known.add(key)
            yield _Move(move.says, changed)


def _by_leaf(named: Leaves, changes: Iterator[tuple[str, Change]]) -> Iterator[_Move]:
    """One change of a leaf, or of all of a kind: by their last name, their layer, or at all."""
    for says, change in changes:
        made = {name: change(array) for name, array in named.items()}
        able = {name: array for name, array in made.items() if array is not None}
        for group in _groups(list(able)):
            yield _Move(says, {name: able[name] for name in group})


def _groups(names: list[str]) -> list[list[str]]:
    """Each alone, those of a layer, those of a last name, of a layer's name, and all."""
    found = [[name] for name in names]
    for part in (_layer, _last, lambda name: _last(_layer(name)), _tail):
        by: dict[str, list[str]] = {}
        for name in names:
            by.setdefault(part(name), []).append(name)
        found += list(by.values())
    return [*found, names]


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _tail(name: str) -> str:
    """A leaf's name and its layer's, as they are in every block."""
    return ".".join(name.split(".")[-2:])


def _axes(shapes: set[tuple[int, ...]]) -> Iterator[tuple[str, Change]]:
    for count in sorted({len(shape) for shape in shapes if 2 <= len(shape) <= _MAX_AXES}):
        for axes in itertools.permutations(range(count)):
            if axes == tuple(range(count)):
                continue

            def turned(array: np.ndarray, axes: tuple[int, ...] = axes) -> np.ndarray | None:
                if array.ndim != len(axes) or array.transpose(axes).shape != array.shape:
                    return None
                return array.transpose(axes)

            yield f"axes in the order {axes}", turned


def _flips(shapes: set[tuple[int, ...]]) -> Iterator[tuple[str, Change]]:
    """Of what may be a convolution's: wherever its kernel's axes stand, first or last."""
    for count in sorted({len(shape) for shape in shapes if 3 <= len(shape) <= _MAX_AXES}):
        for axes in (tuple(range(count - 2)), tuple(range(2, count))):

            def flipped(array: np.ndarray, axes: Any = axes, count: int = count) -> Any:
                return np.flip(array, axes) if array.ndim == count else None

            yield f"flipped along axes {axes}", flipped


def _parts(named: Leaves, counts: Sequence[int]) -> Iterator[_Move]:
    """Gates, or q, k and v, in another order: where a kernel is so many times as wide as high."""
    for axis, count in itertools.product((-1, 0), counts):
        layers = {
            _layer(name)
            for name, array in named.items()
            if array.ndim == 2 and array.shape[axis] == count * array.shape[-1 - axis]
        }
        fused = {name: array for name, array in named.items() if _layer(name) in layers}
        orders = itertools.permutations(range(count))
        changes = ((_order_said(axis, o), functools.partial(_ordered, axis, o)) for o in orders)
        yield from _by_leaf(fused, changes)


def _order_said(axis: int, order: tuple[int, ...]) -> str:
    return f"parts of axis {axis} in the order {order}"


def _ordered(axis: int, order: tuple[int, ...], array: np.ndarray) -> np.ndarray | None:
    if not array.ndim or array.shape[axis] % len(order):
        return None
    parts = np.split(array, len(order), axis)
    return np.concatenate([parts[i] for i in order], axis)


def _regrouped(shapes: set[tuple[int, ...]]) -> Iterator[tuple[str, Change]]:
    """An axis that is (y, z) taken as (z, y): flattened channels first or last, heads."""
    channels = {size for shape in shapes if len(shape) > 2 for size in (shape[0], shape[-1])}
    sizes = {size for shape in shapes if len(shape) >= 2 for size in (shape[0], shape[-1])}
    factors = sorted(
        {n for size in sizes for n in range(2, size) if size % n == 0},
        key=lambda n: (not any(n == c or n * c in sizes for c in channels), n),
    )
    for y, axis in itertools.product(factors, (0, -1)):

        def regrouped(array: np.ndarray, y: int = y, axis: int = axis) -> np.ndarray | None:
            if not array.ndim or array.shape[axis] % y or array.shape[axis] in (1, y):
                return None
            first = np.moveaxis(array, axis, 0)
            view = first.reshape(y, -1, *first.shape[1:]).swapaxes(0, 1)
            return np.moveaxis(view.reshape(first.shape), 0, axis)

        yield f"axis {axis} taken as ({y}, -1) and transposed", regrouped


def _leaves_exchanged(named: Leaves) -> Iterator[_Move]:
    for one, other in itertools.combinations(named, 2):
        a, b = named[one], named[other]
        if a.shape == b.shape and a.dtype == b.dtype:
            yield _Move(f"{one} and {other} exchanged", {one: b, other: a})


def _layers_exchanged(named: Leaves) -> Iterator[_Move]:
    """Layers of one parent in each other's places, and in all such parents at once."""
    parents: dict[str, dict[str, dict[str, str]]] = {}
    for name in named:
        layer, _, last = name.rpartition(".")
        parent, _, own = layer.rpartition(".")
        parents.setdefault(parent, {}).setdefault(own, {})[last] = name
    everywhere: dict[str, Leaves] = {}
    for parent, layers in parents.items():
        for names in _alike(named, layers):
            for moved in _orders(names):
                of = {
                    layers[own][last]: named[layers[other][last]]
                    for own, other in moved
                    for last in layers[own]
                }
                of_which = ", ".join(f"{other} for {own}" for own, other in moved)
                yield _Move(f"layers of {parent or 'the network'}: {of_which}", of)
                everywhere.setdefault(of_which, {}).update(of)
    for of_which, of in everywhere.items():
        yield _Move(f"layers, in all of their parents: {of_which}", of)


def _orders(names: list[str]) -> Iterator[list[tuple[str, str]]]:
    """[(layer, what stands in its place)]: of many, only two exchanged."""
    if len(names) > _SIBLINGS:
        for one, other in itertools.combinations(names, 2):
            yield [(one, other), (other, one)]
        return
    for order in itertools.permutations(names):
        moved = [pair for pair in zip(names, order, strict=True) if pair[0] != pair[1]]
        if moved:
            yield moved


def _alike(named: Leaves, layers: dict[str, dict[str, str]]) -> list[list[str]]:
    """The layers that have leaves of the same names and shapes, two or more."""
    by: dict[Any, list[str]] = {}
    for own, leaves in layers.items():
        key = tuple(sorted((last, named[name].shape) for last, name in leaves.items()))
        by.setdefault(key, []).append(own)
    return [names for names in by.values() if len(names) > 1]
