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

from twinstep.errors import InputError
from twinstep.jax.optim.base import Scheduled, check_arguments, lerp, value_at
from twinstep.jax.optim.lr_scheduler.base import whole
from twinstep.jax.optim.lr_scheduler.counts import clock, whole_count
from twinstep.jax.optim.narrow import divided, rounded, times, wide
from twinstep.jax.trees import by_path, dotted, leaves_like

AvgFn = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""(averaged parameter, current parameter, models averaged so far) -> new averaged parameter"""

_STRATEGIES = ("cos", "linear")
_AVERAGED = (
    *("float64", "float32", "bfloat16", "float16", "complex128", "complex64"),
    *("int64", "int32", "int16", "int8", "uint8", "bool"),
)
"""The dtypes that PyTorch computes with."""


class AveragedState(NamedTuple):
    """params: like the parameters; n_averaged: () int32, how many models that is the average of."""

    params: Any
    n_averaged: jax.Array


def averaged(params: Any, n_averaged: int = 0) -> AveragedState:
    """A copy of the parameters, which the first update replaces.

    Args:
        params: The parameters, any tree of arrays. A model's buffers are among them where PyTorch
            has `use_buffers=True`; else they stay the model's own.
        n_averaged: How many models these are the average of. 0: none, so that the first update is a
            copy, as in PyTorch. 1: that first update is averaged too, as in timm's `ModelEma`.

    Returns:
        `AveragedState`: params, like the parameters, and n_averaged, () int32.

    Raises:
        InputError: For an n_averaged that is no whole number from 0 on.

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
    check_arguments("averaged", n_averaged=whole(n_averaged, 0))
    copy = jax.tree.map(lambda p: jnp.array(p, copy=True), params)
    return AveragedState(copy, jnp.array(n_averaged, jnp.int32))


def swa_avg(average: jax.Array, current: jax.Array, n_averaged: jax.Array) -> jax.Array:
    """The mean of all so far, by their difference over n + 1: PyTorch's `get_swa_avg_fn()`.

    What AveragedModel does on a CPU unless it is told otherwise. On a GPU that is `swa_multi_avg`.

    Args:
        average: An averaged parameter.
        current: The same parameter now, of the same shape.
        n_averaged: n, () int: how many models the average is of.

    Returns:
        The new average, of that shape; of integers, not cut to one yet.

    Raises:
        InputError: For booleans, which PyTorch does not subtract.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import swa_avg
        >>> average = swa_avg(jnp.array([1.0]), jnp.array([4.0]), jnp.array(2))
        >>> [round(a, 4) for a in average.tolist()]  # of 1, 1 and 4
        [2.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.swa_utils.AveragedModel.html
    """
    _refuse("swa_avg", average, current, jnp.bool_)
    gap = current - average  # integers wrap round
    if jnp.issubdtype(gap.dtype, jnp.inexact):
        gap = rounded(wide(current) - wide(average), gap.dtype)
    return _sum(average, divided(_number(gap), n_averaged + 1))


def swa_multi_avg(average: jax.Array, current: jax.Array, n_averaged: jax.Array) -> jax.Array:
    """The mean of all so far, by torch.lerp with 1 / (n + 1): PyTorch's `get_swa_multi_avg_fn()`.

    PyTorch computes the weight in its default dtype: float32 rounds it for float64 models, too.

    Args:
        average: An averaged parameter.
        current: The same parameter now, of the same shape.
        n_averaged: n, () int: how many models the average is of.

    Returns:
        The new average, of that shape and dtype.

    Raises:
        InputError: For integers, which PyTorch's does not take.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import swa_multi_avg
        >>> average = swa_multi_avg(jnp.array([1.0]), jnp.array([4.0]), jnp.array(2))
        >>> [round(a, 4) for a in average.tolist()]  # of 1, 1 and 4
        [2.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.swa_utils.AveragedModel.html
    """
    _refuse("swa_multi_avg", average, current, jnp.integer, jnp.bool_)
    return _lerp(average, current, 1 / (n_averaged + 1).astype(float))


