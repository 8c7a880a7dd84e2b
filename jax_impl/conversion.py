"""Between Flax's trees and PyTorch's names and layouts: one explicit table, by kind of layer.

Flax keeps a dense kernel as (in, out), PyTorch as (out, in); Flax nests, PyTorch dots. Optimizer
state has the shape of the parameters and goes the same way, under PyTorch's names for it
(`weight.exp_avg`).
Mirror: torch_impl/conversion.py
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jax_impl import layers
from twinstep.errors import InputError

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


class Slot(NamedTuple):
    """One leaf of a tree: the names that PyTorch has for it, and its shape and axes there."""

    names: tuple[str, ...]
    shape: tuple[int, ...]
    axes: tuple[int, ...] | None


@dataclass(frozen=True)
class Layout:
    """How a tree goes by PyTorch's names; slots in the order of the tree's leaves."""

    treedef: jax.tree_util.PyTreeDef
    slots: tuple[Slot, ...]

    def to_torch(self, tree: Tree) -> dict[str, jax.Array]:
        """{name: array in PyTorch's layout}, in the order of the tree's leaves."""
        named: dict[str, jax.Array] = {}
        for slot, leaf in zip(self.slots, jax.tree.leaves(tree), strict=True):
            array = leaf if slot.axes is None else jnp.transpose(leaf, slot.axes)
            named |= dict.fromkeys(slot.names, array)
        return named

    def from_torch(self, named: Mapping[str, jax.Array]) -> Tree:
        """The tree of arrays given by name. InputError where names or shapes differ."""
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


def module_layout(model: nnx.Module) -> Layout:
    """The layout of a model's parameters.

    A parameter that a module of one's own holds itself is the same in both, under its path.
    TypeError for one of Flax's layers that TABLE does not have.
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
    return Layout(treedef, tuple(slots))


def opt_state_layout(opt_state: Tree, params: Layout) -> Layout:
    """The layout of an optimizer's state, by PyTorch's names for it.

    Knows the states of `jax_impl.optimizers`: a NamedTuple's fields are PyTorch's state names, each
    a scalar, which PyTorch keeps for every parameter, or a tree like params; tuples and dicts nest.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(opt_state)
    tree = jax.tree.unflatten(params.treedef, params.slots)
    slots = []
    for keys, leaf in leaves:
        # the field's name stands before the path into the parameters; what is before it names
        # the part of the parameters that this state is for
        position, field = next((i, key.name) for i, key in enumerate(keys) if hasattr(key, "name"))
        within = [key.key for key in keys[:position] if hasattr(key, "key")]
        within += [key.key for key in keys[position + 1 :]]
        part = tree
        for key in within:
            part = part[key]
        owners = jax.tree.leaves(part, is_leaf=lambda node: isinstance(node, Slot))
        names = tuple(f"{owner.names[0]}.{field}" for owner in owners)
        if jnp.ndim(leaf) == 0 and keys[position + 1 :] == ():
            slots.append(Slot(names, (), None))
        else:
            slots.append(Slot(names, owners[0].shape, owners[0].axes))
    return Layout(treedef, tuple(slots))


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
