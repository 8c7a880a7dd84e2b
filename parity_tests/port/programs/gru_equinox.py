"""gru_torch.py in Equinox: gates in one Linear each, micro-batches summed up by hand in one step.

`equinox.nn.GRUCell` has one bias where PyTorch trains two, so this cell is ours.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from twinstep.jax import record, watch
from twinstep.trace.ledger import Trace

FEATURES, HIDDEN, CLASSES = 5, 8, 3
MICRO_BATCHES = 4
CLASS_WEIGHTS = (1.0, 2.0, 0.5)
Named = Mapping[str, np.ndarray]


class GRUCell(eqx.Module):
    """PyTorch's, with two biases."""

    inputs: eqx.nn.Linear
    hidden: eqx.nn.Linear

    def __init__(self, key: jax.Array) -> None:
        of_inputs, of_hidden = jax.random.split(key)
        self.inputs = eqx.nn.Linear(FEATURES, 3 * HIDDEN, key=of_inputs)
        self.hidden = eqx.nn.Linear(HIDDEN, 3 * HIDDEN, key=of_hidden)

    def __call__(self, h: jax.Array, x: jax.Array) -> jax.Array:  # (H,), (F,)
        x_r, x_z, x_n = jnp.split(self.inputs(x), 3)
        h_r, h_z, h_n = jnp.split(self.hidden(h), 3)
        reset, update = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z)
        return (1 - update) * jnp.tanh(x_n + reset * h_n) + update * h


class Classifier(eqx.Module):
    """gru_torch.Classifier, of one sequence."""

    cell: GRUCell
    head: eqx.nn.Linear

    def __init__(self, key: jax.Array, cell: Callable[[jax.Array], GRUCell] = GRUCell) -> None:
        of_cell, of_head = jax.random.split(key)
        self.cell = cell(of_cell)
        self.head = eqx.nn.Linear(HIDDEN, CLASSES, key=of_head)

    def __call__(self, x: jax.Array) -> jax.Array:  # (L, F)
        start = jnp.zeros(HIDDEN, x.dtype)
        last, _ = jax.lax.scan(lambda h, x: (self.cell(h, x), None), start, x)
        return self.head(last)


def from_torch(named: Named, model: Classifier) -> Classifier:
    """The model with PyTorch's parameters, whose layout is Equinox's."""
    return eqx.tree_at(
        lambda m: (
            *(m.cell.inputs.weight, m.cell.hidden.weight),
            *(m.cell.inputs.bias, m.cell.hidden.bias),
            *(m.head.weight, m.head.bias),
        ),
        model,
        (
            *(named["gru.weight_ih_l0"], named["gru.weight_hh_l0"]),
            *(named["gru.bias_ih_l0"], named["gru.bias_hh_l0"]),
            *(named["head.weight"], named["head.bias"]),
        ),
    )


def criterion(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Cross entropy, a mean by the classes' weights."""
    weights = jnp.asarray(CLASS_WEIGHTS)[y]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    return jnp.sum(losses * weights) / jnp.sum(weights)


def accumulated(value_and_grad: Callable[..., Any], model: Classifier, batch: Any) -> Any:
    """Loss and gradients, means over the micro-batches."""
    split = jax.tree.map(lambda a: a.reshape(MICRO_BATCHES, -1, *a.shape[1:]), batch)

    def add(total: Any, micro_batch: Any) -> Any:
        return jax.tree.map(jnp.add, total, value_and_grad(model, micro_batch)), None

    zero = jnp.zeros(()), jax.tree.map(jnp.zeros_like, eqx.filter(model, eqx.is_array))
    total, _ = jax.lax.scan(add, zero, split)
    return jax.tree.map(lambda a: a / MICRO_BATCHES, total)


def step_decay(learning_rate: float, steps: int) -> optax.Schedule:
    """Halved every five updates."""
    return optax.exponential_decay(learning_rate, 5, 0.5, staircase=True)


def sgd(schedule: optax.Schedule) -> optax.GradientTransformation:
    """The optimizer's rule, with PyTorch's weight decay: it is part of the gradient."""
    return optax.chain(
        optax.add_decayed_weights(1e-2), optax.sgd(schedule, momentum=0.9, nesterov=True)
    )


@dataclass(frozen=True)
class Parts:
    """What the program is made of, each replaceable."""

    from_torch: Callable[[Named, Classifier], Classifier] = from_torch
    batch_of: Callable[[Trace, int], dict[str, Any]] = Trace.inputs_of
    model: Callable[[jax.Array], Classifier] = Classifier
    criterion: Callable[[jax.Array, jax.Array], jax.Array] = criterion
    value_and_grad: Callable[..., Any] = eqx.filter_value_and_grad
    accumulated: Callable[..., Any] = accumulated
    schedule: Callable[[float, int], optax.Schedule] = step_decay
    rule: Callable[[optax.Schedule], optax.GradientTransformation] = sgd


def train(theirs: Trace, parts: Parts | None = None) -> Trace:
    """Trains as the recorded program did, from its start and on its batches, and records it."""
    parts = parts or Parts()
    start = {name: array[0] for name, array in theirs.params.items()}
    model = parts.from_torch(start, parts.model(jax.random.key(0)))
    model = jax.tree.map(lambda leaf: jnp.asarray(leaf) if eqx.is_array_like(leaf) else leaf, model)
    learning_rate = float(theirs.hyper_parameters["0.initial_lr"][0])
    tx = watch(parts.rule(parts.schedule(learning_rate, len(theirs))))
    opt_state = tx.init(eqx.filter(model, eqx.is_array))

    def loss_fn(model: Classifier, batch: Any) -> jax.Array:
        return parts.criterion(jax.vmap(model)(batch["x"]), batch["y"])

    @eqx.filter_jit
    def train_step(model: Classifier, opt_state: Any, batch: Any) -> Any:
        loss, grads = parts.accumulated(parts.value_and_grad(loss_fn), model, batch)
        updates, opt_state = tx.update(grads, opt_state, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), opt_state, loss

    with record(model) as rec:
        for step in range(len(theirs)):
            batch = parts.batch_of(theirs, step)
            model, opt_state, loss = train_step(model, opt_state, batch)
            rec.step(model, opt_state=opt_state, loss=loss, batch=batch)
    return rec.trace
