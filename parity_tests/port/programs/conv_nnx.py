"""conv_torch.py in flax.nnx: channels last, kernels (height, width, in, out).

`nnx.BatchNorm` keeps its statistics in float32 and takes the biased variance, so this one is ours.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from twinstep.jax import record, watch
from twinstep.jax.optim import clip_grad_norm
from twinstep.trace.ledger import Trace

CLASSES = 5
CLIP = clip_grad_norm(0.9)  # optax's has no 1e-6 below its norm
Named = Mapping[str, np.ndarray]


class BatchNorm(nnx.Module):
    """PyTorch's in training: it normalizes by the biased variance and keeps the unbiased one."""

    def __init__(self, features: int) -> None:
        self.scale, self.bias = nnx.Param(jnp.ones(features)), nnx.Param(jnp.zeros(features))
        self.mean, self.var = nnx.BatchStat(jnp.zeros(features)), nnx.BatchStat(jnp.ones(features))

    def __call__(self, x: jax.Array) -> jax.Array:  # (B, H, W, C)
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        self.keep(mean, var, x.size // x.shape[-1])
        return (x - mean) / jnp.sqrt(var + 1e-5) * self.scale[...] + self.bias[...]

    def keep(self, mean: jax.Array, var: jax.Array, count: int) -> None:
        """Moves the running statistics."""
        self.mean[...] = 0.9 * self.mean[...] + 0.1 * mean
        self.var[...] = 0.9 * self.var[...] + 0.1 * var * count / (count - 1)


def max_pool(x: jax.Array) -> jax.Array:
    """(B, H, W, C) to half of each side."""
    return nnx.max_pool(x, (2, 2), strides=(2, 2))


def gelu(x: jax.Array) -> jax.Array:
    """PyTorch's: by the error function."""
    return jax.nn.gelu(x, approximate=False)


def flatten(x: jax.Array) -> jax.Array:
    """In PyTorch's order, channels first: fc1's weight is from there."""
    return x.transpose(0, 3, 1, 2).reshape(len(x), -1)


class ConvNet(nnx.Module):
    """conv_torch.ConvNet, of NHWC images."""

    def __init__(
        self,
        *,
        rngs: nnx.Rngs,
        norm: type[BatchNorm] = BatchNorm,
        activation: Callable[[jax.Array], jax.Array] = gelu,
        inner: Callable[[jax.Array], jax.Array] = jax.nn.relu,
        pool: Callable[[jax.Array], jax.Array] = max_pool,
        flat: Callable[[jax.Array], jax.Array] = flatten,
        padding: Any = ((1, 1), (1, 1)),
    ) -> None:
        self.activation, self.inner, self.pool, self.flat = activation, inner, pool, flat
        dtype = jnp.result_type(float)
        self.conv1 = nnx.Conv(3, 8, (3, 3), padding=1, param_dtype=dtype, rngs=rngs)
        self.bn1 = norm(8)
        self.conv2 = nnx.Conv(
            8, 8, (3, 3), strides=2, padding=padding, param_dtype=dtype, rngs=rngs
        )
        self.bn2 = norm(8)
        self.fc1 = nnx.Linear(32, 32, param_dtype=dtype, rngs=rngs)
        self.fc2 = nnx.Linear(32, CLASSES, param_dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:  # (B, 8, 8, 3)
        x = self.pool(self.inner(self.bn1(self.conv1(x))))
        x = self.inner(self.bn2(self.conv2(x)))
        return self.fc2(self.activation(self.fc1(self.flat(x))))


def from_torch(named: Named) -> dict[str, Any]:
    """PyTorch's parameters as nnx's."""

    def conv(name: str) -> dict[str, Any]:
        weight = named[f"{name}.weight"]  # (out, in, height, width)
        return {"kernel": weight.transpose(2, 3, 1, 0), "bias": named[f"{name}.bias"]}

    def norm(name: str) -> dict[str, Any]:
        return {"scale": named[f"{name}.weight"], "bias": named[f"{name}.bias"]}

    def linear(name: str) -> dict[str, Any]:
        return {"kernel": named[f"{name}.weight"].T, "bias": named[f"{name}.bias"]}

    kinds = {"conv1": conv, "bn1": norm, "conv2": conv, "bn2": norm, "fc1": linear, "fc2": linear}
    return {name: of(name) for name, of in kinds.items()}


def stats_from_torch(named: Named) -> dict[str, Any]:
    """PyTorch's running statistics as nnx's."""
    return {
        name: {"mean": named[f"{name}.running_mean"], "var": named[f"{name}.running_var"]}
        for name in ("bn1", "bn2")
    }


def criterion(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Cross entropy of smoothed labels."""
    targets = optax.smooth_labels(jax.nn.one_hot(y, CLASSES), 0.1)
    return optax.softmax_cross_entropy(logits, targets).mean()


def adamw(schedule: optax.Schedule) -> optax.GradientTransformation:
    """The optimizer's rule."""
    return optax.adamw(schedule, weight_decay=0.05)


@dataclass(frozen=True)
class Parts:
    """What the program is made of, each replaceable."""

    from_torch: Callable[[Named], Any] = from_torch
    stats_from_torch: Callable[[Named], Any] = stats_from_torch
    batch_of: Callable[[Trace, int], dict[str, Any]] = Trace.inputs_of
    model: Callable[..., ConvNet] = ConvNet
    criterion: Callable[[jax.Array, jax.Array], jax.Array] = criterion
    value_and_grad: Callable[..., Any] = jax.value_and_grad
    clip: optax.GradientTransformation = CLIP
    schedule: Callable[[float, int], optax.Schedule] = optax.cosine_decay_schedule
    rule: Callable[[optax.Schedule], optax.GradientTransformation] = adamw


def loss_of(theirs: Trace, parts: Parts | None = None) -> Callable[[Any, Any], jax.Array]:
    """The loss of parameters, nested dicts, and a batch; running statistics are those recorded."""
    parts = parts or Parts()
    start = parts.stats_from_torch({name: array[0] for name, array in theirs.buffers.items()})

    def loss_fn(params: Any, batch: Any) -> jax.Array:
        model = parts.model(rngs=nnx.Rngs(0))
        graph = nnx.graphdef(model)
        state, stats = nnx.state(model, nnx.Param), nnx.state(model, nnx.BatchStat)
        nnx.replace_by_pure_dict(state, params)
        nnx.replace_by_pure_dict(stats, jax.tree.map(jnp.asarray, start))
        model = nnx.merge(graph, state, stats)
        return parts.criterion(model(batch["x"].transpose(0, 2, 3, 1)), batch["y"])

    return loss_fn


def train(theirs: Trace, parts: Parts | None = None) -> Trace:
    """Trains as the recorded program did, from its start and on its batches, and records it."""
    parts = parts or Parts()
    model = parts.model(rngs=nnx.Rngs(0))
    graph = nnx.graphdef(model)
    params, stats = nnx.state(model, nnx.Param), nnx.state(model, nnx.BatchStat)
    start = {name: array[0] for name, array in {**theirs.params, **theirs.buffers}.items()}
    nnx.replace_by_pure_dict(params, jax.tree.map(jnp.asarray, parts.from_torch(start)))
    nnx.replace_by_pure_dict(stats, jax.tree.map(jnp.asarray, parts.stats_from_torch(start)))
    learning_rate = float(theirs.hyper_parameters["0.initial_lr"][0])
    tx = watch(optax.chain(parts.clip, parts.rule(parts.schedule(learning_rate, len(theirs)))))
    opt_state = tx.init(params)

    def loss_fn(params: Any, stats: Any, x: jax.Array, y: jax.Array) -> Any:
        model = nnx.merge(graph, params, stats, copy=True)
        loss = parts.criterion(model(x.transpose(0, 2, 3, 1)), y)
        return loss, nnx.state(model, nnx.BatchStat)

    @jax.jit
    def train_step(params: Any, stats: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        grad_fn = parts.value_and_grad(loss_fn, has_aux=True)
        (loss, stats), grads = grad_fn(params, stats, x, y)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), stats, opt_state, loss

    with record(params, buffers=stats) as rec:
        for step in range(len(theirs)):
            batch = parts.batch_of(theirs, step)
            params, stats, opt_state, loss = train_step(params, stats, opt_state, **batch)
            rec.step(loss=loss, params=params, opt_state=opt_state, buffers=stats, batch=batch)
    return rec.trace
