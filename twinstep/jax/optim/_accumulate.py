"""Gradient accumulation: one update from the gradients of several micro-batches."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from twinstep.errors import InputError
from twinstep.jax.optim.base import zeros_like


class AccumulateState(NamedTuple):
    """micro_step: () int32, micro-batches since the last update; grad: like params, their sum.

    inner: the optimizer's own state
    """

    micro_step: jax.Array
    grad: Any
    inner: Any


def accumulate(
    optimizer: optax.GradientTransformation, micro_batches: int, *, mean: bool = False
) -> optax.GradientTransformationExtraArgs:
    """An optimizer that moves every micro_batches-th time, by the sum of the gradients since.

    As PyTorch's `.grad` piles up where `zero_grad` and `step` are called once for several
    `backward`; in between, updates are 0.
    optax.MultiSteps takes the mean, and sums in float32, whatever the gradients are, unless it is
    told otherwise.

    Args:
        optimizer: Any of optax's or of this package's.
        micro_batches: How many gradients make one update, 1 or more.
        mean: Whether each gradient is first divided by their number, as `(loss / n).backward()`
            does in PyTorch.

    Returns:
        An `optax.GradientTransformationExtraArgs`; its state is `AccumulateState`, with the sum of
        the gradients (like the parameters) beside the optimizer's own state. What `update` is given
        besides goes on to the optimizer.

    Raises:
        InputError: For micro_batches below 1.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import accumulate, sgd
        >>> optimizer, params = accumulate(sgd(lr=0.5), 2), jnp.array(1.0)
        >>> state = optimizer.init(params)
        >>> for grad in (1.0, 3.0):
        ...     updates, state = optimizer.update(jnp.array(grad), state, params)
        ...     print(updates)
        0.0
        -2.0

    Source: https://docs.pytorch.org/docs/stable/notes/amp_examples.html#gradient-accumulation
    """
    if not micro_batches >= 1:
        raise InputError(f"accumulate: micro_batches is {micro_batches!r}, expected 1 or more")
    optimizer = optax.with_extra_args_support(optimizer)

    def init(params: optax.Params) -> AccumulateState:
        return AccumulateState(jnp.zeros((), jnp.int32), zeros_like(params), optimizer.init(params))

    def update(
        grads: optax.Updates,
        state: AccumulateState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, AccumulateState]:
        share = micro_batches if mean else 1
        total = jax.tree.map(lambda sum_, g: sum_ + g / share, state.grad, grads)

        def move() -> tuple[optax.Updates, AccumulateState]:
            updates, inner = optimizer.update(total, state.inner, params, **extra)
            return updates, AccumulateState(
                jnp.zeros_like(state.micro_step), zeros_like(total), inner
            )

        def wait() -> tuple[optax.Updates, AccumulateState]:
            return zeros_like(total), AccumulateState(state.micro_step + 1, total, state.inner)

        result: tuple[optax.Updates, AccumulateState]
        result = jax.lax.cond(state.micro_step + 1 == micro_batches, move, wait)
        return result

    return optax.GradientTransformationExtraArgs(init, update)
