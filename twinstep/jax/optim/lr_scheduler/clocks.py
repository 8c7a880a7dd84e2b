"""A schedule whose clock is not the optimizer's."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from twinstep.jax.optim.lr_scheduler.counts import whole_count


class OwnClockState(NamedTuple):
    """count: () int32, calls of `update` so far; inner: the optimizer's own state."""

    count: Any
    inner: Any


def own_clock(
    make: Callable[[jax.Array], optax.GradientTransformation],
) -> optax.GradientTransformationExtraArgs:
    """An optimizer whose schedules count every call, those that it skips too.

    A schedule that is given as `lr` counts the updates that its optimizer made: it waits where
    `optax.apply_if_finite` skips one. So it is in PyTorch where `scheduler.step()` is left out with
    the step. Where a `GradScaler` skips `optimizer.step()` and `scheduler.step()` is called all the
    same, and where it is called after each micro-batch, the schedule has a clock of its own.

    Args:
        make: The calls so far, () int, to the optimizer of this call. Its numbers may change with
            the count, the form of its state may not.

    Returns:
        An `optax.GradientTransformationExtraArgs`; its state has the count beside the optimizer's.

    Example:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> from twinstep.jax.optim import sgd
        >>> from twinstep.jax.optim.lr_scheduler import own_clock, step_lr
        >>> schedule = step_lr(0.1, step_size=1, gamma=0.5)
        >>> optimizer = own_clock(
        ...     lambda count: optax.apply_if_finite(sgd(lr=schedule(count)), 100)
        ... )
        >>> params = jnp.zeros(())
        >>> state = optimizer.init(params)
        >>> for grad in (1.0, jnp.inf, 1.0):
        ...     update, state = optimizer.update(jnp.asarray(grad), state, params)
        ...     print(round(float(update), 4))
        -0.1
        0.0
        -0.025

    Source: https://docs.pytorch.org/docs/stable/amp.html#gradient-scaling
    """

    def init(params: optax.Params) -> OwnClockState:
        return OwnClockState(jnp.zeros((), jnp.int32), make(whole_count(0)).init(params))

    def update(
        grads: optax.Updates,
        state: OwnClockState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, OwnClockState]:
        optimizer = optax.with_extra_args_support(make(whole_count(state.count)))
        updates, inner = optimizer.update(grads, state.inner, params, **extra)
        return updates, OwnClockState(state.count + 1, inner)

    return optax.GradientTransformationExtraArgs(init, update)
