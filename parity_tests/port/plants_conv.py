"""Faults of conv_nnx outside of BatchNorm and the rule: layers, loss, layout, start, clipping."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from port import wrong_rules
from port.planting import (
    Plant,
    another,
    batches,
    clocked,
    differentiated,
    gradients,
    named,
    start,
    where,
)
from port.programs.conv_nnx import (
    CLASSES,
    ConvNet,
    adamw,
    criterion,
    from_torch,
    gelu,
)

plant = functools.partial(Plant, "conv_nnx")


def model(**layers: Any) -> dict[str, Any]:
    """The network with other layers."""
    return {"model": functools.partial(ConvNet, **layers)}


# Layers


def _dropped(x: jax.Array) -> jax.Array:
    kept = jax.random.bernoulli(jax.random.key(0), 0.9, x.shape)
    return gelu(x) * kept / 0.9


_LAYERS = [
    # off by 1e-5 of an activation at most
    plant("tanh GELU", "layers: GELU by tanh", "loss", 1, model(activation=jax.nn.gelu)),
    plant("relu", "layers: another activation", "loss", 1, model(activation=jax.nn.relu)),
    plant("leaky", "layers: another activation", "loss", 1, model(inner=jax.nn.leaky_relu)),
    plant("SAME", "layers: padding SAME", "loss", 1, model(padding="SAME")),
    plant(
        "average pool",
        "layers: another pooling",
        "loss",
        1,
        model(pool=lambda x: nnx.avg_pool(x, (2, 2), strides=(2, 2))),
    ),
    plant("dropout", "layers: dropout", "loss", 1, model(activation=_dropped)),
    plant(
        "flattened as it is",
        "layout: flattened channels last",
        "loss",
        1,
        model(flat=lambda x: x.reshape(len(x), -1)),
    ),
]

# Loss


def _smoothed(alpha: float) -> dict[str, Any]:
    def loss(logits: jax.Array, y: jax.Array) -> jax.Array:
        targets = optax.smooth_labels(jax.nn.one_hot(y, CLASSES), alpha)
        return optax.softmax_cross_entropy(logits, targets).mean()

    return {"criterion": loss}


def _smoothed_among_others(logits: jax.Array, y: jax.Array) -> jax.Array:
    right = jax.nn.one_hot(y, CLASSES)
    targets = 0.9 * right + 0.1 / (CLASSES - 1) * (1 - right)
    return optax.softmax_cross_entropy(logits, targets).mean()


def _with_norms(f: Callable[..., Any], **flags: Any) -> Callable[..., Any]:
    """The loss has the decay in it, as Keras's regularizers do."""

    def decayed(params: Any, *more: Any) -> Any:
        loss, stats = f(params, *more)
        return loss + 0.025 * sum(jnp.sum(p**2) for p in jax.tree.leaves(params)), stats

    return jax.value_and_grad(decayed, **flags)


_LOSSES = [
    plant("not smoothed", "loss: no label smoothing", "loss", 1, _smoothed(0.0)),
    plant("smoothed more", "loss: label smoothing", "loss", 1, _smoothed(0.13)),
    plant(
        "smoothed among others",
        "loss: label smoothing",
        "loss",
        1,
        {"criterion": _smoothed_among_others},
    ),
    plant(
        "sum", "loss: sum for mean", "loss", 1, {"criterion": lambda z, y: len(y) * criterion(z, y)}
    ),
    plant(
        "mean over classes",
        "loss: mean over classes too",
        "loss",
        1,
        {"criterion": lambda z, y: criterion(z, y) / CLASSES},
    ),
    plant(
        "softmax twice",
        "loss: of probabilities",
        "loss",
        1,
        {"criterion": lambda z, y: criterion(jax.nn.softmax(z), y)},
    ),
    plant(
        "bfloat16 logits",
        "loss: in bfloat16",
        "loss",
        1,
        {"criterion": lambda z, y: criterion(z.astype(jnp.bfloat16).astype(z.dtype), y)},
    ),
    plant("decay in the loss", "decay: in the loss", "loss", 1, {"value_and_grad": _with_norms}),
    # what is shown is another number than what is differentiated
    plant(
        "loss shown as a sum",
        "loss: shown otherwise",
        "loss",
        1,
        differentiated(lambda value, grads: ((6 * value[0], value[1]), grads)),
    ),
]

# Layout and start: the converter


