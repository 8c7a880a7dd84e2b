"""Faults of transformer_linen outside of layers and the rule: loss, heads, start, warm-up."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from port import wrong_rules
from port.planting import (
    Plant,
    another,
    batches,
    clocked,
    gradients,
    named,
    start,
    where,
)
from port.programs.transformer_linen import (
    HEADS,
    PADDING,
    VOCAB,
    WARMUP,
    WIDTH,
    adamw,
    criterion,
    from_torch,
    warmup,
)

plant = functools.partial(Plant, "transformer_linen")


# Loss


def _over(
    losses: Callable[[jax.Array, jax.Array], jax.Array], padding: int = PADDING
) -> dict[str, Any]:
    """Another mean of the tokens' losses, given those (0 at padding) and which are known."""

    def loss(logits: jax.Array, y: jax.Array) -> jax.Array:
        known = y != padding
        targets = jnp.where(known & (y != PADDING), y, 0)
        each = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return losses(each * known, known)

    return {"criterion": loss}


def _by_sequence(losses: jax.Array, known: jax.Array) -> jax.Array:
    return jnp.mean(losses.sum(1) / known.sum(1))


def _others_too(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Takes special tokens for padding as well."""
    return criterion(logits, jnp.where(y < 3, PADDING, y))


def _shifted(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Shifts targets that are shifted already."""
    return criterion(logits[:, :-1], y[:, 1:])


_LOSSES = [
    plant(
        "padding in the mean",
        "loss: mean over padding too",
        "loss",
        1,
        _over(lambda each, _: each.mean()),
    ),
    plant(
        "padding learned",
        "loss: padding is a target",
        "loss",
        1,
        _over(lambda each, _: each.mean(), padding=VOCAB),
    ),
    plant("by sequence", "loss: mean of means", "loss", 1, _over(_by_sequence)),
    plant(
        "sum over time", "loss: sum over time", "loss", 1, _over(lambda each, _: each.sum(1).mean())
    ),
    plant("sum", "loss: sum for mean", "loss", 1, _over(lambda each, _: each.sum())),
    plant(
        "special tokens ignored",
        "loss: another target ignored",
        "loss",
        1,
        {"criterion": _others_too},
    ),
    plant("shifted twice", "loss: targets shifted", "loss", 1, {"criterion": _shifted}),
    plant(
        "z-loss",
        "loss: a term more",
        "loss",
        1,
        {"criterion": lambda z, y: criterion(z, y) + 1e-4 * jnp.mean(jax.nn.logsumexp(z, -1) ** 2)},
    ),
    plant(
        "bfloat16 logits",
        "loss: in bfloat16",
        "loss",
        1,
        {"criterion": lambda z, y: criterion(z.astype(jnp.bfloat16).astype(z.dtype), y)},
    ),
]

# Layout and start: the converter


def _every(part: str, change: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    """PyTorch's arrays of a name changed, in each block."""

    def changed(arrays: dict[str, Any]) -> None:
        for name in arrays:
            if part in name:
                arrays[name] = change(arrays[name])

    return dict(named(from_torch, changed))


def _thirds(*order: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda fused: np.concatenate([np.split(fused, 3)[i] for i in order])


def _per_head(fused: np.ndarray) -> np.ndarray:
    """Takes rows in the order (q/k/v, head, D / H) for (head, q/k/v, D / H), GPT-NeoX's."""
    split = fused.reshape(HEADS, 3, WIDTH // HEADS, *fused.shape[1:])
    return split.swapaxes(0, 1).reshape(fused.shape)


def _heads_inside(fused: np.ndarray) -> np.ndarray:
    """Splits the width as (D / H, heads)."""
    split = fused.reshape(3, WIDTH // HEADS, HEADS, *fused.shape[1:])
    return split.swapaxes(1, 2).reshape(fused.shape)


_STARTS = [
    plant(
        "proj as it is",
        "layout: square weight not transposed",
        "params",
        0,
        _every("proj.weight", lambda w: w.T),
    ),
    plant(
        "one proj as it is",
        "layout: square weight not transposed",
        "params",
        0,
        _every("1.proj.weight", lambda w: w.T),
    ),
    plant("q and k", "layout: q and k swapped", "params", 0, _every("qkv", _thirds(1, 0, 2))),
    plant(
        "k and v", "layout: k and v swapped", "params", 0, _every("qkv.weight", _thirds(0, 2, 1))
    ),
    plant("fused by head", "layout: fused otherwise", "params", 0, _every("qkv", _per_head)),
    plant(
        "heads inside", "layout: heads split otherwise", "params", 0, _every("qkv", _heads_inside)
    ),
    plant(
        "halves of proj",
        "layout: heads merged otherwise",
        "params",
        0,
        _every(
            "proj.weight", lambda w: w.reshape(WIDTH, HEADS, -1).swapaxes(1, 2).reshape(w.shape)
        ),
    ),
    plant(
        "qkv transposed",
        "layout: square weight not transposed",
        "params",
        0,
        _every("qkv.weight", lambda w: np.concatenate([part.T for part in np.split(w, 3)])),
    ),
    plant(
        "norms crossed",
        "layout: leaves exchanged",
        "params",
        0,
        named(
            from_torch,
            lambda a: a.update(
                {
                    "blocks.0.out.bias": a["blocks.1.out.bias"],
                    "blocks.1.out.bias": a["blocks.0.out.bias"],
                }
            ),
        ),
    ),
    plant(
        "biases at 0",
        "start: a leaf at 0",
        "params",
        0,
        start(from_torch, "['q']['bias']", jnp.zeros_like),
    ),
    # the keys' bias moves no softmax: nothing else of the training is another one
    plant(
        "keys' bias at 0",
        "start: a leaf at 0",
        "params",
        0,
        start(from_torch, "['k']['bias']", jnp.zeros_like),
    ),
    plant("wpe drawn", "start: a leaf drawn anew", "params", 0, start(from_torch, "wpe", another)),
    plant(
        "wte scaled",
        "start: a leaf scaled",
        "params",
        0,
        start(from_torch, "wte", lambda a: 0.02 * a),
    ),
]

# Gradients, clipping, warm-up, batch


def _leaf(name: str, change: Callable[[Any], Any]) -> dict[str, Any]:
    return dict(gradients(lambda grads: where(name, change, grads)))


def _after(schedule: optax.Schedule) -> wrong_rules.Rule:
    return optax.chain(adamw(schedule), optax.clip_by_global_norm(0.05))


def _schedule(of: Callable[[Any], Any]) -> dict[str, Any]:
    """The rate's factor at a count."""
    return {"schedule": lambda rate, _: lambda count: rate * of(count)}


def _rolled(theirs: Any, row: int) -> dict[str, Any]:
    return {name: np.roll(array, 1, 0) for name, array in theirs.inputs_of(row).items()}


def _shuffled(theirs: Any, row: int) -> dict[str, Any]:
    batch = theirs.inputs_of(row)
    return batch | {"x": batch["x"][::-1].copy()}


_TRAINING = [
    plant("wpe stopped", "frozen: no gradient", "raw_grads", 1, _leaf("wpe", jnp.zeros_like)),
    plant("mean over devices", "gradient: scaled", "raw_grads", 1, _leaf("", lambda g: g / 2)),
    plant(
        "one block's gradient",
        "gradient: of a leaf scaled",
        "raw_grads",
        1,
        _leaf("block_1", lambda g: 0.5 * g),
    ),
    # Adam's step hardly depends on the gradient's size: at step 1 by eps alone
    plant("not clipped", "clip: missing", "params", 1, {"clip": optax.identity()}),
    plant("clipped by value", "clip: by value", "params", 1, {"clip": optax.clip(0.1)}),
    plant(
        "clipped each", "clip: each leaf", "params", 1, {"clip": wrong_rules.by_norm_of_each(1.0)}
    ),
    plant(
        "clipped at 1.5", "clip: threshold", "params", 1, {"clip": optax.clip_by_global_norm(1.5)}
    ),
    plant(
        "without 1e-6",
        "clip: without 1e-6",
        "params",
        1,
        {"clip": optax.clip_by_global_norm(1.0)},
        single=False,
    ),
    plant(
        "clipped after",
        "clip: after the rule",
        "params",
        1,
        {"clip": optax.identity(), "rule": _after},
    ),
    plant("adaptive", "clip: adaptive", "params", 1, {"clip": optax.adaptive_grad_clip(0.01)}),
    plant(
        "warm-up from 0",
        "schedule: a step late",
        "params",
        1,
        _schedule(lambda c: jnp.minimum(1.0, c / WARMUP)),
    ),
    plant(
        "warm-up early",
        "schedule: a step early",
        "params",
        1,
        clocked(warmup, lambda count: count + 1),
    ),
    plant("no warm-up", "schedule: constant", "params", 1, _schedule(lambda c: 1.0)),
    plant(
        "warm-up longer",
        "schedule: another length",
        "params",
        1,
        _schedule(lambda c: jnp.minimum(1.0, (c + 1) / 5)),
    ),
    plant(
        "decays after",
        "schedule: another form",
        "params",
        5,
        _schedule(lambda c: jnp.minimum((c + 1) / WARMUP, jnp.sqrt(WARMUP / (c + 1)))),
    ),
    plant(
        "warm-up squared",
        "schedule: another form",
        "params",
        1,
        _schedule(lambda c: jnp.minimum(1.0, (c + 1) / WARMUP) ** 2),
    ),
    # the same mean: the loss is right
    plant("samples rolled", "batch: samples in another order", "batch", 6, batches(_rolled, 6)),
    plant("tokens shuffled", "batch: labels shuffled at a step", "batch", 4, batches(_shuffled, 4)),
    plant(
        "batches from the second",
        "batch: one of another step",
        "batch",
        1,
        batches(lambda theirs, row: theirs.inputs_of((row + 1) % len(theirs)), None),
    ),
]

PLANTS = [*_LOSSES, *_STARTS, *_TRAINING]
