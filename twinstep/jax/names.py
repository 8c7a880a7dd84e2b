"""Names for what is recorded: of parameters, and of several optimizers' states."""

from collections import abc
from typing import Any

import jax

from twinstep.errors import InputError
from twinstep.jax.layout import Mapping, opt_state_layout
from twinstep.jax.states import Leaf
from twinstep.jax.trees import by_name

Tree = Any
Layouts = Mapping | abc.Mapping[str, Mapping]
"""PyTorch's names and layouts of all parameters, or of each optimizer's."""
ONLY = "optimizer"
"""What the only optimizer is called: it stands in no name of what is its own."""


def prefix(of: str) -> str:
    """What stands before the names of what is an optimizer's own."""
    return "" if of == ONLY else f"{of}."


class Names:
    """The names of leaves, by optimizer.

    layout: PyTorch's; None: a leaf's name is its path in the tree, with dots
    """

    def __init__(self, layout: Layouts | None) -> None:
        self._layout = layout
        self._known: dict[str, set[str]] = {"params": set(), "buffers": set()}
        self._owner: dict[str, str] = {}
        self._paths: dict[Any, list[str]] = {}
        self._of_params: dict[tuple[str, str, Any], list[Leaf]] = {}
        self._of_state: dict[tuple[str, int, Any], list[Leaf]] = {}

    def known(self, **names: abc.Iterable[str]) -> None:
        """There are parameters, params=, and buffers= of these names, and no others."""
        self._known = {stage: set(found) for stage, found in names.items()}
        self._of_params.clear()

    def joined(self, **names: abc.Iterable[str]) -> None:
        """There are these besides."""
        self.known(**{stage: self._known[stage].union(found) for stage, found in names.items()})

    def by_path(self, tree: Tree, before: str = "") -> list[Leaf]:
        """The leaves of a tree by their paths."""
        leaves, treedef = jax.tree.flatten(tree)
        names = self._paths.get(treedef)
        if names is None:
            names = self._paths[treedef] = list(by_name(tree))
        return [Leaf((before + name,), leaf) for name, leaf in zip(names, leaves, strict=True)]

    def of(self, optimizer: str, stage: str, tree: Tree) -> list[Leaf]:
        """An optimizer's parameters, or buffers; or what has their form."""
        leaves, treedef = jax.tree.flatten(tree)
        forms = self._of_params.get(key := (optimizer, stage, treedef))
        if forms is None:
            forms = self._named(optimizer, stage, tree)
            self._of_params[key] = [form._replace(array=None) for form in forms]
        return [form._replace(array=leaf) for form, leaf in zip(forms, leaves, strict=True)]

    def _named(self, optimizer: str, stage: str, tree: Tree) -> list[Leaf]:
        """Behind the optimizer's name, where the parameters are called so that are known."""
        leaves, layout = jax.tree.leaves(tree), self._layout
        if stage == "params" and layout is not None and leaves:
            part, before = self._part(optimizer, tree)
            return [
                Leaf(tuple(before + name for name in slot.names), leaf, slot.axes)
                for slot, leaf in zip(part.slots, leaves, strict=True)
            ]
        own, prefixed = self.by_path(tree), self.by_path(tree, prefix(optimizer))
        known = self._known[stage]

        def all_known(leaves: list[Leaf]) -> bool:
            return all(leaf.names[0] in known for leaf in leaves)

        return own if all_known(own) and not all_known(prefixed) else prefixed

    def _part(self, optimizer: str, tree: Tree) -> tuple[Mapping, str]:
        """The layout of an optimizer's parameters, and what stands before its names."""
        layout = self._layout
        if isinstance(layout, abc.Mapping):
            if optimizer not in layout:
                raise InputError(
                    f"optimizer {optimizer!r} has no layout, expected one of {', '.join(layout)}"
                )
            return layout[optimizer].part(tree), prefix(optimizer)
        assert layout is not None
        if optimizer != ONLY:  # a part of a tree under its name, or the tree itself
            try:
                part = layout.part({optimizer: tree})
            except InputError:
                return layout.part(tree), ""
            return Mapping(jax.tree.structure(tree), part.slots), ""
        return layout.part(tree), ""

    def initial(self, trees: abc.Mapping[str, Tree]) -> list[Leaf]:
        """Before the first update: {optimizer's name: its parameters}."""
        return [leaf for name, tree in trees.items() for leaf in self.of(name, "params", tree)]

    def opt_state(self, optimizer: str, state: Tree, params: Tree, lead: int) -> list[Leaf]:
        """An optimizer's state; of a parameter that is another's too, behind its own name.

        lead: how many axes stand in front of its arrays
        """
        leaves, treedef = jax.tree.flatten(state)
        forms = self._of_state.get(key := (optimizer, lead, treedef))
        if forms is None:
            forms = self._named_state(optimizer, state, params, lead)
            self._of_state[key] = [form._replace(array=None) for form in forms]
        return [form._replace(array=leaf) for form, leaf in zip(forms, leaves, strict=True)]

    def _named_state(self, optimizer: str, state: Tree, params: Tree, lead: int) -> list[Leaf]:
        before = prefix(optimizer)
        if self._layout is None:
            return self.by_path(state, before)
        part, own = self._part(optimizer, params)
        try:
            one = jax.eval_shape(lambda s: jax.tree.map(lambda a: a[(0,) * lead], s), state)
            slots = opt_state_layout(one, part).slots
        except (TypeError, ValueError, LookupError):  # no state that it knows
            return self.by_path(state, before)
        names = [name for slot in slots for name in slot.names]
        if len(set(names)) < len(names):
            return self.by_path(state, before)
        named = [tuple(own + name for name in slot.names) for slot in slots]
        if any(self._owner.setdefault(n, optimizer) != optimizer for all_ in named for n in all_):
            named = [tuple(before + name for name in slot.names) for slot in slots]
        return [
            Leaf(names, leaf, slot.axes)
            for names, slot, leaf in zip(named, slots, jax.tree.leaves(state), strict=True)
        ]
