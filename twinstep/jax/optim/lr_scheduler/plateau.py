"""The scheduler that waits for a metric to get better."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from twinstep.errors import check_arguments
from twinstep.jax.optim.lr_scheduler.base import number, one_of, rate


class PlateauState(NamedTuple):
    """What `reduce_lr_on_plateau` keeps: the rate, and how long the metric was no better.

    Args:
        lr: The rate now, () float.
        best: The best metric so far, () float.
        num_bad_epochs: Metrics since that were no better, () int32.
        cooldown_counter: Metrics still to come that do not count as bad, () int32.

    Example:
        >>> from twinstep.jax.optim.lr_scheduler import reduce_lr_on_plateau
        >>> plateau = reduce_lr_on_plateau(0.1, factor=0.5, patience=1)
        >>> state = plateau.update(plateau.update(plateau.init(), 0.9), 1.0)
        >>> round(float(state.best), 4), int(state.num_bad_epochs)
        (0.9, 1)

    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.ReduceLROnPlateau.html
    """

    lr: jax.Array
    best: jax.Array
    num_bad_epochs: jax.Array
    cooldown_counter: jax.Array


class Plateau(NamedTuple):
    """What `reduce_lr_on_plateau` makes: two functions, as an optax transformation is.

    Args:
        init: () -> `PlateauState`, that before the first metric.
        update: (state, metric) -> `PlateauState`, once an epoch, as PyTorch's
            `scheduler.step(metric)`; the metric is a number or an array, ().

    Example:
        >>> from twinstep.jax.optim.lr_scheduler import reduce_lr_on_plateau
        >>> plateau = reduce_lr_on_plateau(0.1)
        >>> state = plateau.init()
        >>> state = plateau.update(state, 0.9)
        >>> round(float(state.lr), 4)
        0.1

    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.ReduceLROnPlateau.html
    """

    init: Callable[[], PlateauState]
    update: Callable[[PlateauState, Any], PlateauState]


def reduce_lr_on_plateau(
    lr: float,
    mode: str = "min",
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    threshold_mode: str = "rel",
    cooldown: int = 0,
    min_lr: float = 0,
    eps: float = 1e-8,
) -> Plateau:
    """factor times the rate when a metric was no better more than `patience` times in a row.

    It is no function of the count. The rate reaches an optimizer that is made in the step,

        def train_step(params, opt_state, plateau_state, batch):
            loss, grads = jax.value_and_grad(loss_fn)(params, batch)
            optimizer = sgd(lr=plateau_state.lr, momentum=0.9)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            plateau_state = plateau.update(plateau_state, loss)
            return optax.apply_updates(params, updates), opt_state, plateau_state

    or, through optax, `optax.inject_hyperparams(lambda lr: sgd(lr, momentum=0.9))(lr=0.1)`, whose
    state's `hyperparams["lr"]` takes it. A schedule beside it goes on from the same rate:
    `state._replace(lr=schedule.step(state.lr, count))`.

    `optax.contrib.reduce_on_plateau` drops one bad metric earlier, and multiplies the very update
    whose loss was the last straw.

    Args:
        lr: The optimizer's learning rate, 0 or more.
        mode: "min" for a metric that is to fall, "max" for one that is to rise.
        factor: What multiplies the rate, below 1.
        patience: So many metrics in a row may be no better.
        threshold: By how much a metric has to be better than the best.
        threshold_mode: "rel": by that part of the best; "abs": by that much.
        cooldown: Metrics after a drop that do not count as bad.
        min_lr: The rate does not fall below it.
        eps: The rate stays where the drop is no more than this.

    Returns:
        A `Plateau`: its `init()` and `update(state, metric)` give states whose `lr` is the rate.

    Raises:
        InputError: For a value that PyTorch refuses, lists.

    Example:
        >>> from twinstep.jax.optim.lr_scheduler import reduce_lr_on_plateau
        >>> # PyTorch: ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
        >>> plateau = reduce_lr_on_plateau(0.1, factor=0.5, patience=1)
        >>> state = plateau.init()
        >>> for loss in (1.0, 0.9, 0.9, 0.9):
        ...     state = plateau.update(state, loss)
        ...     print(round(float(state.lr), 4))
        0.1
        0.1
        0.1
        0.05

    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.ReduceLROnPlateau.html
    """
    check_arguments(
        "reduce_lr_on_plateau",
        lr=rate(lr),
        mode=one_of(mode, "min", "max"),
        factor=number(factor, "a number below 1", lambda v: v < 1),
        patience=number(patience),
        threshold=number(threshold),
        threshold_mode=one_of(threshold_mode, "rel", "abs"),
        cooldown=number(cooldown),
        min_lr=number(min_lr),
        eps=number(eps),
    )
    sign = 1.0 if mode == "min" else -1.0

    def init() -> PlateauState:
        # a new array each: a state may be given away
        return PlateauState(
            lr=jnp.array(lr, float),
            best=jnp.array(sign * math.inf, float),
            num_bad_epochs=jnp.zeros((), jnp.int32),
            cooldown_counter=jnp.zeros((), jnp.int32),
        )

    def is_better(metric: jax.Array, best: jax.Array) -> jax.Array:
        bound = (
            best * (1.0 - sign * threshold)
            if threshold_mode == "rel"
            else (best - sign * threshold)
        )
        return metric < bound if mode == "min" else metric > bound

    def update(state: PlateauState, metric: Any) -> PlateauState:
        metric = jnp.asarray(metric, float)
        better = is_better(metric, state.best)
        cooling = state.cooldown_counter > 0
        bad = jnp.where(better | cooling, 0, state.num_bad_epochs + 1)
        reduce = bad > patience
        lower = jnp.maximum(state.lr * factor, min_lr)
        left = jnp.where(cooling, state.cooldown_counter - 1, state.cooldown_counter)
        return PlateauState(
            lr=jnp.where(reduce & (state.lr - lower > eps), lower, state.lr),
            best=jnp.where(better, metric, state.best),
            num_bad_epochs=jnp.where(reduce, 0, bad).astype(jnp.int32),
            cooldown_counter=jnp.where(reduce, cooldown, left).astype(jnp.int32),
        )

    return Plateau(init, update)
