"""Faults of gru_dicts: its cell, schedule, micro-batches, loss, gates and start."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from port.planting import Plant, another, batches, clocked, gradients, named, start, where
from port.programs.gru_dicts import (
    CLASS_WEIGHTS,
    GATES,
    MICRO_BATCHES,
    cell,
    criterion,
    forward,
    from_torch,
    step_decay,
)
from port.wrong_rules import Rule

plant = functools.partial(Plant, "gru_dicts")
Make = Callable[[optax.Schedule], Rule]

# The cell


def _cell(
    turned: bool = False,
    early: bool = False,
    outside: bool = False,
    candidate: Callable[[jax.Array], jax.Array] = jnp.tanh,
    gate: Callable[[jax.Array], jax.Array] = jax.nn.sigmoid,
    hidden_bias: bool = True,
) -> dict[str, Any]:
    """The cell with one thing wrong.

    Args:
        turned: The update gate weighs the new state.
        early: The reset gate acts on the hidden state itself, as in the first paper.
        outside: The reset gate leaves the hidden bias out, as `flax.nnx.GRUCell` does.
        candidate, gate: Their activations.
        hidden_bias: Whether there is one.
    """

    def wrong(gates: Any, h: jax.Array, x: jax.Array) -> jax.Array:
        def inputs(name: str) -> jax.Array:
            return x @ gates[name]["w_x"] + gates[name]["b_x"]

        def hidden(name: str, h: jax.Array = h) -> jax.Array:
            return h @ gates[name]["w_h"] + (gates[name]["b_h"] if hidden_bias else 0.0)

        reset, update = (gate(inputs(name) + hidden(name)) for name in ("reset", "update"))
        if early:
            new = hidden("new", reset * h)
        elif outside:
            new = reset * (h @ gates["new"]["w_h"]) + gates["new"]["b_h"]
        else:
            new = reset * hidden("new")
        new = candidate(inputs("new") + new)
        return (1 - update) * h + update * new if turned else (1 - update) * new + update * h

    return {"forward": functools.partial(forward, cell=wrong)}


def _pooled(pool: Callable[[jax.Array], jax.Array]) -> dict[str, Any]:
    return {"forward": functools.partial(forward, pool=pool)}


_CELL = [
    plant("update turned", "cell: update gate turned round", "loss", 1, _cell(turned=True)),
    plant("reset early", "cell: reset gate's place", "loss", 1, _cell(early=True)),
    plant(
        "bias outside", "cell: hidden bias outside the reset gate", "loss", 1, _cell(outside=True)
    ),
    plant("relu", "cell: another activation", "loss", 1, _cell(candidate=jax.nn.relu)),
    plant("hard gates", "cell: another activation", "loss", 1, _cell(gate=jax.nn.hard_sigmoid)),
    plant("one bias", "cell: one bias", "loss", 1, _cell(hidden_bias=False)),
    plant(
        "mean of outputs",
        "layers: another pooling",
        "loss",
        1,
        _pooled(lambda outputs: outputs.mean(0)),
    ),
    plant(
        "first output", "layers: another pooling", "loss", 1, _pooled(lambda outputs: outputs[0])
    ),
    plant(
        "backwards",
        "layers: sequence reversed",
        "loss",
        1,
        {"forward": lambda params, x: forward(params, x[:, ::-1])},
    ),
    plant(
        "one step back",
        "gradient: cut off in time",
        "raw_grads",
        1,
        {
            "forward": functools.partial(
                forward, cell=lambda gates, h, x: cell(gates, jax.lax.stop_gradient(h), x)
            )
        },
    ),
]

# Schedule, micro-batches, batch


def _sum(rule: Rule) -> Any:
    return optax.MultiSteps(
        rule, MICRO_BATCHES, use_grad_mean=False, accumulator_dtype=jnp.result_type(float)
    )


def _every(count: int) -> dict[str, Any]:
    def accumulate(rule: Rule) -> Any:
        return optax.MultiSteps(rule, count, accumulator_dtype=jnp.result_type(float))

    return {"accumulate": accumulate}


def _turned(theirs: Any, row: int) -> dict[str, Any]:
    batch = theirs.inputs_of(row)
    return {name: array[::-1].copy() for name, array in batch.items()}


_TRAINING = [
    plant(
        "schedule late",
        "schedule: a step late",
        "params",
        6,
        clocked(step_decay, lambda c: jnp.maximum(c - 1, 0)),
    ),
    plant(
        "schedule early",
        "schedule: a step early",
        "params",
        5,
        clocked(step_decay, lambda c: c + 1),
    ),
    # the eighth micro-batch is of update 3
    plant(
        "schedule of micro-steps",
        "schedule: by micro-steps",
        "params",
        3,
        clocked(step_decay, lambda c: MICRO_BATCHES * c),
    ),
    plant(
        "no steps",
        "schedule: no staircase",
        "params",
        2,
        {"schedule": lambda rate, _: optax.exponential_decay(rate, 5, 0.5)},
    ),
    plant(
        "constant", "schedule: constant", "params", 6, {"schedule": lambda rate, _: lambda _: rate}
    ),
    plant(
        "gamma",
        "schedule: another factor",
        "params",
        6,
        {"schedule": lambda rate, _: optax.exponential_decay(rate, 5, 0.6, staircase=True)},
    ),
    # the recorder shows the sum of the losses beside the sum of the gradients
    plant("sum of micro-batches", "accumulation: sum for mean", "loss", 1, {"accumulate": _sum}),
    plant("three micro-batches", "accumulation: one too few", "batch", 1, _every(3)),
    # PyTorch's are of float64; in a float32 run both are of float32
    plant(
        "summed in float32",
        "accumulation: in float32",
        "raw_grads",
        1,
        {"accumulate": lambda rule: optax.MultiSteps(rule, MICRO_BATCHES)},
        single=False,
    ),
    plant("batch turned", "batch: samples in another order", "batch", 5, batches(_turned, 5)),
    plant(
        "features normalized",
        "batch: normalized",
        "batch",
        1,
        batches(
            lambda theirs, row: theirs.inputs_of(row) | {"x": theirs.inputs_of(row)["x"] / 2}, None
        ),
    ),
    plant(
        "batch again",
        "batch: one of another step",
        "batch",
        9,
        batches(lambda theirs, row: theirs.inputs_of(row - 1), 9),
    ),
    plant(
        "gradients noisy",
        "gradient: noise",
        "raw_grads",
        1,
        gradients(
            lambda grads: jax.tree.map(
                lambda g: g + 1e-3 * jax.random.normal(jax.random.key(0), g.shape, g.dtype), grads
            )
        ),
    ),
    plant(
        "head not learning",
        "frozen: no gradient",
        "raw_grads",
        1,
        gradients(lambda grads: where("head", jnp.zeros_like, grads)),
    ),
]

# Loss


def _weighted(weights: tuple[float, ...], by_weights: bool = True) -> dict[str, Any]:
    def loss(logits: jax.Array, y: jax.Array) -> jax.Array:
        of_each = jnp.asarray(weights)[y]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return jnp.sum(losses * of_each) / (jnp.sum(of_each) if by_weights else len(y))

    return {"criterion": loss}


_LOSSES = [
    plant("unweighted", "loss: no class weights", "loss", 1, _weighted((1.0, 1.0, 1.0))),
    plant(
        "mean by number",
        "loss: weights not in the mean",
        "loss",
        1,
        _weighted(CLASS_WEIGHTS, by_weights=False),
    ),
    plant("weights turned", "loss: class weights", "loss", 1, _weighted(CLASS_WEIGHTS[::-1])),
    plant("weight's size", "loss: class weights", "loss", 1, _weighted((1.0, 2.0, 0.6))),
    plant(
        "sum", "loss: sum for mean", "loss", 1, {"criterion": lambda z, y: len(y) * criterion(z, y)}
    ),
]

# Layout and start: the converter


def _gates(part: str, *order: int) -> dict[str, Any]:
    """The gates of PyTorch's arrays in another order."""

    def changed(arrays: dict[str, Any]) -> None:
        for name in arrays:
            if part in name:
                arrays[name] = np.concatenate([np.split(arrays[name], 3)[i] for i in order])

    return dict(named(from_torch, changed))


