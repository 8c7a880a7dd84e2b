"""LBFGS's state to and from PyTorch, which keeps it with the first parameter.

Vectors run over all parameters: PyTorch's in the order that these were given in, in its layout;
here in the order of the tree's leaves.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError
from twinstep.jax.mapping import Slot
from twinstep.jax.optim._arrays import as_array, for_torch
from twinstep.jax.optim._lbfgs import LBFGSState

_VECTORS = ("d", "prev_flat_grad")
_HISTORY = ("old_dirs", "old_stps")


def lbfgs_to_torch(state: LBFGSState, part: Any, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """{first parameter: its entries}, nothing before the first step.

    part: the slots of the parameters; names: PyTorch's order of them
    """
    if not int(state.func_evals):
        return {}
    order = _order(part, names, state.d.shape)
    rows = range(int(state.stored))
    entries: dict[str, Any] = {key: int(getattr(state, key)) for key in ("func_evals", "n_iter")}
    entries |= {key: float(getattr(state, key)) for key in ("t", "prev_loss")}
    entries |= {key: for_torch(getattr(state, key))[order] for key in _VECTORS}
    entries |= {
        key: [for_torch(getattr(state, key)[row])[order] for row in rows] for key in _HISTORY
    }
    entries["ro"] = [for_torch(state.ro[row]) for row in rows]
    entries["H_diag"] = for_torch(state.H_diag)
    return {names[0]: entries}


def lbfgs_from_torch(
    given: Mapping[str, Any],
    state: LBFGSState,
    part: Any,
    names: Sequence[str],
    count: int | None,
) -> LBFGSState:
    """The state that {parameter.key: value} tells of; without any, the one given.

    Raises InputError where it is of other parameters, or remembers more than fits.
    """
    entries = {name.rpartition(".")[2]: value for name, value in given.items()}
    if state.count is not None:
        state = state._replace(count=jnp.array(count or 0, jnp.int32))
    if not entries:
        return state
    for key in ("func_evals", "n_iter"):
        state = state._replace(**{key: jnp.array(int(entries[key]), jnp.int32)})
    if "d" not in entries:  # PyTorch found the gradient flat at once
        return state
    order, kind = _order(part, names, state.d.shape), state.d.dtype
    back = np.argsort(order)
    size, held = len(state.ro), len(entries["old_dirs"])
    if held > size:
        raise InputError(f"lbfgs: old_dirs has {held} entries, expected up to {size}")

    def vector(value: Any) -> np.ndarray:
        array = as_array(value)
        if array.shape != state.d.shape:
            raise InputError(f"lbfgs: d has shape {array.shape}, expected {state.d.shape}")
        return array[back]

    def stacked(values: Sequence[Any], read: Callable[[Any], Any], like: jax.Array) -> jax.Array:
        rows = np.zeros(like.shape, like.dtype)
        for row, value in enumerate(values):
            rows[row] = read(value)
        return jnp.array(rows)

    return state._replace(
        stored=jnp.array(held, jnp.int32),
        old_dirs=stacked(entries["old_dirs"], vector, state.old_dirs),
        old_stps=stacked(entries["old_stps"], vector, state.old_stps),
        ro=stacked(entries["ro"], float, state.ro),
        **{key: jnp.array(vector(entries[key]), kind) for key in _VECTORS},
        **{key: jnp.array(float(entries[key]), kind) for key in ("t", "prev_loss", "H_diag")},
    )


def _order(part: Any, names: Sequence[str], shape: tuple[int, ...]) -> np.ndarray:
    """Where each entry of PyTorch's vector lies in ours, (n,). shape: of ours"""
    where, first = {}, 0
    for slot in jax.tree.leaves(part, is_leaf=lambda node: isinstance(node, Slot)):
        size = math.prod(slot.shape)
        axes = slot.axes or range(len(slot.shape))
        here = np.arange(first, first + size).reshape([slot.shape[axis] for axis in axes])
        where[slot.names[0]] = here.transpose(list(axes)).ravel()
        first += size
    if where.keys() != set(names):
        odd = sorted(where.keys() ^ set(names))[0]
        raise InputError(f"lbfgs: parameter {odd!r} is on one side only, expected on both")
    order = np.concatenate([where[name] for name in names])
    if shape == (2 * first,):  # complex entries are two real ones each
        return np.stack([2 * order, 2 * order + 1], axis=-1).ravel()
    if shape != (first,):
        raise InputError(
            f"lbfgs: d has shape {shape}, expected {(first,)}, or twice that of complex parameters"
        )
    return order
