"""gru_torch.py in plain dicts and jax.numpy: gates apart, `optax.MultiSteps` for micro-batches."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from twinstep.jax import record, watch
from twinstep.trace.ledger import Trace

HIDDEN = 8
MICRO_BATCHES = 4
CLASS_WEIGHTS = (1.0, 2.0, 0.5)
GATES = "reset", "update", "new"  # PyTorch's order
Named = Mapping[str, np.ndarray]
Params = dict[str, Any]


def cell(gates: Params, h: jax.Array, x: jax.Array) -> jax.Array:
    """PyTorch's: the reset gate acts on what the hidden state has become, bias and all."""

    def inputs(gate: str) -> jax.Array:
        return x @ gates[gate]["w_x"] + gates[gate]["b_x"]

    def hidden(gate: str) -> jax.Array:
        return h @ gates[gate]["w_h"] + gates[gate]["b_h"]

    reset = jax.nn.sigmoid(inputs("reset") + hidden("reset"))
    update = jax.nn.sigmoid(inputs("update") + hidden("update"))
    new = jnp.tanh(inputs("new") + reset * hidden("new"))
    return (1 - update) * new + update * h


def forward(
    params: Params,
    x: jax.Array,  # (B, L, F)
    cell: Callable[[Params, jax.Array, jax.Array], jax.Array] = cell,
    pool: Callable[[jax.Array], jax.Array] = lambda outputs: outputs[-1],
) -> jax.Array:
    """The logits (B, C)."""

    def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = cell(params["gru"], h, x)
        return h, h

    start = jnp.zeros((len(x), HIDDEN), x.dtype)
    _, outputs = jax.lax.scan(step, start, x.transpose(1, 0, 2))
    return pool(outputs) @ params["head"]["w"] + params["head"]["b"]


def from_torch(named: Named) -> Params:
    """PyTorch's parameters as ours."""
    each = {
        "w_x": np.split(named["gru.weight_ih_l0"], 3),
        "w_h": np.split(named["gru.weight_hh_l0"], 3),
        "b_x": np.split(named["gru.bias_ih_l0"], 3),
        "b_h": np.split(named["gru.bias_hh_l0"], 3),
    }
    gates = {
        gate: {name: blocks[i].T for name, blocks in each.items()} for i, gate in enumerate(GATES)
    }
    return {"gru": gates, "head": {"w": named["head.weight"].T, "b": named["head.bias"]}}


def criterion(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Cross entropy, a mean by the classes' weights."""
    weights = jnp.asarray(CLASS_WEIGHTS)[y]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    return jnp.sum(losses * weights) / jnp.sum(weights)


def step_decay(learning_rate: float, steps: int) -> optax.Schedule:
    """Halved every five updates."""
    return optax.exponential_decay(learning_rate, 5, 0.5, staircase=True)


def sgd(schedule: optax.Schedule) -> optax.GradientTransformation:
    """The optimizer's rule, with PyTorch's weight decay: it is part of the gradient."""
    return optax.chain(
        optax.add_decayed_weights(1e-2), optax.sgd(schedule, momentum=0.9, nesterov=True)
    )


def accumulate(rule: optax.GradientTransformation) -> Any:
    """An update in four calls, by the mean of their gradients; summed in float32 by default."""
    # optax of today sums in float32 unless told otherwise, that of 2025 in the gradients' dtype
    known = "accumulator_dtype" in inspect.signature(optax.MultiSteps).parameters
    wide = {"accumulator_dtype": jnp.result_type(float)} if known else {}
    return optax.MultiSteps(rule, MICRO_BATCHES, **wide)


@dataclass(frozen=True)
class Parts:
    """What the program is made of, each replaceable."""

    from_torch: Callable[[Named], Params] = from_torch
    batch_of: Callable[[Trace, int], dict[str, Any]] = Trace.inputs_of
    forward: Callable[[Params, jax.Array], jax.Array] = forward
    criterion: Callable[[jax.Array, jax.Array], jax.Array] = criterion
    value_and_grad: Callable[..., Any] = jax.value_and_grad
    accumulate: Callable[[optax.GradientTransformation], Any] = accumulate
    schedule: Callable[[float, int], optax.Schedule] = step_decay
    rule: Callable[[optax.Schedule], optax.GradientTransformation] = sgd


def loss_of(theirs: Trace, parts: Parts | None = None) -> Callable[[Params, Any], jax.Array]:
    """The loss of parameters and a batch: the mean of the micro-batches' losses."""
    parts = parts or Parts()

    def loss_fn(params: Params, batch: Any) -> jax.Array:
        split = (jnp.split(batch[name], MICRO_BATCHES) for name in ("x", "y"))
        losses = [parts.criterion(parts.forward(params, x), y) for x, y in zip(*split, strict=True)]
        return jnp.stack(losses).mean()

    return loss_fn


def train(theirs: Trace, parts: Parts | None = None) -> Trace:
    """Trains as the recorded program did, from its start and on its batches, and records it."""
    parts = parts or Parts()
    start = parts.from_torch({name: array[0] for name, array in theirs.params.items()})
    params = jax.tree.map(jnp.asarray, start)
    learning_rate = float(theirs.hyper_parameters["0.initial_lr"][0])
    tx = watch(parts.accumulate(parts.rule(parts.schedule(learning_rate, len(theirs)))))
    opt_state = tx.init(params)

    def loss_fn(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
        return parts.criterion(parts.forward(params, x), y)

    @jax.jit
    def micro_step(params: Params, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        loss, grads = parts.value_and_grad(loss_fn)(params, x, y)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    with record(params) as rec:
        for step in range(len(theirs)):
            batch = parts.batch_of(theirs, step)
            micro_batches = (np.split(batch[name], MICRO_BATCHES) for name in ("x", "y"))
            for x, y in zip(*micro_batches, strict=True):
                params, opt_state, loss = micro_step(params, opt_state, x, y)
                micro = {"x": x, "y": y}
                rec.step(loss=loss, params=params, opt_state=opt_state, batch=micro)
    return rec.trace
