"""Between Flax's trees and PyTorch's names and layouts: one explicit table, by kind of layer.

Flax keeps a dense kernel as (in, out), PyTorch as (out, in); Flax nests, PyTorch dots. Optimizer
state has the shape of the parameters and goes the same way, under PyTorch's names for it
(`weight.exp_avg`).
"""

from collections import abc
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

import jax
import jax.numpy as jnp
from flax import nnx

from twinstep.errors import InputError
from twinstep.jax.nn import layers

__all__ = ["Mapping", "load_params", "module_layout", "opt_state_layout", "tree_layout"]

Tree = Any
Path = tuple[Any, ...]


class Rule(NamedTuple):
    """Where a PyTorch parameter lies in a Flax layer, and the axes that take it there."""

    path: tuple[str, ...]
    axes: tuple[int, ...] | None


_SWAP = (1, 0)  # (out, in) <-> (in, out)

_RECURRENT = {
    "weight_ih_l0": Rule(("input", "kernel"), _SWAP),
    "weight_hh_l0": Rule(("hidden", "kernel"), _SWAP),
    "bias_ih_l0": Rule(("input", "bias"), None),
    "bias_hh_l0": Rule(("hidden", "bias"), None),
}

TABLE: dict[type[nnx.Module], dict[str, Rule]] = {
    layers.RNN: _RECURRENT,
    layers.GRU: _RECURRENT,
    nnx.Linear: {"weight": Rule(("kernel",), _SWAP), "bias": Rule(("bias",), None)},
}
"""{kind of layer: {PyTorch's name: where Flax keeps it}}"""


COUNTER = "count"
"""The field of a state that counts updates where PyTorch's has none to be named after."""


class Slot(NamedTuple):
    """One leaf of a tree: the names that PyTorch has for it, and its shape and axes there."""

    names: tuple[str, ...]
    shape: tuple[int, ...]
    axes: tuple[int, ...] | None


@dataclass(frozen=True)
class Mapping:
    """How a tree goes by PyTorch's names; slots in the order of the tree's leaves.

    Made by `module_layout`, `tree_layout` and `opt_state_layout`.

    Args:
        treedef: The tree's structure, as `jax.tree.structure` has it.
        slots: The names, shape and axes in PyTorch of each leaf.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.layout import module_layout
        >>> from twinstep.jax.nn import Linear
        >>> layout = module_layout(Linear(3, 2))
        >>> named = layout.to_torch({"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)})
        >>> {name: array.shape for name, array in named.items()}
        {'bias': (2,), 'weight': (2, 3)}
        >>> layout.to_jax(named)["kernel"].shape
        (3, 2)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html
    """

    treedef: jax.tree_util.PyTreeDef
    slots: tuple[Slot, ...]

    @property
    def counters(self) -> set[str]:
        """The names of updates made, where PyTorch counts none, as in SGD with momentum.

        Returns:
            Names, such as `weight.count`.
        """
        names = (name for slot in self.slots for name in slot.names)
        return {name for name in names if name.endswith(f".{COUNTER}")}

    def part(self, tree: Tree) -> Self:
        """The layout of a tree that holds some of the leaves, under the same keys.

        Args:
            tree: Some of the leaves, of any values.

        Returns:
            Its layout, with the same names.

        Raises:
            InputError: For a leaf that the whole has not.
        """
        whole = jax.tree.unflatten(self.treedef, self.slots)
        slots = dict(jax.tree_util.tree_leaves_with_path(whole, is_leaf=_is_slot))
        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
        for path in paths:
            if path not in slots:
                name = jax.tree_util.keystr(path, simple=True, separator=".")
                raise InputError(f"the layout has no leaf {name!r}")
        treedef = jax.tree.structure(tree)
        return type(self)(treedef, tuple(slots[path] for path in paths))

    def to_torch(self, tree: Tree) -> dict[str, jax.Array]:
        """The arrays by PyTorch's names, in PyTorch's layout.

        Args:
            tree: Arrays, in the structure of `treedef`.

        Returns:
            {name: array in PyTorch's layout}, in the order of the tree's leaves. A leaf that
            PyTorch keeps for several parameters is there under each name.
        """
        named: dict[str, jax.Array] = {}
        for slot, leaf in zip(self.slots, jax.tree.leaves(tree), strict=True):
            array = leaf if slot.axes is None else jnp.transpose(leaf, slot.axes)
            named |= dict.fromkeys(slot.names, array)
        return named

    def to_jax(self, named: abc.Mapping[str, jax.Array]) -> Tree:
        """The tree of arrays given by name.

        Args:
            named: {name: array in PyTorch's layout}, as `to_torch` gives them.

        Returns:
            The arrays in Flax's layout, in the structure of `treedef`.

        Raises:
            InputError: Where names or shapes differ.
        """
        expected = {name for slot in self.slots for name in slot.names}
        if odd := sorted(expected ^ named.keys()):
            side = "missing" if odd[0] in expected else "unknown"
            raise InputError(f"parameter {odd[0]!r} is {side}")
        leaves = []
        for slot in self.slots:
            array = named[slot.names[0]]
            if array.shape != slot.shape:
                raise InputError(
                    f"parameter {slot.names[0]!r} has shape {array.shape}, expected {slot.shape}"
                )
            # the table's axes are their own inverse
            leaves.append(array if slot.axes is None else jnp.transpose(array, slot.axes))
        return jax.tree.unflatten(self.treedef, leaves)


