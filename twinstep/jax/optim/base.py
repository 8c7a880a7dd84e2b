"""What the optimizers have in common: hyper-parameters that may change, and refused values."""

import numbers
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from twinstep import errors
from twinstep.errors import Check, InputError
from twinstep.jax.trees import by_path, dotted

Tree = Any
Scheduled: TypeAlias = float | jax.Array | optax.Schedule
"""A number, or what gives it: a function of the updates made so far. An array may be traced."""


def value_at(value: Scheduled, step: jax.Array) -> Any:
    """A hyper-parameter's value in update `step`, (), counted from 1 as PyTorch's state does.

    A schedule is asked with the widest integer: float32 would hold a quotient of a narrower one.
    """
    return value(jnp.asarray(step - 1, int)) if callable(value) else value


def rate_at(lr: Scheduled, step: jax.Array) -> jax.Array:
    """The learning rate of update `step`, (), in the widest float: a leaf takes it in its own."""
    return jnp.asarray(value_at(lr, step), float)


def first_count(scheduled: bool) -> jax.Array:
    """The updates made so far: () int32 where a schedule asks for them, else () bool: whether any
    was, which is all that a state handed over has to say.
    """
    return jnp.zeros((), jnp.int32 if scheduled else bool)


def next_count(count: Any) -> Any:
    """The same after one more; None where nothing is counted."""
    return None if count is None else (count + 1).astype(count.dtype)


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


def full_like(params: Tree, value: Any) -> Tree:
    """A tree of that value like params; of a complex parameter, of both its parts."""

    def leaf(p: jax.Array) -> jax.Array:
        both = jnp.issubdtype(p.dtype, jnp.complexfloating)
        return jnp.full_like(p, value * (1 + 1j) if both else value)

    return jax.tree.map(leaf, params)


def check_real(optimizer: str, params: Tree) -> None:
    """Raises InputError for a complex parameter, which PyTorch's optimizer refuses."""
    for path, p in by_path(params).items():
        if jnp.issubdtype(p.dtype, jnp.complexfloating):
            raise InputError(
                f"{optimizer}: parameter {dotted(path)!r} has dtype {p.dtype}, expected a real one"
            )


def is_zero(value: Any) -> bool:
    """Whether a number is known to be 0; of a schedule or an array that is not known."""
    return is_known(value) and bool(value == 0)


def is_known(value: Any) -> bool:
    """Whether it is a number now: not a schedule, nor an array, which may be traced."""
    return not (callable(value) or isinstance(value, jax.Array))


def check_arguments(optimizer: str, **checks: Check) -> None:
    """Raises InputError for a value that PyTorch refuses; schedules and arrays pass, whose values
    are not known yet.
    """
    known = {name: check for name, check in checks.items() if is_known(check[0])}
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
        return all(0.0 <= beta < 1.0 for beta in (first, second) if is_known(beta))

    return value, "two numbers from 0 up to, not with, 1", right
