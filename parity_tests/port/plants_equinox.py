"""Faults of gru_equinox: micro-batches summed up by hand, its cell, rule and start."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from port import wrong_rules
from port.planting import Plant, another, batches, clocked, differentiated, gradients, start, where
from port.programs.gru_equinox import (
    MICRO_BATCHES,
    Classifier,
    GRUCell,
    accumulated,
    criterion,
    from_torch,
    sgd,
    step_decay,
)

plant = functools.partial(Plant, "gru_equinox")

# Micro-batches


def _summed(of: Callable[[Any], Any], divide_loss: float, divide_grads: float) -> dict[str, Any]:
    """Sums over some of the micro-batches, divided otherwise.

    Args:
        of: Of arrays (micro-batches, ...) those that are summed.
        divide_loss, divide_grads: By what.
    """

    def wrong(value_and_grad: Callable[..., Any], model: Any, batch: Any) -> Any:
        split = jax.tree.map(lambda a: of(a.reshape(MICRO_BATCHES, -1, *a.shape[1:])), batch)
        losses, grads = jax.lax.map(lambda micro: value_and_grad(model, micro), split)
        total = jax.tree.map(lambda g: g.sum(0) / divide_grads, grads)
        return losses.sum() / divide_loss, total

    return {"accumulated": wrong}


def _whole(value_and_grad: Callable[..., Any], model: Any, batch: Any) -> Any:
    """One pass: the mean by weights is another one then."""
    return value_and_grad(model, batch)


def _shown_last(value_and_grad: Callable[..., Any], model: Any, batch: Any) -> Any:
    """Shows the last micro-batch's loss, and has the right gradients."""
    last = jax.tree.map(lambda a: a[-len(a) // MICRO_BATCHES :], batch)
    return value_and_grad(model, last)[0], accumulated(value_and_grad, model, batch)[1]


_ACCUMULATION = [
    plant(
        "sum of gradients", "accumulation: sum for mean", "raw_grads", 1, _summed(lambda a: a, 4, 1)
    ),
    plant("sum of both", "accumulation: sum for mean", "loss", 1, _summed(lambda a: a, 1, 1)),
    plant(
        "last alone",
        "accumulation: last micro-batch only",
        "loss",
        1,
        _summed(lambda a: a[-1:], 1, 1),
    ),
    plant("one too few", "accumulation: one too few", "loss", 1, _summed(lambda a: a[:-1], 3, 3)),
    plant(
        "one too few of four",
        "accumulation: one too few",
        "loss",
        1,
        _summed(lambda a: a[1:], 4, 4),
    ),
    plant(
        "divided twice", "accumulation: divided twice", "raw_grads", 1, _summed(lambda a: a, 4, 16)
    ),
    plant("whole batch", "accumulation: whole batch", "loss", 1, {"accumulated": _whole}),
    plant("last shown", "loss: shown otherwise", "loss", 1, {"accumulated": _shown_last}),
]

# The cell


class _OneBias(GRUCell):
    """Its hidden part has none that is used."""

    def __call__(self, h: jax.Array, x: jax.Array) -> jax.Array:
        return GRUCell.__call__(
            eqx.tree_at(lambda cell: cell.hidden.bias, self, jnp.zeros(24)), h, x
        )


class _Order(GRUCell):
    """Takes Keras's order of gates: update, reset, new."""

    def __call__(self, h: jax.Array, x: jax.Array) -> jax.Array:
        order = np.r_[8:16, 0:8, 16:24]
        return GRUCell.__call__(jax.tree.map(lambda leaf: leaf[order], self), h, x)


class _Stopped(GRUCell):
    """Forgets that its hidden state has a gradient."""

    def __call__(self, h: jax.Array, x: jax.Array) -> jax.Array:
        return GRUCell.__call__(self, jax.lax.stop_gradient(h), x)


def _model(cell: type[GRUCell]) -> dict[str, Any]:
    return {"model": functools.partial(Classifier, cell=cell)}


_CELL = [
    plant("one bias", "cell: one bias", "loss", 1, _model(_OneBias)),
    plant("gate order", "cell: gate order", "loss", 1, _model(_Order)),
    plant("cut off", "gradient: cut off in time", "raw_grads", 1, _model(_Stopped)),
]

# Rule, schedule, batch, start


def _rule(rule: Callable[[optax.Schedule], wrong_rules.Rule]) -> dict[str, Any]:
    return {"rule": rule}


def _clipped(schedule: optax.Schedule) -> wrong_rules.Rule:
    return optax.chain(optax.clip(0.05), sgd(schedule))


def _swapped(theirs: Any, row: int) -> dict[str, Any]:
    other = theirs.inputs_of(row - 1)
    return theirs.inputs_of(row) | {"y": other["y"]}


_grads = functools.partial(gradients, value_and_grad=eqx.filter_value_and_grad)

_TRAINING = [
    plant(
        "nesterov off",
        "rule: not Nesterov's",
        "params",
        1,
        _rule(lambda s: optax.chain(optax.add_decayed_weights(1e-2), optax.sgd(s, 0.9))),
    ),
    plant("lion", "optimizer: Lion", "params", 1, _rule(lambda s: optax.lion(s))),
    plant("clipped by value", "clip: one too many", "params", 1, _rule(_clipped)),
    plant(
        "stale",
        "state: gradients of a step before",
        "params",
        6,
        _rule(lambda s: wrong_rules.stale(sgd(s), 6)),
    ),
    plant(
        "rebuilt",
        "state: optimizer made anew",
        "params",
        7,
        _rule(lambda s: wrong_rules.rebuilt(sgd(s), 7)),
    ),
    plant(
        "bias frozen",
        "frozen: no gradient",
        "raw_grads",
        1,
        _grads(lambda grads: where("bias", jnp.zeros_like, grads)),
    ),
    plant(
        "loss halved", "loss: scaled", "loss", 1, {"criterion": lambda z, y: criterion(z, y) / 2}
    ),
    plant(
        "gradients halved",
        "gradient: scaled",
        "raw_grads",
        1,
        differentiated(
            lambda loss, grads: (loss, jax.tree.map(lambda g: g / 2, grads)),
            eqx.filter_value_and_grad,
        ),
    ),
    plant(
        "schedule late",
        "schedule: a step late",
        "params",
        6,
        clocked(step_decay, lambda c: jnp.maximum(c - 1, 0)),
    ),
    plant(
        "schedule of epochs",
        "schedule: by epochs",
        "params",
        6,
        clocked(step_decay, lambda c: c // 4),
    ),
    plant("labels of before", "batch: labels shuffled at a step", "batch", 7, batches(_swapped, 7)),
    plant(
        "hidden as it is",
        "layout: square weight not transposed",
        "params",
        0,
        start(
            from_torch, ".hidden.weight", lambda w: jnp.concatenate([g.T for g in jnp.split(w, 3)])
        ),
    ),
    plant(
        "head drawn", "start: a leaf drawn anew", "params", 0, start(from_torch, ".head", another)
    ),
]

PLANTS = [*_ACCUMULATION, *_CELL, *_TRAINING]