def load_params(model: nnx.Module, named: abc.Mapping[str, Any]) -> None:
    """Gives a model's parameters the arrays, by PyTorch's names, in PyTorch's layout.

    Args:
        model: A Flax model, which is changed in place.
        named: {name: array}, as a `state_dict` of PyTorch's has them; NumPy's arrays are right too.

    Raises:
        InputError: Where names or shapes differ.
        TypeError: For one of Flax's layers that the conversion table does not have.

    Example:
        >>> import numpy as np
        >>> from twinstep.jax.layout import load_params
        >>> from twinstep.jax.nn import Linear
        >>> model = Linear(3, 2)
        >>> load_params(model, {"weight": np.ones((2, 3)), "bias": np.zeros(2)})
        >>> model.kernel.shape
        (3, 2)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html
    """
    layout = module_layout(model)
    nnx.update(model, layout.to_jax({name: jnp.asarray(a) for name, a in named.items()}))


def module_layout(model: nnx.Module) -> Mapping:
    """The layout of a model's parameters.

    A parameter that a module of one's own holds itself is the same in both, under its path.

    Args:
        model: A Flax model, of layers of `twinstep.jax.nn`, `nnx.Linear`, and modules of one's own.

    Returns:
        The layout of `nnx.state(model, nnx.Param)`.

    Raises:
        TypeError: For one of Flax's layers that the conversion table does not have.

    Example:
        >>> from flax import nnx
        >>> from twinstep.jax.layout import module_layout
        >>> from twinstep.jax.nn import Linear
        >>> class Model(nnx.Module):
        ...     def __init__(self):
        ...         self.fc = Linear(3, 2)
        >>> model = Model()
        >>> sorted(module_layout(model).to_torch(nnx.state(model, nnx.Param)))
        ['fc.bias', 'fc.weight']

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html
    """
    rules: dict[Path, tuple[str, Rule]] = {}
    for path, module in _outermost_layers(model):
        for name, rule in _table_of(module).items():
            rules[path + rule.path] = (".".join([*_torch_path(path), name]), rule)
    leaves, treedef = jax.tree_util.tree_flatten_with_path(
        nnx.to_pure_dict(nnx.state(model, nnx.Param))
    )
    modules = dict(nnx.iter_modules(model))
    slots = []
    for keys, leaf in leaves:
        path = tuple(key.key for key in keys)
        if path not in rules and type(owner := modules[path[:-1]]).__module__.startswith("flax."):
            raise TypeError(f"no rule in the conversion table for flax's {type(owner).__name__}")
        name, rule = rules.get(path, (".".join(_torch_path(path)), Rule(path, None)))
        shape = tuple(leaf.shape[axis] for axis in rule.axes or range(leaf.ndim))
        slots.append(Slot((name,), shape, rule.axes))
    return Mapping(treedef, tuple(slots))


