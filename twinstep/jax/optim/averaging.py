"""Averaged parameters: torch.optim.swa_utils.

state = averaged(params)                       # AveragedModel(model)
state = update_averaged(state, params)         # update_parameters(model), after a step
nnx.merge(graph, state.params)                 # the averaged model
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from twinstep.jax.optim.base import Scheduled, check_arguments, lerp, value_at
from twinstep.jax.optim.lr_scheduler.counts import clock

AvgFn = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""(averaged parameter, current parameter, models averaged so far) -> new averaged parameter"""

_STRATEGIES = ("cos", "linear")


class AveragedState(NamedTuple):
    """params: like the parameters; n_averaged: () int32, updates made."""

    params: Any
    n_averaged: jax.Array


def averaged(params: Any) -> AveragedState:
    """A copy of the parameters, which the first update replaces.

    Args:
        params: The parameters, any tree of arrays; a model's buffers may be among them.

    Returns:
        `AveragedState`: params, like the parameters, and n_averaged, () int32, 0.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import averaged, update_averaged
        >>> state = averaged({"w": jnp.zeros(2)})
        >>> for w in (1.0, 2.0, 6.0):
        ...     state = update_averaged(state, {"w": jnp.full(2, w)})
        >>> print(state.params["w"], state.n_averaged)
        [3. 3.] 3

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.swa_utils.AveragedModel.html
    """
    copy = jax.tree.map(lambda p: jnp.array(p, copy=True), params)
    return AveragedState(copy, jnp.zeros((), jnp.int32))


def swa_avg(average: jax.Array, current: jax.Array, n_averaged: jax.Array) -> jax.Array:
    """The mean of all so far, by torch.lerp with the weight 1 / (n + 1).

    PyTorch computes the weight in its default dtype: float32 rounds it for float64 models, too.

    Args:
        average: An averaged parameter.
        current: The same parameter now, of the same shape.
        n_averaged: n, () int32: how many models the average is of.

    Returns:
        The new average, of that shape and dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import swa_avg
        >>> average = swa_avg(jnp.array([1.0]), jnp.array([4.0]), jnp.array(2))
        >>> [round(a, 4) for a in average.tolist()]  # of 1, 1 and 4
        [2.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.swa_utils.AveragedModel.html
    """
    weight = (1 / (n_averaged + 1).astype(float)).astype(average.dtype)
    return lerp(average, current, weight)


def ema_avg(decay: float = 0.999) -> AvgFn:
    """An exponential moving average: decay of the average and 1 - decay of what is new.

    PyTorch's `get_ema_multi_avg_fn(decay)`.

    Args:
        decay: From 0 to 1.

    Returns:
        What `update_averaged` takes as avg_fn: (average, current, n_averaged) to the new average.

    Raises:
        InputError: For a decay outside [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import averaged, ema_avg, update_averaged
        >>> state = averaged(jnp.array(0.0))
        >>> for w in (1.0, 5.0):  # the first is copied
        ...     state = update_averaged(state, jnp.array(w), ema_avg(decay=0.75))
        >>> print(state.params)
        2.0

    Source: https://docs.pytorch.org/docs/stable/optim.html#custom-averaging-strategies
    """
    check_arguments(
        "ema_avg", decay=(decay, "a number from 0 to 1", lambda v: not (v < 0.0 or v > 1.0))
    )
    return lambda average, current, n_averaged: lerp(
        average, current, jnp.asarray(1 - decay, average.dtype)
    )


def update_averaged(state: AveragedState, params: Any, avg_fn: AvgFn = swa_avg) -> AveragedState:
    """The average with one model more; the first one is copied.

    PyTorch's `update_parameters(model)`, which is called after an optimizer's step. Integers
    (counters among a model's buffers) are copied, as they cannot be averaged.

    Args:
        state: What `averaged` or the last call gave.
        params: The parameters now, a tree of the same form.
        avg_fn: `swa_avg`, `ema_avg(decay)`, or another function of an averaged parameter, the same
            one now, and the number of models averaged so far, () int32, that gives the new average.

    Returns:
        `AveragedState`, one model further.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import averaged, update_averaged
        >>> state = averaged({"w": jnp.array(9.0)})
        >>> for w in (1.0, 3.0):
        ...     state = update_averaged(state, {"w": jnp.array(w)})
        ...     print(state.params["w"])
        1.0
        2.0

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.swa_utils.AveragedModel.html
    """
    first, n_averaged = state.n_averaged == 0, state.n_averaged

    def rule(average: jax.Array, current: jax.Array) -> jax.Array:
        if not jnp.issubdtype(average.dtype, jnp.floating):
            return current
        return jnp.where(first, current, avg_fn(average, current, n_averaged))

    return AveragedState(jax.tree.map(rule, state.params, params), n_averaged + 1)


def swa_lr(
    lr: Scheduled,
    swa_lr: float,
    anneal_epochs: int = 10,
    anneal_strategy: str = "cos",
    *,
    start: int = 0,
) -> optax.Schedule:
    """Goes from lr to swa_lr in anneal_epochs, and stays: SWALR.

    PyTorch computes each rate from the last one, this from the first: apart by rounding.

    Args:
        lr: The rate before: a float, or a schedule, which is followed up to `start`, whose rate is
            then left for swa_lr.
        swa_lr: The rate to end with.
        anneal_epochs: A whole number of 0 or more; 0 goes there at once.
        anneal_strategy: "cos" or "linear".
        start: The epoch (or step: what the schedule is asked with) in which PyTorch's first moves.

    Returns:
        An `optax.Schedule`: epochs (or steps) so far, (), to the rate, ().

    Raises:
        InputError: For a value that PyTorch refuses.

    Example:
        >>> from twinstep.jax.optim import swa_lr
        >>> schedule = swa_lr(0.5, 0.1, anneal_epochs=4, anneal_strategy="linear", start=2)
        >>> [round(float(schedule(epoch)), 4) for epoch in range(8)]
        [0.5, 0.5, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.swa_utils.SWALR.html
    """
    check_arguments(
        "swa_lr",
        anneal_epochs=(
            anneal_epochs,
            "a whole number of 0 or more",
            lambda v: isinstance(v, int) and v >= 0,
        ),
        anneal_strategy=(anneal_strategy, f"one of {_STRATEGIES}", lambda v: v in _STRATEGIES),
    )

    def schedule(count: Any) -> jax.Array:
        count = clock("swa_lr", count)
        done = jnp.asarray(count - start, float) / max(1, anneal_epochs)
        t = jnp.clip(done if anneal_epochs else jnp.ones(()), 0, 1)
        alpha = t if anneal_strategy == "linear" else (1 - jnp.cos(math.pi * t)) / 2
        before = jnp.asarray(value_at(lr, jnp.minimum(count, start) + 1), float)
        return jnp.where(count < start, before, swa_lr * alpha + before * (1 - alpha))

    return schedule
