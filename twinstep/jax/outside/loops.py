"""Brings what a compiled loop updates out of it, turn by turn, by callbacks.

What a compiled loop carries comes out of it at its end only. It is told by the loop's shadow, whose
last bit may differ from that of the program itself.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.jax.outside.carrying import CarriedState
from twinstep.jax.outside.finding import FormOf, Held, states_in

Tree = Any
_CALLBACK = jax.debug.callback
"""JAX's own: a program's says nothing in a shadow."""


def tell(before: Tree, after: Tree, form_of: FormOf, told: Callable[[Held, Any], None]) -> Tree:
    """Has told each state that one turn of a loop has updated, and its parameters before it.

    before, after: what the loop carries, traced; told: is called when the loop runs, with arrays
    Returns what it is to carry: a state that waits for its callback, which nothing else needs; the
    very same where nothing is told, as of a loop in a model.
    """
    was = {held.place: held for held in states_in(before, form_of)}
    waiting: dict[int, CarriedState] = {}
    for held in states_in(after, form_of):
        began = was.get(held.place)
        stays = began is not None and held.state.updates is began.state.updates
        if began is None or stays or not held.state.is_full:
            continue
        if held.learned is not None and began.learned is not None:
            updates = held.state.updates + call(held, began.learned, told)
            waiting[id(held.state)] = held.state.at(updates)
    if not waiting:
        return after
    return jax.tree.map(
        lambda node: waiting.get(id(node), node),
        after,
        is_leaf=lambda node: isinstance(node, CarriedState),
    )


def call(held: Held, began: Any, told: Callable[[Held, Any], None]) -> jax.Array:
    """Calls back with a state, traced, and its parameters before it: a 0 when that is done."""
    payload = (held.state, held.learned, held.buffers, began)
    leaves, treedef = jax.tree.flatten(jax.tree.map(_words, payload))

    def receive(*arrays: Any) -> None:
        state, params, buffers, before = jax.tree.unflatten(treedef, map(np.array, arrays))
        told(Held(state, held.place, {(): params}, buffers), before)

    zero: jax.Array = _tell(receive)(*jax.lax.stop_gradient(leaves))
    return zero


def _tell(receive: Callable[..., None]) -> Any:
    """A callback that a vmap calls once, with its axis in front, and not once an entry."""

    @jax.custom_batching.custom_vmap
    def once(*arrays: Any) -> jax.Array:
        _CALLBACK(receive, *arrays)
        return jnp.zeros((), jnp.int32)

    @once.def_vmap
    def batched(size: int, is_batched: list[bool], *arrays: Any) -> tuple[jax.Array, bool]:
        whole = [
            array if batched else jnp.broadcast_to(array, (size, *jnp.shape(array)))
            for array, batched in zip(arrays, is_batched, strict=True)
        ]
        return once(*whole), False

    return once


def _words(leaf: Any) -> Any:
    """A random key as numbers, which a callback can be given."""
    is_key = jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf
