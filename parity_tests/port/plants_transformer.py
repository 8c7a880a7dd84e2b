"""Faults of transformer_linen but its optimizer's rule: attention, layers, heads, loss, warm-up."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
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
    LAYERS,
    PADDING,
    VOCAB,
    WARMUP,
    WIDTH,
    Block,
    Transformer,
    adamw,
    causal_attention,
    criterion,
    from_torch,
    gelu,
    layer_norm,
    warmup,
)

plant = functools.partial(Plant, "transformer_linen")


def model(**layers: Any) -> dict[str, Any]:
    """The network with other layers."""
    return {"model": functools.partial(Transformer, **layers)}


# Attention


def _attention(
    scale: float = (WIDTH // HEADS) ** -0.5,
    mask: Callable[[int], Any] = lambda length: np.tril(np.ones((length, length), bool)),
    hidden: float = -np.inf,
    axis: int = -1,
) -> dict[str, Any]:
    """Attention with one thing wrong.

    Args:
        scale: Of the scores.
        mask: Of a length, True where a query (row) sees a key.
        hidden: The score of what it does not see.
        axis: What the softmax sums over.
    """

    def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * scale
        scores = jnp.where(mask(q.shape[1]), scores, hidden)
        return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, axis), v)

    return model(attention=attention)


def _added_mask(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Adds a mask of zeros and ones where minus infinity is meant."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / jnp.sqrt(q.shape[-1])
    scores = scores + jnp.tril(jnp.ones(scores.shape[-2:], scores.dtype))
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v)


def _masked_after(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Masks what the softmax has left, which sums up to less than 1 then."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / jnp.sqrt(q.shape[-1])
    return jnp.einsum("bhqk,bkhd->bqhd", jnp.tril(jax.nn.softmax(scores)), v)


def _triangle(length: int, diagonal: int) -> Any:
    return np.tril(np.ones((length, length), bool), diagonal)


_ATTENTION = [
    plant("not scaled", "attention: not scaled", "loss", 1, _attention(scale=1.0)),
    plant("scaled by width", "attention: scale", "loss", 1, _attention(scale=WIDTH**-0.5)),
    plant("no mask", "attention: no mask", "loss", 1, _attention(mask=lambda n: np.ones((n, n), bool))),
    plant("mask inverted", "attention: mask's polarity", "loss", 1, _attention(mask=lambda n: ~_triangle(n, -1))),
    # the first query then sees nothing, and so everything alike
    plant("not itself", "attention: mask off by one", "loss", 1, _attention(mask=lambda n: _triangle(n, -1), hidden=-1e9)),
    plant("the next too", "attention: mask off by one", "loss", 1, _attention(mask=lambda n: _triangle(n, 1))),
    plant("mask weak", "attention: mask too weak", "loss", 1, _attention(hidden=-10.0)),
    plant("mask added", "attention: mask of numbers", "loss", 1, model(attention=_added_mask)),
    plant("mask late", "attention: mask after the softmax", "loss", 1, model(attention=_masked_after)),
    plant("over queries", "attention: softmax over queries", "loss", 1, _attention(axis=-2)),
]

# Layers


def _norm(**settings: Any) -> dict[str, Any]:
    return model(norm=lambda name: nn.LayerNorm(**{"epsilon": 1e-5} | settings, name=name))


class _Unbiased(nn.Module):
    """A layer norm by the unbiased variance."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (WIDTH,))
        bias = self.param("bias", nn.initializers.zeros, (WIDTH,))
        var = x.var(-1, keepdims=True, ddof=1)
        return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(var + 1e-5) * scale + bias


class _Root(nn.Module):
    """A norm that subtracts no mean."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (WIDTH,))
        bias = self.param("bias", nn.initializers.zeros, (WIDTH,))
        return x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * scale + bias


def _dropped(x: jax.Array) -> jax.Array:
    kept = jax.random.bernoulli(jax.random.key(0), 0.9, x.shape)
    return gelu(x) * kept / 0.9


class _PostNorm(Block):
    """A block that normalizes sums, as the first transformers did."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        heads = HEADS, WIDTH // HEADS
        q, k, v = (nn.DenseGeneral(heads, name=name)(x) for name in "qkv")
        y = nn.DenseGeneral(WIDTH, axis=(-2, -1), name="proj")(self.attention(q, k, v))
        x = self.norm("ln1")(x + y)
        y = self.activation(nn.Dense(4 * WIDTH, name="fc")(x))
        return self.norm("ln2")(x + nn.Dense(WIDTH, name="out")(y))


class _NoResidual(Block):
    """A block whose attention replaces what it is given."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return super().__call__(x) - x


class _Wrong(nn.Module):
    """The network with one thing wrong outside of its blocks."""

    block: type[Block] = Block
    scale: float = 1.0
    offset: int = 0
    final_norm: bool = True
    head: str = "tied"

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        wte = nn.Embed(VOCAB, WIDTH, name="wte")
        positions = (jnp.arange(tokens.shape[1]) + self.offset) % tokens.shape[1]
        x = self.scale * wte(tokens) + nn.Embed(tokens.shape[1], WIDTH, name="wpe")(positions)
        for i in range(LAYERS):
            x = self.block(gelu, layer_norm, causal_attention, name=f"block_{i}")(x)
        y = layer_norm("ln_f")(x)
        x = y if self.final_norm else x
        if self.head == "untied":
            return nn.Dense(VOCAB, use_bias=False, name="head")(x)
        table = wte.embedding
        return x @ (jax.lax.stop_gradient(table) if self.head == "stopped" else table).T


def _wrong(**settings: Any) -> dict[str, Any]:
    return {"model": functools.partial(_Wrong, **settings)}


def _with_head(arrays: Any) -> Any:
    params = from_torch(arrays)
    return params | {"head": {"kernel": params["wte"]["embedding"].T}}


_LAYERS = [
    plant("tanh GELU", "layers: GELU by tanh", "loss", 1, model(activation=jax.nn.gelu)),
    plant("quick GELU", "layers: another activation", "loss", 1, model(activation=lambda x: x * jax.nn.sigmoid(1.702 * x))),
    plant("silu", "layers: another activation", "loss", 1, model(activation=jax.nn.silu)),
    plant("norm's default eps", "norm: eps", "loss", 1, _norm(epsilon=1e-6)),
    plant("norm unbiased", "norm: unbiased variance", "loss", 1, model(norm=lambda name: _Unbiased(name=name))),
    plant("norm by the root", "norm: no mean", "loss", 1, model(norm=lambda name: _Root(name=name))),
    plant("dropout", "layers: dropout", "loss", 1, model(activation=_dropped)),
    plant("normalized after", "layers: norm after the sum", "loss", 1, _wrong(block=_PostNorm)),
    plant("no residual", "layers: no residual", "loss", 1, _wrong(block=_NoResidual)),
    plant("no final norm", "layers: no final norm", "loss", 1, _wrong(final_norm=False)),
    plant("tables scaled", "layers: embeddings scaled", "loss", 1, _wrong(scale=WIDTH**0.5)),
    plant("positions from 1", "layers: positions off by one", "loss", 1, _wrong(offset=1)),
    plant("head untied", "tied: apart", "raw_grads", 1, _wrong(head="untied") | {"from_torch": _with_head}),
    plant("head stopped", "tied: no gradient of the head", "raw_grads", 1, _wrong(head="stopped")),
]

# Loss


def _over(losses: Callable[[jax.Array, jax.Array], jax.Array], padding: int = PADDING) -> dict[str, Any]:
    """Another mean of the tokens' losses, given those (0 at padding) and which are known."""

    def loss(logits: jax.Array, y: jax.Array) -> jax.Array:
        known = y != padding
        targets = jnp.where(known & (y != PADDING), y, 0)
        each = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return losses(each * known, known)

    return {"criterion": loss}


def _by_sequence(losses: jax.Array, known: jax.Array) -> jax.Array:
    return jnp.mean(losses.sum(1) / known.sum(1))


def _zero_too(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Takes token 0 for padding as well."""
    return criterion(logits, jnp.where(y == 0, PADDING, y))


def _shifted(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Shifts targets that are shifted already."""
    return criterion(logits[:, :-1], y[:, 1:])


_LOSSES = [
    plant("padding in the mean", "loss: mean over padding too", "loss", 1, _over(lambda each, _: each.mean())),
    plant("padding learned", "loss: padding is a target", "loss", 1, _over(lambda each, _: each.mean(), padding=VOCAB)),
    plant("by sequence", "loss: mean of means", "loss", 1, _over(_by_sequence)),
    plant("sum over time", "loss: sum over time", "loss", 1, _over(lambda each, _: each.sum(1).mean())),
    plant("sum", "loss: sum for mean", "loss", 1, _over(lambda each, _: each.sum())),
    plant("token 0 ignored", "loss: another target ignored", "loss", 1, {"criterion": _zero_too}),
    plant("shifted twice", "loss: targets shifted", "loss", 1, {"criterion": _shifted}),
    plant("z-loss", "loss: a term more", "loss", 1, {
        "criterion": lambda z, y: criterion(z, y) + 1e-4 * jnp.mean(jax.nn.logsumexp(z, -1) ** 2)
    }),
    plant("bfloat16 logits", "loss: in bfloat16", "loss", 1, {
        "criterion": lambda z, y: criterion(z.astype(jnp.bfloat16).astype(z.dtype), y)
    }),
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
    """Rows in the order (head, q/k/v, D / H), as GPT-NeoX has them, taken for (q/k/v, head, D / H)."""
    split = fused.reshape(HEADS, 3, WIDTH // HEADS, *fused.shape[1:])
    return split.swapaxes(0, 1).reshape(fused.shape)


def _heads_inside(fused: np.ndarray) -> np.ndarray:
    """Splits the width as (D / H, heads)."""
    split = fused.reshape(3, WIDTH // HEADS, HEADS, *fused.shape[1:])
    return split.swapaxes(1, 2).reshape(fused.shape)


_STARTS = [
    plant("proj as it is", "layout: square weight not transposed", "params", 0, _every("proj.weight", lambda w: w.T)),
    plant("one proj as it is", "layout: square weight not transposed", "params", 0, _every("1.proj.weight", lambda w: w.T)),
    plant("q and k", "layout: q and k swapped", "params", 0, _every("qkv", _thirds(1, 0, 2))),
    plant("k and v", "layout: k and v swapped", "params", 0, _every("qkv.weight", _thirds(0, 2, 1))),
    plant("fused by head", "layout: fused otherwise", "params", 0, _every("qkv", _per_head)),
    plant("heads inside", "layout: heads split otherwise", "params", 0, _every("qkv", _heads_inside)),
    plant("halves of proj", "layout: heads merged otherwise", "params", 0, _every(
        "proj.weight", lambda w: w.reshape(WIDTH, HEADS, -1).swapaxes(1, 2).reshape(w.shape)
    )),
    plant("qkv transposed", "layout: square weight not transposed", "params", 0, _every(
        "qkv.weight", lambda w: np.concatenate([part.T for part in np.split(w, 3)])
    )),
    plant("norms crossed", "layout: leaves exchanged", "params", 0, named(from_torch, lambda a: a.update({
        "blocks.0.out.bias": a["blocks.1.out.bias"], "blocks.1.out.bias": a["blocks.0.out.bias"],
    }))),
    plant("biases at 0", "start: a leaf at 0", "params", 0, start(from_torch, "['q']['bias']", jnp.zeros_like)),
    # the keys' bias moves no softmax: nothing else of the training is another one
    plant("keys' bias at 0", "start: a leaf at 0", "params", 0, start(from_torch, "['k']['bias']", jnp.zeros_like)),
    plant("wpe drawn", "start: a leaf drawn anew", "params", 0, start(from_torch, "wpe", another)),
    plant("wte scaled", "start: a leaf scaled", "params", 0, start(from_torch, "wte", lambda a: 0.02 * a)),
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
    plant("one block's gradient", "gradient: of a leaf scaled", "raw_grads", 1, _leaf("block_1", lambda g: 0.5 * g)),
    # Adam's step hardly depends on the gradient's size: at step 1 by eps alone
    plant("not clipped", "clip: missing", "params", 1, {"clip": optax.identity()}),
    plant("clipped by value", "clip: by value", "params", 1, {"clip": optax.clip(0.1)}),
    plant("clipped each", "clip: each leaf", "params", 1, {"clip": wrong_rules.by_norm_of_each(1.0)}),
    plant("clipped at 1.5", "clip: threshold", "params", 1, {"clip": optax.clip_by_global_norm(1.5)}),
    plant("without 1e-6", "clip: without 1e-6", "params", 1, {"clip": optax.clip_by_global_norm(1.0)}, single=False),
    plant("clipped after", "clip: after the rule", "params", 1, {"clip": optax.identity(), "rule": _after}),
    plant("adaptive", "clip: adaptive", "params", 1, {"clip": optax.adaptive_grad_clip(0.01)}),
    plant("warm-up from 0", "schedule: a step late", "params", 1, _schedule(lambda c: jnp.minimum(1.0, c / WARMUP))),
    plant("warm-up early", "schedule: a step early", "params", 1, clocked(warmup, lambda count: count + 1)),
    plant("no warm-up", "schedule: constant", "params", 1, _schedule(lambda c: 1.0)),
    plant("warm-up longer", "schedule: another length", "params", 1, _schedule(lambda c: jnp.minimum(1.0, (c + 1) / 5))),
    plant("decays after", "schedule: another form", "params", 5, _schedule(
        lambda c: jnp.minimum((c + 1) / WARMUP, jnp.sqrt(WARMUP / (c + 1)))
    )),
    plant("warm-up squared", "schedule: another form", "params", 1, _schedule(lambda c: jnp.minimum(1.0, (c + 1) / WARMUP) ** 2)),
    # the same mean: the loss is right
    plant("samples rolled", "batch: samples in another order", "batch", 6, batches(_rolled, 6)),
    plant("tokens shuffled", "batch: labels shuffled at a step", "batch", 4, batches(_shuffled, 4)),
    plant("batches from the second", "batch: one of another step", "batch", 1, batches(
        lambda theirs, row: theirs.inputs_of((row + 1) % len(theirs)), None
    )),
]

PLANTS = [*_ATTENTION, *_LAYERS, *_LOSSES, *_STARTS, *_TRAINING]
