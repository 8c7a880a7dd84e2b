"""An optimizer's state by PyTorch's names for it, in PyTorch's layout."""

from collections import abc
from typing import Any, Protocol, Self

import jax
from flax import nnx

from twinstep.errors import InputError
from twinstep.jax.mapping import Mapping, Slot, is_slot
from twinstep.jax.trees import Path, Tree, by_path, children


class Nested(Protocol):
    """A state that holds others, each of a part of the parameters."""

    def parts(self, params: Tree) -> list[tuple[Tree, Tree]]:
        """(state, its part) of each; params: a tree like the parameters, of anything."""

    def rebuilt(self, states: list[Tree]) -> Self:
        """The same with other states in their places."""


def opt_state_layout(opt_state: Tree, params: Mapping) -> Mapping:
    """The layout of an optimizer's state, by PyTorch's names for it.

    Knows the states of `twinstep.jax.optim`: a NamedTuple's fields are PyTorch's state names, each
    a scalar, which PyTorch keeps for every parameter, a tree like params, or one array for all
    parameters, which PyTorch keeps with the first, and the scalars beside it too; states nest in
    tuples, dicts, one another and `Nested`.

    Args:
        opt_state: The optimizer's state.
        params: The layout of the parameters that it is for.

    Returns:
        The layout of the state.

    Raises:
        InputError: For a state of another form, or of other parameters.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.layout import opt_state_layout, tree_layout
        >>> from twinstep.jax.optim import adam
        >>> params = {"weight": jnp.ones((2, 3))}
        >>> state = adam().init(params)
        >>> list(opt_state_layout(state, tree_layout(params)).to_torch(state))
        ['weight.step', 'weight.exp_avg', 'weight.exp_avg_sq']

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.state_dict.html
    """
    slots = jax.tree.leaves(_named(opt_state, params.tree), is_leaf=is_slot)
    return Mapping(jax.tree.structure(opt_state), tuple(slots))


def _named(state: Tree, part: Tree) -> Tree:
    """A state with a slot in each leaf's place. part: the slots of the parameters it is for"""
    if hasattr(state, "parts"):
        return state.rebuilt([_named(inner, of) for inner, of in state.parts(part)])
    if hasattr(state, "_fields"):
        return _named_fields(state, part)
    if state is None or not isinstance(state, abc.Mapping | tuple | list | nnx.State):
        if state is None:
            return None
        raise InputError(f"opt_state has a {type(state).__name__}, expected an optimizer's state")
    parts = children(part)[0] if isinstance(state, abc.Mapping | nnx.State) else {}
    inner, treedef = children(state)
    for key in inner:
        if parts and key not in parts:
            raise InputError(f"opt_state has {key!r}, which no parameters are called")
    return jax.tree.unflatten(
        treedef, [_named(one, parts.get(key, part)) for key, one in inner.items()]
    )


def _named_fields(state: Any, part: Tree) -> Tree:
    """The same of a NamedTuple, whose fields are PyTorch's names."""
    owners = by_path(part, is_slot)
    values = {field: _plain(getattr(state, field)) for field in state._fields}
    if not is_slot(part) and any(getattr(value, "ndim", 0) for value in values.values()):
        owners = dict(list(owners.items())[:1])  # one array for all
    trees = {field: by_path(v) for field, v in values.items() if _is_like(v, owners)}
    # some have a state of their own, or all: scalars are theirs
    held = {path for found in trees.values() for path in found} or owners.keys()
    named = {}
    for field, value in values.items():
        names = {path: f"{owner.names[0]}.{field}" for path, owner in owners.items()}
        if hasattr(value, "shape") and not is_slot(part):
            of = tuple(name for path, name in names.items() if path in held)
            named[field] = Slot(of, value.shape, None)
        elif field in trees:
            slots = [_slot(names[path], owners[path], leaf) for path, leaf in trees[field].items()]
            named[field] = jax.tree.unflatten(jax.tree.structure(value), slots)
        else:
            named[field] = _named(value, part)
    return type(state)(**named)


def _plain(value: Any) -> Any:
    """What an nnx.Variable around an array holds."""
    return next(iter(by_path(value).values())) if isinstance(value, nnx.Variable) else value


def _is_like(value: Tree, owners: abc.Mapping[Path, Slot]) -> bool:
    """Whether a field has the parameters' form, or that of some of them."""
    if hasattr(value, "parts") or hasattr(value, "_fields"):
        return False
    return by_path(value).keys() <= owners.keys()


def _slot(name: str, owner: Slot, leaf: jax.Array) -> Slot:
    """Of a leaf whose axes are its parameter's, though some may have become 1; or that has none.

    A scalar beside a parameter that is a whole tree by itself has no axes either.
    """
    axes = owner.axes if leaf.ndim else None
    if axes is not None and len(axes) != leaf.ndim:
        raise InputError(f"opt_state: {name!r} has {leaf.ndim} axes, expected {len(axes)}")
    return Slot((name,), tuple(leaf.shape[axis] for axis in axes or range(leaf.ndim)), axes)
