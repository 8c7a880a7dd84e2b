"""Trees of arrays by the paths of their leaves.

What belongs together is paired by name and not by position: containers differ in their order. A
checkpoint that was restored without a template has text for numbers ("10" comes before "2"), an
OrderedDict may come back as a dict. An nnx.Variable is the array in it, whatever holds it.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jax.tree_util import keystr, tree_flatten_with_path, tree_leaves_with_path

from twinstep.errors import InputError

Tree = Any
Path: TypeAlias = tuple[str, ...]
IsLeaf: TypeAlias = Callable[[Any], bool]


def by_path(tree: Tree, is_leaf: IsLeaf = lambda node: False) -> dict[Path, Any]:
    """{path: leaf}, in the order of the tree's leaves; keys are text: 2 and "2" are one.

    Raises InputError where two leaves have one path.
    """
    found: dict[Path, Any] = {}
    for outer, node in tree_leaves_with_path(tree, is_leaf=lambda n: _is_variable(n) or is_leaf(n)):
        inner = tree_leaves_with_path(node, is_leaf) if _is_variable(node) else [((), node)]
        for keys, leaf in inner:
            # an nnx.Variable's own key to its only leaf says nothing
            path = tuple(keystr((key,), simple=True) for key in (*outer, *keys[len(inner) == 1 :]))
            if path in found:
                raise InputError(f"parameter {dotted(path)!r} is there twice, expected it once")
            found[path] = leaf
    return found


def children(tree: Tree) -> tuple[dict[str, Any], jax.tree_util.PyTreeDef]:
    """({key: what is directly below it}, how it is put together again); keys are text."""
    nodes, treedef = tree_flatten_with_path(tree, is_leaf=lambda node: node is not tree)
    return {keystr(path, simple=True): node for path, node in nodes}, treedef


def dotted(path: Path) -> str:
    """A path as PyTorch writes names."""
    return ".".join(path)


def by_name(tree: Tree, is_leaf: IsLeaf = lambda node: False) -> dict[str, Any]:
    """{path, dotted: leaf}, in the order of the tree's leaves.

    Raises InputError where two leaves have one name, as "a.b" and b in a have.
    """
    found = by_path(tree, is_leaf)
    named = {dotted(path): leaf for path, leaf in found.items()}
    if len(named) < len(found):
        names = [dotted(path) for path in found]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"parameter {twice!r} is there twice, expected names of their own")
    return named


def paired(
    like: Tree,
    tree: Tree,
    what: str,
    is_leaf: IsLeaf = lambda node: False,
    *,
    optional: bool = False,
) -> list[Any]:
    """The leaves of tree in the order of those of `like`.

    what: what tree is, for the InputError where one has a leaf that the other has not
    optional: whether tree need not have all of them; None stands for one that is not there
    """
    structures: list[Any] = [jax.tree.structure(t, is_leaf=is_leaf) for t in (like, tree)]
    if structures[0] == structures[1]:
        return jax.tree.leaves(tree, is_leaf=is_leaf)
    wanted, found = by_path(like, is_leaf), by_path(tree, is_leaf)
    for path in () if optional else wanted:
        if path not in found:
            raise InputError(f"{what}: {dotted(path)!r} is missing")
    for path in found:
        if path not in wanted:
            raise InputError(f"{what}: {dotted(path)!r} is unknown")
    return [found.get(path) for path in wanted]


def leaves_like(like: Tree, tree: Tree, what: str) -> list[jax.Array]:
    """The same of arrays, each of the shape of its own in `like`."""
    leaves = [jnp.asarray(leaf) for leaf in paired(like, tree, what)]
    for (path, wanted), leaf in zip(by_path(like).items(), leaves, strict=True):
        if leaf.shape != jnp.shape(wanted):
            raise InputError(
                f"{what}: {dotted(path)!r} has shape {leaf.shape}, expected {jnp.shape(wanted)}"
            )
    return leaves


def in_structure_of(tree: Tree, like: Tree, leaves: Sequence[Any]) -> Tree:
    """Leaves in the order of `like` as a tree of the structure of `tree`, which `paired` took."""
    treedef: Any = jax.tree.structure(tree)
    if treedef != jax.tree.structure(like):
        named = dict(zip(by_path(like), leaves, strict=True))
        leaves = [named[path] for path in by_path(tree)]
    return jax.tree.unflatten(treedef, leaves)


def _is_variable(node: Any) -> bool:
    return isinstance(node, nnx.Variable)
