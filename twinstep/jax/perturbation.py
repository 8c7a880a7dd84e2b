"""What rounding does to a training, tried out: with parameters and gradients off by some eps."""

from collections import abc
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from twinstep.jax.layout import Mapping
from twinstep.judge.tolerance import GRADIENT_PERTURBATION, PERTURBED_RERUNS

# Two reruns are perturbed alike at every step, one each way; others as it comes. Of 32 bits in
# either mode: JAX remembers one NumPy array's conversion, whatever x64 says since.
STEADY = np.array([1, -1, *(0 for _ in range(PERTURBED_RERUNS - 2))], np.int32)


def split_keys(keys: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The reruns' keys to go on with, and those of a step's gradients and parameters."""
    go_on, of_grads, of_params = jnp.moveaxis(
        jax.vmap(lambda key: jax.random.split(key, 3))(keys), 1, 0
    )
    return jnp.where(STEADY, keys, go_on), of_grads, of_params


def max_distance(
    ledger: abc.Mapping[str, Any], theirs: abc.Mapping[str, Any], integer_state: Collection[str]
) -> dict[str, jax.Array]:
    """{"stage/name": ()}: the largest distance of some ledgers, stacked, from one of a step.

    integer_state: names that do not round: a run that makes another number of evaluations is
        another
    """
    gaps = {}
    noisy = ("loss", "raw_grads", "grads", "opt_state", "params", "buffers")
    for stage in (stage for stage in noisy if stage in ledger):
        mine = {"loss": ledger[stage]} if stage == "loss" else ledger[stage]
        other = {"loss": theirs[stage]} if stage == "loss" else theirs[stage]
        for name, array in mine.items():
            gap = jnp.max(jnp.abs(other[name] - array), initial=0)
            whole = jnp.issubdtype(array.dtype, jnp.integer)
            whole |= stage == "opt_state" and name in integer_state
            gaps[f"{stage}/{name}"] = jnp.zeros_like(gap) if whole else gap
    return gaps


def perturbed(state: tuple[Any, ...], key: jax.Array, steady: Any, eps: Any) -> tuple[Any, ...]:
    """Every parameter off by up to one eps of itself; steady, (): by a whole one, 1 or -1 way."""

    def off(leaf: jax.Array, draw: jax.Array) -> jax.Array:
        moved: jax.Array = leaf * (1 + eps * jnp.where(steady, steady * jnp.sign(draw), draw))
        return moved

    params, *rest = state
    return (jax.tree.map(off, params, random_like(params, key)), *rest)


def random_like(tree: Any, key: jax.Array) -> Any:
    """A tree of numbers from -1 to 1. One draw for all: XLA compiles a draw longer than a layer."""
    flat, unravel = ravel_pytree(tree)
    return unravel(jax.random.uniform(key, flat.shape, flat.dtype, -1))


def perturbed_optimizer(
    optimizer: optax.GradientTransformation,
    layout: Mapping,
    rounding_scale: abc.Mapping[str, jax.Array],
    key: jax.Array,
) -> optax.GradientTransformation:
    """The optimizer, given gradients that are off by some eps of what they are made of.

    Where a gradient cancels to almost nothing its rounding does not shrink with it, and Adam makes
    much of it: no perturbation of the parameters shows that. An optimizer that evaluates by itself
    gets every loss and gradient off by up to one, as often as it evaluates.
    rounding_scale: {"loss/loss": (), "raw_grads/name": ()}, what an eps comes to
    """

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        if (closure := extra.get("value_and_grad_fn")) is not None:
            off = each(extra["value"], grads)
            extra["value"], grads = off(extra["value"], grads)
            extra["value_and_grad_fn"] = lambda at: off(*closure(at))
        else:
            grads = once(grads)
        return optax.with_extra_args_support(optimizer).update(grads, state, params, **extra)

    def once(grads: Any) -> Any:
        named = layout.to_torch(grads)
        draws = random_like(named, key)
        off = {}
        for name, grad in named.items():
            limit = GRADIENT_PERTURBATION * rounding_scale[f"raw_grads/{name}"]
            off[name] = grad + limit * draws[name]
        leaves = jax.tree.leaves(layout.to_jax(off))
        return jax.tree.unflatten(jax.tree.structure(grads), leaves)

    def each(*like: Any) -> Callable[[jax.Array, Any], tuple[jax.Array, Any]]:
        leaves, treedef = jax.tree.flatten(like)  # the loss, and gradients in the layout's order
        names = ["loss/loss", *(f"raw_grads/{slot.names[0]}" for slot in layout.slots)]
        pairs = zip(leaves, (rounding_scale[name] for name in names), strict=True)
        units, unravel = ravel_pytree([jnp.full_like(leaf, size) for leaf, size in pairs])
        draw = jax.random.uniform(key, units.shape, units.dtype, -1)

        def off(loss: jax.Array, grads: Any) -> tuple[jax.Array, Any]:
            values, _ = ravel_pytree((loss, grads))
            # of one draw, from another entry on for other values: the same perturbation for all
            # would cancel in their differences, and a draw for each takes long to compile in a loop
            start = _number(values) % len(draw)
            perturbation = units * jnp.roll(draw, start)
            moved: tuple[jax.Array, Any]
            moved = jax.tree.unflatten(treedef, unravel(values + perturbation))
            return moved

        return off

    return optax.GradientTransformationExtraArgs(optimizer.init, update)


def _number(values: jax.Array) -> jax.Array:
    """A whole number that is another one for other values."""
    return jnp.sum(jax.lax.bitcast_convert_type(values, jnp.uint32), dtype=jnp.uint32)