def ema_avg(decay: float = 0.999) -> AvgFn:
    """An exponential moving average, by two products: PyTorch's `get_ema_avg_fn(decay)`.

    timm's `ModelEma` is the same from the first update on: `averaged(params, n_averaged=1)`.

    Args:
        decay: What of the average stays, from 0 to 1.

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
    _check_decay("ema_avg", decay)
    return lambda average, current, n_averaged: _sum(
        times(average, decay), times(current, 1 - decay)
    )


def ema_multi_avg(decay: float = 0.999) -> AvgFn:
    """An exponential moving average, by torch.lerp: PyTorch's `get_ema_multi_avg_fn(decay)`.

    Args:
        decay: What of the average stays, from 0 to 1.

    Returns:
        What `update_averaged` takes as avg_fn: (average, current, n_averaged) to the new average.

    Raises:
        InputError: For a decay outside [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import averaged, ema_multi_avg, update_averaged
        >>> state = averaged(jnp.array(0.0))
        >>> for w in (1.0, 5.0):  # the first is copied
        ...     state = update_averaged(state, jnp.array(w), ema_multi_avg(decay=0.75))
        >>> print(state.params)
        2.0

    Source: https://docs.pytorch.org/docs/stable/optim.html#custom-averaging-strategies
    """
    _check_decay("ema_multi_avg", decay)
    by_products = ema_avg(decay)

    def rule(average: jax.Array, current: jax.Array, n_averaged: jax.Array) -> jax.Array:
        if jnp.issubdtype(average.dtype, jnp.inexact):
            return _lerp(average, current, 1 - decay)
        return by_products(average, current, n_averaged)

    return rule


def update_averaged(state: AveragedState, params: Any, avg_fn: AvgFn = swa_avg) -> AveragedState:
    """The average with one model more; the first one is copied.

    PyTorch's `update_parameters(model)`, which is called after an optimizer's step. All that is in
    the tree is averaged, integers too, which are then cut to whole ones, as PyTorch does with
    `use_buffers=True`.

    Args:
        state: What `averaged` or the last call gave.
        params: The parameters now, a tree of the same form.
        avg_fn: `swa_avg`, `swa_multi_avg`, `ema_avg(decay)`, `ema_multi_avg(decay)`, or another
            function of an averaged parameter, the same one now, and the number of models averaged
            so far, () of the widest int, that gives the new average.

    Returns:
        `AveragedState`, one model further, of the dtypes that the average has.

    Raises:
        InputError: For a leaf that is missing, unknown, of another shape, or of a dtype that
            PyTorch cannot average.

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
    first, n_averaged = state.n_averaged == 0, whole_count(state.n_averaged)

    def rule(name: str, average: jax.Array, current: jax.Array) -> jax.Array:
        if str(average.dtype) not in _AVERAGED:
            raise InputError(
                f"update_averaged: {name!r} is {average.dtype}, expected one of "
                f"{', '.join(_AVERAGED)}"
            )
        try:
            new = jnp.asarray(avg_fn(average, current, n_averaged))
        except InputError as error:
            raise InputError(f"update_averaged: {name!r}: {error}") from None
        return jnp.where(first, current.astype(average.dtype), rounded(new, average.dtype))

    names = map(dotted, by_path(state.params))
    leaves, treedef = jax.tree.flatten(state.params)
    now = leaves_like(state.params, params, "params")
    new = [rule(*given) for given in zip(names, leaves, now, strict=True)]
    return AveragedState(jax.tree.unflatten(treedef, new), state.n_averaged + 1)


def _check_decay(name: str, decay: Any) -> None:
    right = (decay, "a number from 0 to 1", lambda v: not (v < 0.0 or v > 1.0))
    check_arguments(name, decay=right)


def _refuse(name: str, average: jax.Array, current: jax.Array, *kinds: Any) -> None:
    for array in (average, current):
        if any(jnp.issubdtype(array.dtype, kind) for kind in kinds):
            raise InputError(f"{name} is given {array.dtype}: PyTorch does not average it so")


def _number(x: jax.Array) -> jax.Array:
    """As it is; integers in the widest float, PyTorch's default dtype."""
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(float)


def _sum(a: jax.Array, b: jax.Array) -> jax.Array:
    a = _number(a)
    return rounded(wide(a) + wide(b), jnp.promote_types(a.dtype, b.dtype))


def _lerp(average: jax.Array, current: jax.Array, weight: Any) -> jax.Array:
    start, end = wide(average), wide(current)
    result = lerp(start, end, jnp.asarray(weight, jnp.promote_types(start.dtype, end.dtype)).real)
    return rounded(result, jnp.promote_types(average.dtype, current.dtype))


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
