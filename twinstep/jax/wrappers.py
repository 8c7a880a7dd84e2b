"""What optax's wrappers say of an update: how far it is, whether it was one, by which numbers.

MultiSteps makes an update of several micro-steps, apply_if_finite makes none of what is not finite,
inject_hyperparams keeps hyper-parameters in the state. PyTorch's optimizers know none of them: what
is recorded of a state is what is inside.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import optax

from twinstep.jax.watching import GivenGradsState, WatchState

Tree = Any
_TORCH = {"learning_rate": "lr", "b1": "betas.0", "b2": "betas.1"}
"""{optax's name of a hyper-parameter: PyTorch's}; others are called the same, or are others."""


class Progress(NamedTuple):
    """How far an optimizer is; None: no such wrapper says so.

    updates: how many `watch` has seen
    mini_step, gradient_step: micro-steps since the last update of MultiSteps, and such updates
    finite: whether the last gradients were, so that apply_if_finite made an update
    """

    updates: Any = None
    mini_step: Any = None
    gradient_step: Any = None
    finite: Any = None


def progress(opt_state: Tree) -> tuple[Progress, Tree]:
    """How far an optimizer is, and the gradients that MultiSteps has accumulated, or None."""
    says, accumulated = Progress(), None
    for node in _around(opt_state):
        if isinstance(node, WatchState):
            says = says._replace(updates=node.updates)
        elif isinstance(node, optax.MultiStepsState) and says.mini_step is None:
            says = says._replace(mini_step=node.mini_step, gradient_step=node.gradient_step)
            accumulated = node.acc_grads
        elif isinstance(node, optax.ApplyIfFiniteState) and says.finite is None:
            says = says._replace(finite=node.last_finite)
    return says, accumulated


def mean_is_given(opt_state: Tree) -> bool:
    """Whether a `watch("grads")` holds what MultiSteps has averaged, and what nothing has changed.

    Made anew from the micro-steps' gradients it may differ in the last bit.
    """
    node = opt_state
    while type(node) in (tuple, list) and len(node) == 1:
        node = node[0]
    if not (isinstance(node, WatchState) and isinstance(node.inner, optax.MultiStepsState)):
        return False
    node = node.inner.inner_opt_state
    while type(node) is tuple and node:
        node = node[0]
    return isinstance(node, GivenGradsState)


def bare(opt_state: Tree) -> Tree:
    """A state without its wrappers: what an optimizer keeps to update by."""

    def own(node: Any) -> Any:
        if isinstance(node, GivenGradsState):
            return optax.EmptyState()
        return bare(_inside(node)) if _wraps(node) else node

    return jax.tree.map(
        own,
        opt_state,
        is_leaf=lambda node: _wraps(node) or isinstance(node, GivenGradsState),
    )


def hyper_parameters(opt_state: Tree) -> dict[str, Any]:
    """{"0.lr": number} of each inject_hyperparams, in order, under PyTorch's names."""
    found: dict[str, Any] = {}
    nodes = [opt_state]
    group = 0
    while nodes:
        node = nodes.pop(0)
        if _injects(node):
            for name, value in node.hyperparams.items():
                found[f"{group}.{_TORCH.get(name, name)}"] = value
            group += 1
            nodes.insert(0, node.inner_state)
            continue
        below = jax.tree.leaves(node, is_leaf=_injects)
        nodes[:0] = [inner for inner in below if _injects(inner)]
    return found


def _around(node: Any) -> Iterator[Any]:
    """The wrappers that the whole of an update passes, from outside; none of a part of it."""
    if _wraps(node):
        yield node
        yield from _around(_inside(node))
    elif type(node) in (tuple, list):
        for one in node:
            yield from _around(one)


def _injects(node: Any) -> bool:
    return hasattr(node, "hyperparams") and hasattr(node, "inner_state")


def _wraps(node: Any) -> bool:
    known = WatchState | optax.MultiStepsState | optax.ApplyIfFiniteState
    return isinstance(node, known) or _injects(node)


def _inside(node: Any) -> Tree:
    if isinstance(node, WatchState):
        return node.inner
    if isinstance(node, optax.MultiStepsState):
        return node.inner_opt_state
    return node.inner_state