def _of(name: str, change: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    def changed(arrays: dict[str, Any]) -> None:
        arrays[name] = change(arrays[name])

    return dict(named(from_torch, changed))


def _norms_exchanged(arrays: dict[str, Any]) -> None:
    arrays["bn1.weight"], arrays["bn1.bias"] = arrays["bn1.bias"], arrays["bn1.weight"]


_STARTS = [
    plant(
        "fc1 as it is",
        "layout: square weight not transposed",
        "params",
        0,
        _of("fc1.weight", lambda w: w.T),
    ),
    plant(
        "conv2 turned",
        "layout: in and out swapped",
        "params",
        0,
        _of("conv2.weight", lambda w: w.swapaxes(0, 1)),
    ),
    plant(
        "conv1 flipped",
        "layout: kernel flipped",
        "params",
        0,
        _of("conv1.weight", lambda w: w[:, :, ::-1, ::-1]),
    ),
    plant(
        "conv2 height and width",
        "layout: height and width swapped",
        "params",
        0,
        _of("conv2.weight", lambda w: w.swapaxes(2, 3)),
    ),
    # the network flattens channels first already
    plant(
        "fc1 by pixels",
        "layout: flattened twice over",
        "params",
        0,
        _of("fc1.weight", lambda w: w.reshape(32, 8, 2, 2).transpose(0, 2, 3, 1).reshape(32, 32)),
    ),
    plant(
        "colours reversed",
        "layout: channels reversed",
        "params",
        0,
        _of("conv1.weight", lambda w: w[:, ::-1]),
    ),
    plant(
        "scale for bias",
        "layout: scale and bias swapped",
        "params",
        0,
        named(from_torch, _norms_exchanged),
    ),
    plant("fc2 drawn", "start: a leaf drawn anew", "params", 0, start(from_torch, "fc2", another)),
    plant(
        "fc1 bias at 0",
        "start: a leaf at 0",
        "params",
        0,
        start(from_torch, "['fc1']['bias']", jnp.zeros_like),
    ),
    plant(
        "null bias at 0",
        "start: a leaf at 0",
        "params",
        0,
        start(from_torch, "['conv1']['bias']", jnp.zeros_like),
    ),
    plant(
        "start in half",
        "start: rounded to half precision",
        "params",
        0,
        start(from_torch, "", lambda a: a.astype(jnp.float16).astype(a.dtype)),
    ),
    # a float32 run's start is of float32
    plant(
        "start in single",
        "start: rounded to single precision",
        "params",
        0,
        start(from_torch, "", lambda a: a.astype(jnp.float32).astype(a.dtype)),
        single=False,
    ),
]

# Gradients, clipping, schedule, batch


def _leaf(name: str, change: Callable[[Any], Any]) -> dict[str, Any]:
    return dict(gradients(lambda grads: where(name, change, grads)))


def _clip(link: wrong_rules.Rule) -> dict[str, Any]:
    return {"clip": link}


def _after(schedule: optax.Schedule) -> wrong_rules.Rule:
    return optax.chain(adamw(schedule), optax.clip_by_global_norm(0.05))


def _labels_shuffled(theirs: Any, row: int) -> dict[str, Any]:
    batch = theirs.inputs_of(row)
    return batch | {"y": np.roll(batch["y"], 1)}


def _mirrored(theirs: Any, row: int) -> dict[str, Any]:
    batch = theirs.inputs_of(row)
    return batch | {"x": batch["x"][..., ::-1].copy()}


def _cosine(share: float = 0.0, more: int = 0) -> dict[str, Any]:
    return {"schedule": lambda rate, steps: optax.cosine_decay_schedule(rate, steps + more, share)}


_TRAINING = [
    plant("conv1 stopped", "frozen: no gradient", "raw_grads", 1, _leaf("conv1", jnp.zeros_like)),
    plant("loss scale", "gradient: scaled", "raw_grads", 1, _leaf("", lambda g: 1024 * g)),
    plant(
        "gradients in bfloat16",
        "gradient: in bfloat16",
        "raw_grads",
        1,
        _leaf("", lambda g: g.astype(jnp.bfloat16).astype(g.dtype)),
    ),
    # Adam's step hardly depends on the gradient's size: at step 1 by eps alone. In float32 this is
    # seen a step later.
    plant("not clipped", "clip: missing", "params", 1, _clip(optax.identity())),
    plant("clipped by value", "clip: by value", "params", 1, _clip(optax.clip(0.05))),
    plant("clipped each", "clip: each leaf", "params", 1, _clip(wrong_rules.by_norm_of_each(0.3))),
    plant("clipped at .3", "clip: threshold", "params", 1, _clip(optax.clip_by_global_norm(0.3))),
    # step 4 is the first whose norm is below the threshold
    plant("always scaled", "clip: scaled up too", "params", 4, _clip(wrong_rules.to_norm(0.9))),
    plant(
        "largest entry",
        "clip: by the largest entry",
        "params",
        1,
        _clip(wrong_rules.by_largest(0.9)),
    ),
    plant("adaptive", "clip: adaptive", "params", 1, _clip(optax.adaptive_grad_clip(0.01))),
    plant(
        "without 1e-6",
        "clip: without 1e-6",
        "params",
        1,
        _clip(optax.clip_by_global_norm(0.9)),
        single=False,
    ),
    plant(
        "clipped after",
        "clip: after the rule",
        "params",
        1,
        {"clip": optax.identity(), "rule": _after},
    ),
    plant(
        "schedule late",
        "schedule: a step late",
        "params",
        2,
        clocked(optax.cosine_decay_schedule, lambda count: jnp.maximum(count - 1, 0)),
    ),
    plant(
        "schedule early",
        "schedule: a step early",
        "params",
        1,
        clocked(optax.cosine_decay_schedule, lambda count: count + 1),
    ),
    plant(
        "schedule by epochs",
        "schedule: by epochs",
        "params",
        2,
        clocked(optax.cosine_decay_schedule, lambda count: count // 4 * 4),
    ),
    plant(
        "constant", "schedule: constant", "params", 2, {"schedule": lambda rate, _: lambda _: rate}
    ),
    plant("ends at a tenth", "schedule: another end", "params", 2, _cosine(share=0.1)),
    plant("cosine longer", "schedule: another length", "params", 2, _cosine(more=1)),
    plant(
        "linear",
        "schedule: another form",
        "params",
        2,
        {"schedule": lambda rate, steps: optax.linear_schedule(rate, 0.0, steps)},
    ),
    plant(
        "labels shuffled",
        "batch: labels shuffled at a step",
        "batch",
        6,
        batches(_labels_shuffled, 6),
    ),
    plant("mirrored", "batch: augmented", "batch", 1, batches(_mirrored, None)),
    plant(
        "batch again",
        "batch: one of another step",
        "batch",
        6,
        batches(lambda theirs, row: theirs.inputs_of(row - 1), 6),
    ),
]

PLANTS = [*_LAYERS, *_LOSSES, *_STARTS, *_TRAINING]
