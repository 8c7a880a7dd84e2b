"""Shadows of a program's functions: compiled anew, they give what their optimizers were given.

The function itself stays as it was compiled; its shadow gives the gradients and the losses of the
same updates, and nothing else of it is computed.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from twinstep.jax import states
from twinstep.jax.outside.carrying import CarriedState, Carrying, first
from twinstep.jax.outside.finding import is_whole, leaves_of
from twinstep.jax.trees import dotted

Tree = Any
_OF_OUTPUT = ("out_shardings", "out_axes", "in_shardings", "donate_argnums", "donate_argnames")
"""What a shadow is not compiled with: it gives out something else, and leaves what it is given."""
_DONATING = ("donate", "donate_argnums", "donate_argnames")


class Shadow:
    """A function that gives its optimizers' states, full of what they carry.

    plain: what has compiled the program's function, with these arguments
    changes: whether it changes modules in place, as `nnx.jit` has it
    """

    def __init__(
        self, plain: Any, function: Any, rest: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        self.changes = plain.__module__.startswith("flax.")
        self.donates = self.changes or any(
            options.get(name) not in (None, (), "none") for name in _DONATING
        )
        options = {name: how for name, how in options.items() if name not in _OF_OUTPUT}
        if options.get("donate"):  # equinox
            options["donate"] = "none"

        def compiled() -> Any:
            @functools.wraps(function)
            def shadow(*args: Any, **given: Any) -> Any:
                return _states(function(*args, **given))

            return plain(shadow, *rest, **options)

        self._compiled = functools.cache(lambda unrolls: compiled())

    def __call__(
        self, carrying: Carrying, unrolls: bool, args: tuple[Any, ...], options: dict[str, Any]
    ) -> dict[int, CarriedState]:
        """{number: state} of what it has updated. unrolls: several times in a call"""
        given = _filled(carrying, nnx.clone((args, options)) if self.changes else (args, options))
        call = self._compiled(unrolls)
        with carrying.shadowing(unrolls):
            out = call(*given[0], **given[1])
        changed = _states(given) if self.changes else {}
        found = [*out.values(), *changed.values()]
        return {first(state.number): state for state in found}

    def kept(self, args: Any, options: Any) -> Any:
        """What it is to be called with, although the function itself is called before."""
        if not self.donates:
            return args, options
        given = nnx.clone((args, options)) if self.changes else (args, options)
        return jax.tree.map(
            lambda leaf: jnp.copy(leaf) if isinstance(leaf, jax.Array) else leaf, given
        )


def carried_by(full: CarriedState, state: CarriedState) -> tuple[Tree, Any, Any]:
    """What a shadow's state carries; averaged over devices that share the program's own."""
    lead = np.ndim(full.updates) - np.ndim(state.updates)

    def over_devices(array: Any) -> Any:
        return states.device_mean(np.asarray(array)) if lead else array

    grads, loss, is_known = full.carried
    return *jax.tree.map(over_devices, (grads, loss)), is_known


def _filled(carrying: Carrying, tree: Tree) -> Tree:
    """With states that will carry all."""
    for optimizer in _optimizers(tree):
        state = states.plain(optimizer.opt_state)
        like = optimizer.opt_state.number
        full = jax.tree.map(type(like), carrying.filled(state).carried)
        optimizer.opt_state = nnx.data(optimizer.opt_state.carry(*full))
    return jax.tree.map(
        lambda node: carrying.filled(node) if isinstance(node, CarriedState) else node,
        tree,
        is_leaf=is_whole,
    )


def _states(tree: Tree) -> dict[str, CarriedState]:
    """The full states in a tree, and no more of them than they carry."""
    found = {str(i): states.plain(one.opt_state) for i, one in enumerate(_optimizers(tree))}
    for path, node in leaves_of(tree).items():
        if isinstance(node, CarriedState):
            found[dotted(path)] = node
    return {name: state.around(()) for name, state in found.items() if state.is_full}


def _optimizers(tree: Tree) -> list[Any]:
    """The optimizers of nnx in a tree."""
    modules = [node for node in leaves_of(tree).values() if isinstance(node, nnx.Pytree)]
    return [
        part
        for module in modules
        for _, part in nnx.iter_graph(module)
        if isinstance(part, nnx.Optimizer) and isinstance(part.opt_state, CarriedState)
    ]
