"""How a tree's leaves go by PyTorch's names, in its layout."""

from collections import abc
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError
from twinstep.jax.trees import Tree, by_name

COUNTER = "count"
"""The field of a state that counts updates where PyTorch's has none to be named after."""


class Slot(NamedTuple):
    """One leaf of a tree: the names that PyTorch has for it, and its shape and axes there."""

    names: tuple[str, ...]
    shape: tuple[int, ...]
    axes: tuple[int, ...] | None

    @property
    def own_axes(self) -> tuple[int, ...] | None:
        """The axes that take PyTorch's array back."""
        return None if self.axes is None else tuple(map(int, np.argsort(self.axes)))

    @property
    def own_shape(self) -> tuple[int, ...]:
        """The leaf's shape in the tree."""
        return tuple(self.shape[axis] for axis in self.own_axes or range(len(self.shape)))


def is_slot(node: Any) -> bool:
    """Whether a node of a tree of slots is one of them."""
    return isinstance(node, Slot)


@dataclass(frozen=True)
class Mapping:
    """How a tree goes by PyTorch's names; slots in the order of the tree's leaves.

    Made by `module_layout`, `tree_layout` and `opt_state_layout`. Leaves are found by their keys,
    whatever containers hold them and in whatever order: a checkpoint's text for a list's numbers
    will do, and so will nnx.Variables around arrays.

    Args:
        treedef: The tree's structure, as `jax.tree.structure` has it.
        slots: The names, shape and axes in PyTorch of each leaf.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from twinstep.jax.layout import module_layout
        >>> layout = module_layout(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
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

    @property
    def tree(self) -> Tree:
        """The slots in the tree's structure.

        Returns:
            A tree of `Slot`.
        """
        return jax.tree.unflatten(self.treedef, self.slots)

    def part(self, tree: Tree) -> Self:
        """The layout of a tree that holds some of the leaves, under the same keys.

        Args:
            tree: Some of the leaves, of any values; a key may hold the dots of several.

        Returns:
            Its layout, with the same names.

        Raises:
            InputError: For a leaf that the whole has not.
        """
        treedef = jax.tree.structure(tree)
        if treedef == self.treedef:
            return self
        known, names = by_name(self.tree, is_slot), list(by_name(tree))
        for name in names:
            if name not in known:
                raise InputError(f"the layout has no leaf {name!r}")
        return type(self)(treedef, tuple(known[name] for name in names))

    def to_torch(self, tree: Tree) -> dict[str, jax.Array]:
        """The arrays by PyTorch's names, in PyTorch's layout.

        Args:
            tree: Arrays under the keys of `treedef`.

        Returns:
            {name: array in PyTorch's layout}, in the order of the layout's leaves. A leaf that
            PyTorch keeps for several parameters is there under each name.

        Raises:
            InputError: For a leaf that is missing, unknown, or of another shape.
        """
        named: dict[str, jax.Array] = {}
        for (name, leaf), slot in zip(self._leaves(tree), self.slots, strict=True):
            if np.shape(leaf) != slot.own_shape:
                raise InputError(
                    f"parameter {name!r} has shape {np.shape(leaf)}, expected {slot.own_shape}"
                )
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
            leaves.append(array if slot.axes is None else jnp.transpose(array, slot.own_axes))
        return jax.tree.unflatten(self.treedef, leaves)

    def _leaves(self, tree: Tree) -> list[tuple[str, Any]]:
        """(name in the tree, leaf) in the order of the slots."""
        wanted, found = by_name(self.tree, is_slot), by_name(tree)
        if odd := [name for name in (*wanted, *found) if (name in wanted) != (name in found)]:
            side = "missing" if odd[0] in wanted else "unknown"
            raise InputError(f"parameter {odd[0]!r} is {side}")
        return [(name, found[name]) for name in wanted]