def tree_layout(params: Tree) -> Mapping:
    """The layout of a tree whose arrays are as PyTorch has them, under its own keys, dotted.

    Args:
        params: A tree of arrays.

    Returns:
        A layout that changes no array.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.layout import tree_layout
        >>> params = {"fc": {"weight": jnp.ones((2, 3)), "bias": jnp.zeros(2)}}
        >>> list(tree_layout(params).to_torch(params))
        ['fc.bias', 'fc.weight']

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html
    """
    slots = [Slot((name,), jnp.shape(leaf), None) for name, leaf in by_name(params).items()]
    return Mapping(jax.tree.structure(params), tuple(slots))


def by_name(tree: Tree) -> dict[str, Any]:
    """{its keys, dotted: leaf}, in the order of the tree's leaves."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_slot)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


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
    named = _named(opt_state, jax.tree.unflatten(params.treedef, params.slots))
    slots = jax.tree.leaves(named, is_leaf=_is_slot)
    return Mapping(jax.tree.structure(opt_state), tuple(slots))


def _named(state: Tree, part: Tree) -> Tree:
    """A state with a slot in each leaf's place. part: the slots of the parameters it is for"""
    if hasattr(state, "parts"):
        return state.rebuilt([_named(inner, of) for inner, of in state.parts(part)])
    if hasattr(state, "_fields"):
        if not _is_slot(part) and any(getattr(value, "ndim", 0) for value in state):
            part = jax.tree.leaves(part, is_leaf=_is_slot)[:1]
        return type(state)(
            *(_named_field(name, getattr(state, name), part) for name in state._fields)
        )
    if isinstance(state, abc.Mapping):
        return {key: _named(inner, part[key]) for key, inner in state.items()}
    return None if state is None else tuple(_named(inner, part) for inner in state)


def _named_field(field: str, value: Tree, part: Tree) -> Tree:
    if value is None or hasattr(value, "parts") or hasattr(value, "_fields"):
        return _named(value, part)
    owners = jax.tree.leaves(part, is_leaf=_is_slot)
    names = tuple(f"{owner.names[0]}.{field}" for owner in owners)
    if hasattr(value, "shape") and not _is_slot(part):
        return Slot(names, value.shape, None)
    # None stands for a leaf that a parameter has not
    leaves, treedef = jax.tree.flatten(value, is_leaf=lambda leaf: leaf is None)
    return jax.tree.unflatten(
        treedef,
        [
            None if leaf is None else _slot(name, owner, leaf)
            for name, owner, leaf in zip(names, owners, leaves, strict=True)
        ],
    )


def _slot(name: str, owner: Slot, leaf: jax.Array) -> Slot:
    """Of a leaf whose axes are its parameter's, though some may have become 1; or that has none.

    A scalar beside a parameter that is a whole tree by itself has no axes either.
    """
    axes = owner.axes if leaf.ndim else None
    return Slot((name,), tuple(leaf.shape[axis] for axis in axes or range(leaf.ndim)), axes)


def _is_slot(node: Any) -> bool:
    return isinstance(node, Slot)


def _table_of(module: nnx.Module) -> dict[str, Rule]:
    """The rules for a layer of a kind in TABLE, or of one made from such; else none."""
    return next((TABLE[kind] for kind in type(module).__mro__ if kind in TABLE), {})


def _outermost_layers(model: nnx.Module) -> list[tuple[Path, nnx.Module]]:
    """(path, layer) of every layer in TABLE that is not inside another one."""
    known = {path: module for path, module in nnx.iter_modules(model) if _table_of(module)}
    return [
        (path, module)
        for path, module in known.items()
        if not any(path[:length] in known for length in range(len(path)))
    ]


def _torch_path(path: Path) -> list[str]:
    """PyTorch's Sequential numbers its layers at its own level; Flax's keeps them in `layers`."""
    return [str(key) for key in path if key != "layers"]
