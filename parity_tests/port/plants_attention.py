"""Faults of transformer_linen's attention and layers."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from port.planting import Plant
from port.programs.transformer_linen import (
    HEADS,
    LAYERS,
    VOCAB,
    WIDTH,
    Block,
    Transformer,
    causal_attention,
    from_torch,
    gelu,
    layer_norm,
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
    plant(
        "no mask", "attention: no mask", "loss", 1, _attention(mask=lambda n: np.ones((n, n), bool))
    ),
    plant(
        "mask inverted",
        "attention: mask's polarity",
        "loss",
        1,
        _attention(mask=lambda n: ~_triangle(n, -1)),
    ),
    # the first query then sees nothing, and so everything alike
    plant(
        "not itself",
        "attention: mask off by one",
        "loss",
        1,
        _attention(mask=lambda n: _triangle(n, -1), hidden=-1e9),
    ),
    plant(
        "the next too",
        "attention: mask off by one",
        "loss",
        1,
        _attention(mask=lambda n: _triangle(n, 1)),
    ),
    plant("mask weak", "attention: mask too weak", "loss", 1, _attention(hidden=-10.0)),
    plant("mask added", "attention: mask of numbers", "loss", 1, model(attention=_added_mask)),
    plant(
        "mask late", "attention: mask after the softmax", "loss", 1, model(attention=_masked_after)
    ),
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
    plant(
        "quick GELU",
        "layers: another activation",
        "loss",
        1,
        model(activation=lambda x: x * jax.nn.sigmoid(1.702 * x)),
    ),
    plant("silu", "layers: another activation", "loss", 1, model(activation=jax.nn.silu)),
    plant("norm's default eps", "norm: eps", "loss", 1, _norm(epsilon=1e-6)),
    plant(
        "norm unbiased",
        "norm: unbiased variance",
        "loss",
        1,
        model(norm=lambda name: _Unbiased(name=name)),
    ),
    plant(
        "norm by the root", "norm: no mean", "loss", 1, model(norm=lambda name: _Root(name=name))
    ),
    plant("dropout", "layers: dropout", "loss", 1, model(activation=_dropped)),
    plant("normalized after", "layers: norm after the sum", "loss", 1, _wrong(block=_PostNorm)),
    plant("no residual", "layers: no residual", "loss", 1, _wrong(block=_NoResidual)),
    plant("no final norm", "layers: no final norm", "loss", 1, _wrong(final_norm=False)),
    plant("tables scaled", "layers: embeddings scaled", "loss", 1, _wrong(scale=WIDTH**0.5)),
    plant("positions from 1", "layers: positions off by one", "loss", 1, _wrong(offset=1)),
    plant(
        "head untied",
        "tied: apart",
        "raw_grads",
        1,
        _wrong(head="untied") | {"from_torch": _with_head},
    ),
    plant("head stopped", "tied: no gradient of the head", "raw_grads", 1, _wrong(head="stopped")),
]

PLANTS = [*_ATTENTION, *_LAYERS]
