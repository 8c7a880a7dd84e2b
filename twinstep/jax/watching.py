"""An optimizer that carries its gradients in its state, so that a step need not give them out.

It works inside jit, scan, vmap and pmap. What is computed stays as it is; but gradients that a
compiled function gives out too may be fused in another way, and the last bit may differ.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from twinstep.errors import InputError
from twinstep.jax.spread import is_spread

Tree = Any
_AROUND = "tx = watch(...) around"
_MADE_BY = {  # what a state is of, for people
    "tuple": "an optax.chain",
    "MultiStepsState": "optax.MultiSteps",
    "ApplyIfFiniteState": "optax.apply_if_finite",
    "PartitionState": "optax.multi_transform",
    "MaskedState": "optax.masked",
    "InjectStatefulHyperparamsState": "optax.inject_hyperparams",
}


class WatchState(NamedTuple):
    """The state of a watched optimizer.

    Args:
        grads: The gradients of its last update, a tree like the parameters.
        inner: What the optimizer itself keeps.
        updates: () int32, how many it has made.
    """

    grads: Tree
    inner: optax.OptState
    updates: jax.Array


class GivenGradsState(NamedTuple):
    """The state of `watch("grads")`.

    Args:
        grads: The gradients that came by in the last update, a tree like the parameters.
    """

    grads: Tree


def watch(
    optimizer: optax.GradientTransformation | optax.MultiSteps | str,
) -> optax.GradientTransformationExtraArgs:
    """An optimizer whose state also holds the gradients of its last update.

    It stands around everything: what is inside another one, such as a link of a chain behind a
    clipping, is not given what was backpropagated, and is refused when the state is read.

    Args:
        optimizer: Any of optax's or the kit's, `optax.MultiSteps` too. Or "grads": a link of a
            chain that holds what comes by there, and changes nothing; before the rule itself that
            is what the rule is given.

    Returns:
        An optimizer that makes the same updates. XLA may round them in another way where it would
        have fused what made the gradients with what uses them, or a clipping's factors with the
        rule's own: of ten public programs the last bits of four did so.

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
    if isinstance(optimizer, optax.MultiSteps):  # takes further arguments, but does not say so
        optimizer = optax.GradientTransformationExtraArgs(optimizer.init, optimizer.update)
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Tree) -> WatchState:
        return WatchState(_zeros(params), inner.init(params), jnp.asarray(np.int32(0)))

    def update(grads: Tree, state: WatchState, params: Tree = None, **extra: Any) -> Any:
        updates, after = inner.update(grads, state.inner, params, **extra)
        return updates, WatchState(grads, after, state.updates + 1)

    return optax.GradientTransformationExtraArgs(init, update)


def gradients(opt_state: optax.OptState) -> tuple[Tree, Tree]:
    """What a watched optimizer's state holds: what was backpropagated, and what the rule was given.

    Args:
        opt_state: The state of a watched optimizer.

    Returns:
        Two trees like the parameters; one and the same where no link is `watch("grads")`. Such
        links in the parts of a `multi_transform` have each given its own leaves.

    Raises:
        InputError: For the state of an optimizer that is not watched, that is watched inside, or
            that has two `watch("grads")` for one parameter.
    """
    state = watched(opt_state)
    if state is None:
        raise InputError(
            f"the optimizer's state has 0 watched optimizers, expected one: {_AROUND} everything"
        )
    return state.grads, given(state.inner, state.grads)


def given(inner: optax.OptState, raw: Tree) -> Tree:
    """What links that are `watch("grads")` hold.

    Args:
        inner: The state of what such links stand in.
        raw: What was backpropagated.

    Returns:
        A tree like the parameters; `raw` itself where there is no such link.

    Raises:
        InputError: For two of them for one parameter.
    """
    links = [link.grads for link in _found(inner, GivenGradsState)]
    if not links:
        return raw

    def of_leaf(raw: Any, *given: Any) -> Any:
        there = [leaf for leaf in given if not isinstance(leaf, optax.MaskedNode)]
        if len(there) > 1:
            raise InputError(
                f"{len(there)} links are watch('grads') for one parameter, expected one before the "
                "rule"
            )
        return there[0] if there else raw

    return jax.tree.map(of_leaf, raw, *links)


def watched(opt_state: optax.OptState) -> WatchState | None:
    """The state of `watch`, which is around everything; None where nothing is watched.

    Args:
        opt_state: An optimizer's state, of one optimizer.

    Returns:
        It, or None.

    Raises:
        InputError: Where it is not the outermost one: its gradients are then not what was
            backpropagated.
    """
    node = opt_state
    while type(node) in (tuple, list) and len(node) == 1:
        node = node[0]
    inside = _found(node.inner if isinstance(node, WatchState) else node, WatchState)
    if isinstance(node, WatchState):
        if inside:
            raise InputError(f"a watch stands inside a watch, expected one: {_AROUND} everything")
        return node
    if len(inside) > 1:
        raise InputError(
            f"the optimizer's state has {len(inside)} watched optimizers, expected one: {_AROUND} "
            "what they are parts of; optimizers that have nothing around them are recorded one by "
            "one, by name="
        )
    if inside:
        kind = type(node).__name__
        raise InputError(
            f"watch stands inside {_MADE_BY.get(kind, kind)}, where gradients are not what was "
            f"backpropagated: {_AROUND} it"
        )
    return None


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


def watched_again(inner: optax.OptState, own: optax.OptState) -> optax.OptState:
    """The way back from `unwatched`.

    Args:
        inner: A state in which links may be `watch("grads")`.
        own: What `unwatched` makes of such a one.

    Returns:
        The latter, with the former's links.
    """

    def either(node: Any, new: Any) -> Any:
        return node if isinstance(node, GivenGradsState) else new

    return jax.tree.map(either, inner, own, is_leaf=_is_watch)


def _given_none(params: Tree) -> GivenGradsState:
    return GivenGradsState(_zeros(params))


def _given(grads: Tree, state: GivenGradsState, params: Tree = None, **extra: Any) -> Any:
    return grads, GivenGradsState(grads)


def _zeros(params: Tree) -> Tree:
    """Zeros like params, made by NumPy: XLA compiles a program for every shape.

    Of what is spread over processes no one has room for the whole.
    """

    def zeros(leaf: Any) -> jax.Array:
        if is_spread(leaf):
            return jnp.zeros_like(leaf)
        return jnp.asarray(np.zeros(leaf.shape, leaf.dtype))

    return jax.tree.map(zeros, params)


def _is_watch(node: Any) -> bool:
    return isinstance(node, WatchState | GivenGradsState)


def _found(tree: Tree, kind: type) -> list[Any]:
    nodes = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, kind))
    return [node for node in nodes if isinstance(node, kind)]


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
