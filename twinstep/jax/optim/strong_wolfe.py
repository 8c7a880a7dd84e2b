"""PyTorch's line search for LBFGS: how far to go along a direction, by the strong Wolfe conditions.

f: loss, g: gradient (n,), t: how far along d, gtd: g.d, the slope there. Comparisons are written as
PyTorch writes them, so that a NaN takes the branch that it takes there.
Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.LBFGS.html
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

_C1, _C2 = 1e-4, 0.9


class _Point(NamedTuple):
    """What is known of one t: (), (), (n,), (); or of a bracket's two: (2,), (2,), (2, n), (2,)."""

    t: jax.Array
    f: jax.Array
    g: jax.Array
    gtd: jax.Array


class _Search(NamedTuple):
    """Looking for a bracket: the last two points, and how many were tried after the first."""

    prev: _Point
    new: _Point
    tried: jax.Array


class _Zoom(NamedTuple):
    """Narrowing a bracket; low: which of its two points is the lower one."""

    bracket: _Point
    low: jax.Array
    tried: jax.Array
    insuf_progress: jax.Array
    done: jax.Array


def strong_wolfe(
    evaluate: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    x: jax.Array,
    t: jax.Array,
    d: jax.Array,
    f: jax.Array,
    g: jax.Array,
    gtd: jax.Array,
    *,
    tolerance_change: float,
    max_ls: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """(loss, gradient, t, evaluations) of the point that was found, (), (n,), (), () int32.

    x, d: (n,), where it starts and the direction; t: (), the first guess; f, g, gtd: at x
    max_ls: () int32, how many more evaluations are left after the first
    """
    size = jnp.max(jnp.abs(d))
    start = _Point(jnp.zeros_like(t), f, g, gtd)

    def at(t: jax.Array) -> _Point:
        loss, grad = evaluate(x + t * d)
        return _Point(t, loss, grad, jnp.dot(grad, d))

    def too_high(new: _Point, lower: jax.Array) -> jax.Array:
        return (new.f > f + _C1 * new.t * gtd) | lower

    def level(new: _Point) -> jax.Array:
        return jnp.abs(new.gtd) <= -_C2 * gtd

    def overshot(now: _Search) -> jax.Array:
        return too_high(now.new, (now.tried > 1) & (now.new.f >= now.prev.f))

    def open_ended(now: _Search) -> jax.Array:
        return ~(overshot(now) | level(now.new) | (now.new.gtd >= 0))

    def farther(now: _Search) -> _Search:
        reach = now.new.t - now.prev.t
        bounds = (now.new.t + 0.01 * reach, now.new.t * 10)
        t = _cubic_interpolate(now.prev, now.new, bounds)
        return _Search(now.new, at(t), now.tried + 1)

    found = jax.lax.while_loop(
        lambda now: (now.tried < max_ls) & open_ended(now),
        farther,
        _Search(start, at(t), jnp.zeros((), jnp.int32)),
    )
    exhausted = found.tried == max_ls
    arrived = ~exhausted & ~overshot(found) & level(found.new)
    # one point twice where it is the answer; all from the start where no bracket was found
    other = jax.tree.map(
        lambda first, prev, new: jnp.where(exhausted, first, jnp.where(arrived, new, prev)),
        start,
        found.prev,
        found.new,
    )
    bracket = jax.tree.map(lambda *two: jnp.stack(two), other, found.new)

    def unfinished(now: _Zoom) -> jax.Array:
        width = jnp.abs(now.bracket.t[1] - now.bracket.t[0]) * size
        return ~now.done & (now.tried < max_ls) & ~(width < tolerance_change)

    def narrower(now: _Zoom) -> _Zoom:
        bracket, low, high = now.bracket, now.low, 1 - now.low
        t, insuf_progress = _inside(bracket, now.insuf_progress)
        new = at(t)
        bad = too_high(new, new.f >= bracket.f[low])
        done = ~bad & level(new)
        # the lower end moves to the new point, and the old one bounds it where the slope turned
        turned = ~bad & ~done & (new.gtd * (bracket.t[high] - bracket.t[low]) >= 0)
        replaced = jnp.where(bad, high, low)
        bracket = jax.tree.map(
            lambda two, one: (
                two.at[high].set(jnp.where(turned, two[low], two[high])).at[replaced].set(one)
            ),
            bracket,
            new,
        )
        low = jnp.where(bad, _lower(bracket), low)
        return _Zoom(bracket, low, now.tried + 1, insuf_progress, done)

    end = jax.lax.while_loop(
        unfinished,
        narrower,
        _Zoom(bracket, _lower(bracket), found.tried, jnp.zeros((), bool), arrived),
    )
    best = jax.tree.map(lambda two: two[end.low], end.bracket)
    return best.f, best.g, best.t, end.tried + 1


def _lower(bracket: _Point) -> jax.Array:
    return jnp.where(bracket.f[0] <= bracket.f[1], 0, 1)


def _cubic_interpolate(
    a: _Point, b: _Point, bounds: tuple[jax.Array, jax.Array] | None = None
) -> jax.Array:
    """Where the cubic through two points and slopes is lowest, kept within bounds, ()."""
    lowest, highest = (_smaller(a.t, b.t), _larger(a.t, b.t)) if bounds is None else bounds
    d1 = a.gtd + b.gtd - 3 * (a.f - b.f) / (a.t - b.t)
    square = d1**2 - a.gtd * b.gtd
    d2 = jnp.sqrt(jnp.where(square >= 0, square, 0))

    def between(left: _Point, right: _Point) -> jax.Array:
        share = (right.gtd + d2 - d1) / (right.gtd - left.gtd + 2 * d2)
        return right.t - (right.t - left.t) * share

    t = jnp.where(a.t <= b.t, between(a, b), between(b, a))
    t = _smaller(_larger(t, lowest), highest)
    return jnp.where(square >= 0, t, (lowest + highest) / 2)


def _inside(bracket: _Point, insuf_progress: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The next t within a bracket, and whether it was left near an edge.

    Near an edge a second time, or at it, t goes a tenth of the bracket inwards.
    """
    ends = [jax.tree.map(lambda two, i=i: two[i], bracket) for i in (0, 1)]
    t = _cubic_interpolate(*ends)
    low, high = _smaller(*bracket.t), _larger(*bracket.t)
    eps = 0.1 * (high - low)
    near = _smaller(high - t, t - low) < eps
    pushed = near & (insuf_progress | (t >= high) | (t <= low))
    inwards = jnp.where(jnp.abs(t - high) < jnp.abs(t - low), high - eps, low + eps)
    return jnp.where(pushed, inwards, t), near & ~pushed


def _larger(a: jax.Array, b: jax.Array) -> jax.Array:
    """Python's max(a, b): a unless b is greater, a NaN included."""
    return jnp.where(b > a, b, a)


def _smaller(a: jax.Array, b: jax.Array) -> jax.Array:
    """Python's min(a, b)."""
    return jnp.where(b < a, b, a)