def _biases_exchanged(arrays: dict[str, Any]) -> None:
    inputs, hidden = arrays["gru.bias_ih_l0"], arrays["gru.bias_hh_l0"]
    arrays["gru.bias_ih_l0"], arrays["gru.bias_hh_l0"] = hidden, inputs


def _biases_merged(arrays: dict[str, Any]) -> None:
    """One bias a gate but for what the reset gate multiplies: the other is 0."""
    inputs, hidden = arrays["gru.bias_ih_l0"].copy(), arrays["gru.bias_hh_l0"].copy()
    inputs[:16] += hidden[:16]
    hidden[:16] = 0
    arrays["gru.bias_ih_l0"], arrays["gru.bias_hh_l0"] = inputs, hidden


def _merged_cell(gates: Any, h: jax.Array, x: jax.Array) -> jax.Array:
    """Where one bias is trained, it moves half as fast as the sum of two."""
    one = {gate: gates[gate] | {"b_h": jnp.zeros_like(gates[gate]["b_h"])} for gate in GATES[:2]}
    return cell(gates | one, h, x)


_STARTS = [
    plant("reset and update", "layout: gate order", "params", 0, _gates("_l0", 1, 0, 2)),
    plant("new first", "layout: gate order", "params", 0, _gates("_l0", 2, 0, 1)),
    plant("gates of the bias", "layout: gate order", "params", 0, _gates("bias_ih", 1, 0, 2)),
    plant(
        "hidden as it is",
        "layout: square weight not transposed",
        "params",
        0,
        start(from_torch, "w_h", jnp.transpose),
    ),
    plant(
        "one gate as it is",
        "layout: square weight not transposed",
        "params",
        0,
        start(from_torch, "['update']['w_h']", jnp.transpose),
    ),
    plant(
        "biases exchanged",
        "layout: biases swapped",
        "params",
        0,
        named(from_torch, _biases_exchanged),
    ),
    plant(
        "biases merged",
        "layout: biases merged",
        "params",
        0,
        {
            **named(from_torch, _biases_merged),
            "forward": functools.partial(forward, cell=_merged_cell),
        },
    ),
    plant(
        "hidden biases at 0",
        "start: a leaf at 0",
        "params",
        0,
        start(from_torch, "b_h", jnp.zeros_like),
    ),
    plant(
        "hidden drawn", "start: a leaf drawn anew", "params", 0, start(from_torch, "w_h", another)
    ),
    plant(
        "head at 0",
        "start: a leaf at 0",
        "params",
        0,
        start(from_torch, "['head']['w']", jnp.zeros_like),
    ),
    plant(
        "start in bfloat16",
        "start: rounded to half precision",
        "params",
        0,
        start(from_torch, "", lambda a: a.astype(jnp.bfloat16).astype(a.dtype)),
    ),
]
assert GATES == ("reset", "update", "new")  # what the orders above are of

PLANTS = [*_CELL, *_TRAINING, *_LOSSES, *_STARTS]
