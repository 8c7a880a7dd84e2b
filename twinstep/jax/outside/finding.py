"""Finds in what a function takes or gives back the optimizers' states, and what they belong to."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from twinstep.errors import InputError
from twinstep.jax import states
from twinstep.jax.outside.carrying import CarriedState
from twinstep.jax.trees import Path, by_path, dotted

Tree = Any
Leaves = dict[Path, Any]
FormOf = Callable[[CarriedState], Leaves]
_BUFFERS = ("batch_stats", "buffers", "state", "net_state", "model_state")
"""What programs call what their layers keep beside parameters."""


class Held(NamedTuple):
    """An optimizer's state and what it belongs to.

    place: where it is; buffers: {name: array}
    params: {where they are: {name: array}}; several where nothing tells which of them it is
    """

    state: CarriedState
    place: Path
    params: dict[Path, dict[str, Any]]
    buffers: dict[str, Any]

    @property
    def learned(self) -> dict[str, Any] | None:
        """Its parameters, if they are known."""
        return next(iter(self.params.values())) if len(self.params) == 1 else None


def states_in(
    tree: Tree,
    form_of: FormOf,
    applied: frozenset[Path] = frozenset(),
    changes: frozenset[Path] = frozenset(),
) -> list[Held]:
    """All that are in a tree.

    applied: the places of the parameters that an update has made; changes: of what is none

    form_of: {path: something of the shape} of a state's parameters, without axes in front
    """
    leaves = {place: leaf for place, leaf in leaves_of(tree).items() if place not in changes}
    found = list(_of_modules(leaves, form_of))
    for place, state in leaves.items():
        if isinstance(state, CarriedState):
            form = form_of(state)
            prefixes = _params_of(form, np.ndim(state.updates), leaves, place, applied)
            params = {prefix: _below(leaves, prefix, form) for prefix in prefixes}
            found.append(Held(state, place, params, _buffers(leaves, place[:-1])))
    return found


def leaves_of(tree: Tree) -> Leaves:
    """{path: what is there}: arrays, whole states, and whole modules of nnx."""
    try:
        return by_path(tree, is_leaf=is_whole)
    except (InputError, ValueError):  # no tree that is anybody's state
        return {}


def holds_modules(tree: Tree) -> bool:
    """Whether modules are in it, which a function of nnx changes in place."""
    return any(isinstance(leaf, nnx.Pytree) for leaf in leaves_of(tree).values())


def places_of(leaves: Leaves, which: Callable[[Any], bool]) -> frozenset[Path]:
    """The paths of some of them."""
    return frozenset(path for path, leaf in leaves.items() if which(leaf))


def _params_of(
    form: Leaves, lead: int, leaves: Leaves, place: Path, applied: frozenset[Path]
) -> list[Path]:
    """The paths of its parameters: those that an update has made, or the nearest of their form."""
    found = trees_of_form(form, leaves, lead)
    if applied:
        found = [one for one in found if all((*one, *path) in applied for path in form)]
    if len(found) > 1:
        beside = [one for one in found if one[:-1] == place[:-1] and one[-1:] == ("params",)]
        shared = [_shared(one, place) for one in found]
        nearest = [one for one, n in zip(found, shared, strict=True) if n == max(shared)]
        found = beside or nearest
    return found


def trees_of_form(form: Leaves, leaves: Leaves, lead: int = 0) -> list[Path]:
    """The paths below which there are arrays of all these names and shapes.

    lead: how many axes they have in front
    """
    if not form:
        return []
    first, like = next(iter(form.items()))

    def has(prefix: Path, path: Path, array: Any) -> bool:
        leaf = leaves.get((*prefix, *path))
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
            return False
        return bool(leaf.shape[lead:] == array.shape)

    starts = [
        path[: len(path) - len(first)]
        for path in leaves
        if path[len(path) - len(first) :] == first and has((), path, like)
    ]
    return [one for one in starts if all(has(one, path, array) for path, array in form.items())]


def arguments(function: Any, args: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    """What a function is called with, by the names that it has for it."""
    try:
        bound = inspect.signature(function).bind(*args, **options)
    except (TypeError, ValueError):
        return {str(i): arg for i, arg in enumerate(args)} | options
    found: dict[str, Any] = {}
    for name, given in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            found |= given
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            found |= {f"{name}.{i}": arg for i, arg in enumerate(given)}
        else:
            found[name] = given
    return found


def batch_of(
    given: dict[str, Any], forms: list[Leaves]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What of a function's arguments it trains on, and the keys; parameters and states are none."""
    batch: dict[str, np.ndarray] = {}
    keys: dict[str, Any] = {}
    for name, value in given.items():
        leaves = leaves_of({name: value})
        if any(map(is_whole, leaves.values())):
            continue
        if any(trees_of_form(form, leaves) for form in forms):
            continue
        for path, leaf in leaves.items():
            if not _is_array(leaf) or (isinstance(leaf, jax.Array) and leaf.is_deleted()):
                continue
            if _is_key(path[-1], leaf):
                keys[dotted(path)] = leaf
            elif leaf.dtype.kind in "biufcV":
                batch[dotted(path)] = leaf
    return batch, keys


def _is_key(name: str, leaf: Any) -> bool:
    """Whether it is a random key: a typed one, or two words by the name of one."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return True
    words = leaf.dtype == np.uint32 and leaf.shape[-1:] == (2,)
    return words and any(word in name.lower() for word in ("key", "rng", "seed"))


def _of_modules(leaves: Leaves, form_of: FormOf) -> Iterator[Held]:
    """The optimizers of nnx among modules, each with the one that it updates."""
    modules: list[tuple[Path, Any]] = []
    for path, node in leaves.items():
        if isinstance(node, nnx.Pytree):
            modules += [
                ((*path, *map(str, inner)), part)
                for inner, part in nnx.iter_graph(node)
                if isinstance(part, nnx.Pytree)
            ]
    for path, optimizer in modules:
        state = getattr(optimizer, "opt_state", None)
        if not isinstance(optimizer, nnx.Optimizer) or not isinstance(state, CarriedState):
            continue
        state = states.plain(state)
        shapes = {path: array.shape for path, array in form_of(state).items()}
        for _, model in modules:
            if not isinstance(model, nnx.Module):
                continue
            learns = by_path(states.plain(nnx.state(model, optimizer.wrt)))
            if {p: np.shape(a) for p, a in learns.items()} == shapes:
                named = {dotted(name): leaf for name, leaf in learns.items()}
                kept = by_path(states.plain(nnx.state(model, nnx.BatchStat)))
                buffers = {dotted(name): leaf for name, leaf in kept.items()}
                yield Held(state, path, {path: named}, buffers)
                break
        else:
            yield Held(state, path, {}, {})


def _below(leaves: Leaves, prefix: Path, form: Leaves) -> dict[str, Any]:
    return {dotted(path): leaves[(*prefix, *path)] for path in form}


def _buffers(leaves: Leaves, holder: Path) -> dict[str, Any]:
    """What is beside a state, and called as programs call buffers."""
    n = len(holder)
    return {
        dotted(path[n + 1 :]): leaf
        for path, leaf in leaves.items()
        if path[:n] == holder and path[n : n + 1] and path[n] in _BUFFERS and _is_array(leaf)
    }


def _shared(one: Path, other: Path) -> int:
    """How many keys two paths begin with alike."""
    same = [a == b for a, b in zip(one, other, strict=False)]
    return same.index(False) if False in same else len(same)


def is_whole(node: Any) -> bool:
    """Whether it is found as it is, and not what is in it."""
    return isinstance(node, CarriedState | nnx.Pytree)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray)
