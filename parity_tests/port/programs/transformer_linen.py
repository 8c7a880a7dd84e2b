"""transformer_torch.py in flax.linen: q, k and v apart, the whole training in one compiled scan."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from twinstep.jax import record, watch
from twinstep.jax.optim import clip_grad_norm
from twinstep.trace.ledger import Trace

VOCAB, WIDTH, HEADS, LENGTH, LAYERS = 17, 16, 2, 7, 2
WARMUP = 4  # steps
PADDING = -100
CLIP = clip_grad_norm(1.0)  # optax's has no 1e-6 below its norm
Named = Mapping[str, np.ndarray]


def gelu(x: jax.Array) -> jax.Array:
    """PyTorch's: by the error function."""
    return jax.nn.gelu(x, approximate=False)


def layer_norm(name: str) -> nn.LayerNorm:
    """With PyTorch's epsilon."""
    return nn.LayerNorm(epsilon=1e-5, name=name)


def causal_attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """(B, L, H, D / H) each."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / jnp.sqrt(q.shape[-1])
    mask = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    weights = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf))
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)


class Block(nn.Module):
    """transformer_torch.Block."""

    activation: Callable[[jax.Array], jax.Array]
    norm: Callable[[str], Callable[[jax.Array], jax.Array]]
    attention: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:  # (B, L, D)
        y = self.norm("ln1")(x)
        heads = HEADS, WIDTH // HEADS
        q, k, v = (nn.DenseGeneral(heads, name=name)(y) for name in "qkv")
        x = x + nn.DenseGeneral(WIDTH, axis=(-2, -1), name="proj")(self.attention(q, k, v))
        y = self.activation(nn.Dense(4 * WIDTH, name="fc")(self.norm("ln2")(x)))
        return x + nn.Dense(WIDTH, name="out")(y)


class Transformer(nn.Module):
    """transformer_torch.Transformer."""

    activation: Callable[[jax.Array], jax.Array] = gelu
    norm: Callable[[str], Callable[[jax.Array], jax.Array]] = layer_norm
    attention: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] = causal_attention

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:  # (B, L)
        wte = nn.Embed(VOCAB, WIDTH, name="wte")
        x = wte(tokens) + nn.Embed(LENGTH, WIDTH, name="wpe")(jnp.arange(tokens.shape[1]))
        for i in range(LAYERS):
            x = Block(self.activation, self.norm, self.attention, name=f"block_{i}")(x)
        return wte.attend(self.norm("ln_f")(x))  # (B, L, V)


def from_torch(named: Named) -> dict[str, Any]:
    """PyTorch's parameters as linen's."""

    def norm(name: str) -> dict[str, Any]:
        return {"scale": named[f"{name}.weight"], "bias": named[f"{name}.bias"]}

    def dense(name: str) -> dict[str, Any]:
        return {"kernel": named[f"{name}.weight"].T, "bias": named[f"{name}.bias"]}

    def block(name: str) -> dict[str, Any]:
        heads = HEADS, WIDTH // HEADS
        weights = np.split(named[f"{name}.qkv.weight"], 3)  # (D, D) each, (out, in)
        biases = np.split(named[f"{name}.qkv.bias"], 3)
        projections = {
            letter: {"kernel": weight.T.reshape(WIDTH, *heads), "bias": bias.reshape(heads)}
            for letter, weight, bias in zip("qkv", weights, biases, strict=True)
        }
        proj = dense(f"{name}.proj")
        proj["kernel"] = proj["kernel"].reshape(*heads, WIDTH)
        norms = {ln: norm(f"{name}.{ln}") for ln in ("ln1", "ln2")}
        mlp = {layer: dense(f"{name}.{layer}") for layer in ("fc", "out")}
        return {**projections, "proj": proj, **norms, **mlp}

    return {
        "wte": {"embedding": named["wte.weight"]},
        "wpe": {"embedding": named["wpe.weight"]},
        **{f"block_{i}": block(f"blocks.{i}") for i in range(LAYERS)},
        "ln_f": norm("ln_f"),
    }


def criterion(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Cross entropy, a mean over the targets that are no padding."""
    known = y != PADDING
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(known, y, 0))
    return jnp.sum(losses * known) / jnp.sum(known)


def decayed(params: Any) -> Any:
    """True for kernels and embeddings. By name: a bias of q, (heads, D / H), has two axes here."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key in ("kernel", "embedding"), params
    )


def warmup(learning_rate: float, steps: int) -> optax.Schedule:
    """Linear, and the first step already moves."""
    return lambda count: learning_rate * jnp.minimum(1.0, (count + 1) / WARMUP)


def adamw(schedule: optax.Schedule) -> optax.GradientTransformation:
    """The optimizer's rule."""
    return optax.adamw(schedule, b1=0.9, b2=0.95, weight_decay=0.1, mask=decayed)


@dataclass(frozen=True)
class Parts:
    """What the program is made of, each replaceable."""

    from_torch: Callable[[Named], Any] = from_torch
    batch_of: Callable[[Trace, int], dict[str, Any]] = Trace.inputs_of
    model: Callable[..., nn.Module] = Transformer
    criterion: Callable[[jax.Array, jax.Array], jax.Array] = criterion
    value_and_grad: Callable[..., Any] = jax.value_and_grad
    clip: optax.GradientTransformation = CLIP
    schedule: Callable[[float, int], optax.Schedule] = warmup
    rule: Callable[[optax.Schedule], optax.GradientTransformation] = adamw


def loss_of(theirs: Trace, parts: Parts | None = None) -> Callable[[Any, Any], jax.Array]:
    """The loss of parameters and a batch; theirs: what was recorded, for a program with buffers."""
    parts = parts or Parts()
    model = parts.model()

    def loss_fn(params: Any, batch: Any) -> jax.Array:
        logits: Any = model.apply({"params": params}, batch["x"])
        return parts.criterion(logits, batch["y"])

    return loss_fn


def train(theirs: Trace, parts: Parts | None = None) -> Trace:
    """Trains as the recorded program did, from its start and on its batches, and records it."""
    parts = parts or Parts()
    start = parts.from_torch({name: array[0] for name, array in theirs.params.items()})
    params = jax.tree.map(jnp.asarray, start)
    learning_rate = float(theirs.hyper_parameters["0.initial_lr"][0])
    tx = watch(optax.chain(parts.clip, parts.rule(parts.schedule(learning_rate, len(theirs)))))

    loss_fn = loss_of(theirs, parts)

    def train_step(state: Any, batch: Any) -> Any:
        params, opt_state = state
        loss, grads = parts.value_and_grad(loss_fn)(params, batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        state = optax.apply_updates(params, updates), opt_state
        return state, (state, loss)

    every = [parts.batch_of(theirs, step) for step in range(len(theirs))]
    batches = jax.tree.map(lambda *leaves: jnp.stack(leaves), *every)
    train_all = jax.jit(lambda params: jax.lax.scan(train_step, (params, tx.init(params)), batches))
    _, ((after, opt_state), losses) = train_all(params)
    with record(params) as rec:
        rec.steps(params=after, opt_state=opt_state, loss=losses, batch=batches)
    return rec.trace
