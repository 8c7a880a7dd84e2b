"""Optimizer rules as they are written wrongly, and right ones that are wrong at one step."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from twinstep.jax.optim import total_norm

Rule: TypeAlias = optax.GradientTransformation
Direction = Callable[[Any, Any, Any], Any]
"""Of both moments and the step from 1, where Adam goes."""


def adam_direction(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    first: bool = True,
    second: bool = True,
    offset: int = 0,
    eps_before: bool = False,
    largest: bool = False,
) -> Direction:
    """Adam's, with one thing wrong.

    Args:
        b1, b2, eps: Its settings.
        first, second: Whether that moment's bias is corrected.
        offset: How many steps the correction is ahead.
        eps_before: Whether eps is added before the second moment's correction, as Keras does.
        largest: Whether eps is a lower bound and not added.

    Returns:
        The direction.
    """

    def direction(m: Any, v: Any, t: Any) -> Any:
        of_first = 1 - b1 ** (t + offset) if first else 1.0
        of_second = jnp.sqrt(1 - b2 ** (t + offset)) if second else 1.0
        root = jnp.sqrt(v)
        if eps_before:
            return m / of_first / ((root + eps) / of_second)
        root = root / of_second
        return m / of_first / (jnp.maximum(root, eps) if largest else root + eps)

    return direction


def by_direction(
    direction: Direction, b1: float = 0.9, b2: float = 0.999, *, whole: bool = False
) -> Rule:
    """What goes in a direction of Adam's moments; whole: these are sums and not averages."""
    new1, new2 = (1.0, 1.0) if whole else (1 - b1, 1 - b2)

    def init(params: Any) -> optax.ScaleByAdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return optax.ScaleByAdamState(count=jnp.zeros((), jnp.int32), mu=zeros, nu=zeros)

    def update(grads: Any, state: Any, params: Any = None) -> Any:
        mu = jax.tree.map(lambda m, g: b1 * m + new1 * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + new2 * g**2, state.nu, grads)
        count = state.count + 1
        t = count.astype(jnp.result_type(float))
        updates = jax.tree.map(lambda m, v: direction(m, v, t), mu, nu)
        return updates, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

    return Rule(init, update)


def momentum_by(buffer: Callable[[Any, Any, Any], Any], used: Callable[[Any, Any], Any]) -> Rule:
    """Momentum whose buffer and use are given.

    Args:
        buffer: Of buffer, gradient and the count from 0, the next buffer.
        used: Of gradient and next buffer, the update.

    Returns:
        The transformation.
    """

    def init(params: Any) -> Any:
        return jnp.zeros((), jnp.int32), optax.TraceState(jax.tree.map(jnp.zeros_like, params))

    def update(grads: Any, state: Any, params: Any = None) -> Any:
        count, kept = state
        trace = jax.tree.map(lambda b, g: buffer(b, g, count), kept.trace, grads)
        return jax.tree.map(used, grads, trace), (count + 1, optax.TraceState(trace))

    return Rule(init, update)


class Counted(NamedTuple):
    """What a rule with a fault at one step keeps."""

    updates: jax.Array
    inner: Any
    before: Any


def at_step(
    rule: Rule,
    step: int,
    *,
    state: Callable[[Any, Any], Any] | None = None,
    updates: Callable[[Any, Any, Any], Any] | None = None,
    grads: Callable[[Any, Any], Any] | None = None,
) -> Rule:
    """A rule with one thing wrong at one step.

    Args:
        rule: The right one.
        step: From 1.
        state: Of the initial state and the one before the step, the one that it starts from.
        updates: Of updates, parameters and those of a step before, what is done instead.
        grads: Of gradients and those of a step before, what is used instead.

    Returns:
        The rule.
    """

    def init(params: Any) -> Counted:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return Counted(jnp.zeros((), jnp.int32), rule.init(params), (params, zeros))

    def update(given: Any, kept: Counted, params: Any = None) -> Any:
        now = kept.updates == step - 1

        def either(wrong: Any, right: Any) -> Any:
            return jax.tree.map(lambda w, r: jnp.where(now, w, r), wrong, right)

        inner, used = kept.inner, given
        if state:
            inner = either(state(rule.init(params), inner), inner)
        if grads:
            used = either(grads(given, kept.before[1]), given)
        made, inner = rule.update(used, inner, params)
        if updates:
            made = either(updates(made, params, kept.before[0]), made)
        return made, Counted(kept.updates + 1, inner, (params, given))

    return Rule(init, update)


def moments_reset(rule: Rule, step: int) -> Rule:
    """Its moments are zeros again at a step; counts go on."""

    def state(fresh: Any, kept: Any) -> Any:
        return jax.tree.map(
            lambda f, k: f if jnp.issubdtype(k.dtype, jnp.floating) else k, fresh, kept
        )

    return at_step(rule, step, state=state)


def rebuilt(rule: Rule, step: int) -> Rule:
    """Made anew at a step: counts and the schedule start again too."""
    return at_step(rule, step, state=lambda fresh, kept: fresh)


def skipped(rule: Rule, step: int) -> Rule:
    """Its update is lost at a step, though its state goes on."""
    return at_step(rule, step, updates=lambda made, *_: jax.tree.map(jnp.zeros_like, made))


def applied_twice(rule: Rule, step: int) -> Rule:
    """Its update is applied twice at a step."""
    return at_step(rule, step, updates=lambda made, *_: jax.tree.map(lambda u: 2 * u, made))


def rolled_back(rule: Rule, step: int) -> Rule:
    """The parameters are those of the step before again, as if a checkpoint was read."""
    return at_step(rule, step, updates=lambda _, now, old: jax.tree.map(jnp.subtract, old, now))


def stale(rule: Rule, step: int) -> Rule:
    """At a step it is given the gradients of the step before."""
    return at_step(rule, step, grads=lambda _, before: before)


def stateless(change: Callable[[Any, Any], Any]) -> Rule:
    """A link of a chain that makes other updates of updates and parameters, and keeps nothing."""
    return optax.stateless(change)


def times_rate(schedule: optax.Schedule) -> Rule:
    """The last link."""
    return optax.scale_by_learning_rate(schedule)


def by_norm_of_each(threshold: float) -> Rule:
    """Clips each leaf by its own norm."""

    def clip(u: Any) -> Any:
        return u * jnp.minimum(1.0, threshold / (jnp.linalg.norm(u.ravel()) + 1e-6))

    return stateless(lambda updates, _: jax.tree.map(clip, updates))


def to_norm(threshold: float) -> Rule:
    """Scales to a norm, where it is smaller too."""

    def scale(updates: Any, _: Any) -> Any:
        by = threshold / (total_norm(updates) + 1e-6)
        return jax.tree.map(lambda u: by * u, updates)

    return stateless(scale)


def by_largest(threshold: float) -> Rule:
    """Clips by the largest entry of all in place of the Euclidean norm."""

    def clip(updates: Any, _: Any) -> Any:
        largest = jnp.max(jnp.stack([jnp.abs(u).max() for u in jax.tree.leaves(updates)]))
        return jax.tree.map(lambda u: u * jnp.minimum(1.0, threshold / (largest + 1e-6)), updates)

    return stateless(clip)
