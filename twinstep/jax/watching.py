"""An optimizer that carries its gradients in its state, so that a step need not give them out.

It works inside jit, scan and vmap, and leaves the bits of a training as they are.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from twinstep.errors import InputError

Tree = Any


class WatchState(NamedTuple):
    """The state of a watched optimizer.

    Args:
        grads: The gradients of its last update, a tree like the parameters.
        inner: What the optimizer itself keeps.
    """

    grads: Tree
    inner: optax.OptState


class GivenGradsState(NamedTuple):
    """The state of `watch("grads")`.

    Args:
        grads: The gradients that came by in the last update, a tree like the parameters.
    """

    grads: Tree


def watch(
    optimizer: optax.GradientTransformation | str,
) -> optax.GradientTransformationExtraArgs:
    """An optimizer whose state also holds the gradients of its last update.

    Args:
        optimizer: Any of optax's or the kit's. Or "grads": a link of a chain that holds what comes
            by there, and changes nothing; before the rule itself that is what the rule is given.

    Returns:
        An optimizer that makes the same updates, bit for bit; but behind a clipping whose factors
        XLA would multiply into the rule's own, "grads" keeps them apart: the last bit may differ.

    Raises:
        InputError: For a word that is not "grads".

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from twinstep.jax.watching import gradients, watch
        >>> tx = watch(optax.chain(optax.clip(1.0), watch("grads"), optax.sgd(0.1)))
        >>> params = {"w": jnp.ones(2)}
        >>> _, state = tx.update({"w": jnp.full(2, 3.0)}, tx.init(params), params)
        >>> raw, given = gradients(state)
        >>> raw["w"][0].item(), given["w"][0].item()
        (3.0, 1.0)

    Source: https://optax.readthedocs.io/en/latest/api/transformations.html
    """
    if isinstance(optimizer, str):
        if optimizer != "grads":
            raise InputError(f"watch takes an optimizer or 'grads', not {optimizer!r}")
        return optax.GradientTransformationExtraArgs(_given_none, _given)
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Tree) -> WatchState:
        return WatchState(_zeros(params), inner.init(params))

    def update(grads: Tree, state: WatchState, params: Tree = None, **extra: Any) -> Any:
        updates, after = inner.update(grads, state.inner, params, **extra)
        return updates, WatchState(grads, after)

    return optax.GradientTransformationExtraArgs(init, update)


def gradients(opt_state: optax.OptState) -> tuple[Tree, Tree]:
    """What a watched optimizer's state holds: what was backpropagated, and what the rule was given.

    Args:
        opt_state: The state of a watched optimizer, which other states may stand around.

    Returns:
        Two trees like the parameters; one and the same where no link is `watch("grads")`.

    Raises:
        InputError: For the state of an optimizer that is not watched, or is twice in one place.
    """
    raw = _only(opt_state, WatchState)
    inner = _found(raw.inner, GivenGradsState)
    if len(inner) > 1:
        raise InputError(f"{len(inner)} links are watch('grads'), expected one before the rule")
    return raw.grads, inner[0].grads if inner else raw.grads


def unwatched(opt_state: optax.OptState) -> optax.OptState:
    """The state without what `watch` adds: what the optimizer itself keeps.

    Args:
        opt_state: A state that may be watched.

    Returns:
        The state, with `optax.EmptyState()` in the place of a `watch("grads")`.
    """

    def own(node: Any) -> Any:
        if isinstance(node, WatchState):
            return unwatched(node.inner)
        return optax.EmptyState() if isinstance(node, GivenGradsState) else node

    return jax.tree.map(own, opt_state, is_leaf=_is_watch)


def _given_none(params: Tree) -> GivenGradsState:
    return GivenGradsState(_zeros(params))


def _given(grads: Tree, state: GivenGradsState, params: Tree = None, **extra: Any) -> Any:
    return grads, GivenGradsState(grads)


def _zeros(params: Tree) -> Tree:
    """Zeros like params, made by NumPy: XLA compiles a program for every shape."""
    return jax.tree.map(lambda leaf: jnp.asarray(np.zeros(leaf.shape, leaf.dtype)), params)


def _is_watch(node: Any) -> bool:
    return isinstance(node, WatchState | GivenGradsState)


def _found(tree: Tree, kind: type) -> list[Any]:
    nodes = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, kind))
    return [node for node in nodes if isinstance(node, kind)]


def _only(opt_state: optax.OptState, kind: type) -> Any:
    found = _found(opt_state, kind)
    if len(found) != 1:
        raise InputError(
            f"the optimizer's state has {len(found)} watched optimizers, expected one: "
            "tx = watch(optax.chain(...)) around everything"
        )
    return found[0]


class TeacherForced(NamedTuple):
    """The state of `teacher_forced`.

    Args:
        recorded: The gradients to update by, a tree like the parameters.
        grads: Those that came in the last update, and were not used.
        inner: What the optimizer itself keeps.
    """

    recorded: Tree
    grads: Tree
    inner: optax.OptState


def teacher_forced(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """An optimizer that updates by the gradients in its state, whatever it is given.

    So an update is judged alone: where a gradient is almost 0, Adam makes much of its rounding.

    Args:
        optimizer: Any of optax's or the kit's.

    Returns:
        An optimizer whose state is a `TeacherForced`.
    """
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Tree) -> TeacherForced:
        return TeacherForced(_zeros(params), _zeros(params), inner.init(params))

    def update(grads: Tree, state: TeacherForced, params: Tree = None, **extra: Any) -> Any:
        updates, after = inner.update(state.recorded, state.inner, params, **extra)
        return updates, TeacherForced(state.recorded, grads, after)

    return optax.GradientTransformationExtraArgs(init, update)
