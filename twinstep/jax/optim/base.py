"""What the optimizers have in common: rates that may change, refused values, maps over leaves."""

import numbers
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from twinstep import errors
from twinstep.errors import Check, InputError

Tree = Any
Scheduled: TypeAlias = float | optax.Schedule
"""A number, or what gives it: a function of the updates made so far."""


def value_at(value: Scheduled, step: jax.Array) -> Any:
    """A hyper-parameter's value in update `step`, (), counted from 1 as PyTorch's state does.

    A function is given the widest integer: quotients of an int32 are float32 whatever x64 says.
    """
    return value(jnp.asarray(step, int) - 1) if callable(value) else value


def rate_at(lr: Scheduled, step: jax.Array) -> jax.Array:
    """The learning rate of update `step`, (), in the widest float: a leaf takes it in its own."""
    return jnp.asarray(value_at(lr, step), float)


def cast(value: Any, like: jax.Array) -> Any:
    """A scalar in a leaf's dtype; a Python number as it is, which widens nothing."""
    return value.astype(like.dtype) if isinstance(value, jax.Array) else value


def descent(grads: Tree, maximize: bool) -> Tree:
    """The gradients of what is to be made small."""
    return jax.tree.map(jnp.negative, grads) if maximize else grads


def l2_regularized(grads: Tree, params: Tree, weight_decay: float) -> Tree:
    """The gradients of the loss with weight_decay / 2 |p|^2 added to it."""
    if not weight_decay:
        return grads
    return jax.tree.map(lambda g, p: g + weight_decay * p, grads, require_params(params))


def decoupled_weight_decay(
    updates: Tree, params: Tree, rate: jax.Array, weight_decay: float
) -> Tree:
    """Updates of parameters that first shrink by rate * weight_decay of themselves.

    The product is rounded before the update is added, as PyTorch's is: that rounding has a bias.
    """
    if not weight_decay:
        return updates

    def rule(u: jax.Array, p: jax.Array) -> jax.Array:
        return (p * (1 - rate * weight_decay).astype(p.dtype) + u) - p

    return jax.tree.map(rule, updates, require_params(params))


def lerp(start: jax.Array, end: jax.Array, weight: Any) -> jax.Array:
    """From start towards end, from the nearer of the two: weight 1 gives the very end.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.lerp.html
    """
    distance = end - start
    near = abs(weight) < 0.5
    if isinstance(near, bool):  # known before it is compiled
        known: jax.Array = start + weight * distance if near else end - distance * (1 - weight)
        return known
    return jnp.where(near, start + weight * distance, end - distance * (1 - weight))


def require_params(params: Tree | None) -> Tree:
    """The parameters; InputError where `update` was not given them."""
    if params is None:
        raise InputError("params is None, expected the parameters: update(grads, state, params)")
    return params


def zeros_like(params: Tree) -> Tree:
    """A tree of zeros like params, a new one each time: a buffer may be given away."""
    return jax.tree.map(jnp.zeros_like, params)


def over_leaves(rule: Callable[..., tuple[jax.Array, ...]], *trees: Tree) -> tuple[Tree, ...]:
    """A rule of several results, leaf by leaf: as many trees as it has results."""
    treedef = jax.tree.structure(trees[0])
    results = [rule(*leaves) for leaves in zip(*map(jax.tree.leaves, trees), strict=True)]
    if not results:
        raise InputError("params has no leaves, expected at least one parameter")
    return tuple(jax.tree.unflatten(treedef, list(column)) for column in zip(*results, strict=True))


def check_arguments(optimizer: str, **checks: Check) -> None:
    """Raises InputError for a value that PyTorch refuses; schedules and arrays pass, whose values
    are not known yet.
    """
    known = {
        name: check
        for name, check in checks.items()
        if not (callable(check[0]) or isinstance(check[0], jax.Array))
    }
    errors.check_arguments(optimizer, **known)


def at_least_0(value: Any) -> Check:
    """A number that is not negative."""
    return value, "0 or more", lambda v: v >= 0.0


def number(value: Any) -> Check:
    """Any number, of whatever sign."""
    return value, "a number", lambda v: isinstance(v, numbers.Real) or hasattr(v, "dtype")


def fractions(value: Any) -> Check:
    """Two numbers from 0 up to, not with, 1; either may be a schedule or an array."""

    def right(pair: Any) -> bool:
        first, second = pair
        known = [b for b in (first, second) if not (callable(b) or isinstance(b, jax.Array))]
        return all(0.0 <= beta < 1.0 for beta in known)

    return value, "two numbers from 0 up to, not with, 1", right
