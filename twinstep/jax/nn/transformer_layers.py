"""torch.nn's layers of a transformer.

Letters: N samples, S source tokens, T target tokens, E numbers of a token. Masks are those of
MultiheadAttention: True bars a key. The fast path that PyTorch has where no gradients are taken is
not followed: a token that is padding has outputs too.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from twinstep.errors import check_arguments
from twinstep.jax.nn import functional
from twinstep.jax.nn.attention import MultiheadAttention
from twinstep.jax.nn.dropout import Dropout
from twinstep.jax.nn.linear import Linear
from twinstep.jax.nn.module import Module
from twinstep.jax.nn.normalization import LayerNorm

__all__ = ["TransformerDecoderLayer", "TransformerEncoderLayer"]

Activation = str | Callable[[jax.Array], jax.Array]
_ACTIVATIONS = {"relu": functional.relu, "gelu": functional.gelu}


class _TransformerLayer(Module):
    """What both layers are made of."""

    _attentions: tuple[str, ...]
    norm1: Any
    norm2: Any
    dropout1: Any
    dropout2: Any

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = functional.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        generator: Any = None,
        rngs: Any = None,
    ) -> None:
        check_arguments(
            type(self).__name__,
            activation=(
                activation,
                "relu, gelu or a function",
                lambda v: callable(v) or v in _ACTIVATIONS,
            ),
        )
        self.norm_first, self.batch_first = norm_first, batch_first
        draws: dict[str, Any] = {"generator": generator, "rngs": rngs}
        made: dict[str, Any] = {"bias": bias, "dtype": dtype}
        for name in self._attentions:
            attention = MultiheadAttention(
                d_model, nhead, dropout, batch_first=batch_first, **made, **draws
            )
            self.add_module(name, attention)
        self.linear1 = Linear(d_model, dim_feedforward, **made, **draws)
        self.dropout = Dropout(dropout, **draws)
        self.linear2 = Linear(dim_feedforward, d_model, **made, **draws)
        blocks = range(1, len(self._attentions) + 2)
        for i in blocks:
            self.add_module(f"norm{i}", LayerNorm(d_model, layer_norm_eps, **made))
        for i in blocks:
            self.add_module(f"dropout{i}", Dropout(dropout, **draws))
        self.activation: Any = (
            _ACTIVATIONS[activation] if isinstance(activation, str) else activation
        )

    def _attended(
        self, attention: Any, dropped: Any, x: jax.Array, memory: jax.Array, *masks: Any
    ) -> jax.Array:
        """An attention's outputs for queries x, with dropout.

        They lie in memory with the tokens first, and PyTorch draws a mask as its tensor lies.
        """
        mask, padding, is_causal = masks
        out: jax.Array = attention(
            x,
            memory,
            memory,
            key_padding_mask=padding,
            need_weights=False,
            attn_mask=mask,
            is_causal=is_causal,
        )[0]
        if self.batch_first and out.ndim == 3:
            return jnp.swapaxes(dropped(jnp.swapaxes(out, 0, 1)), 0, 1)
        kept: jax.Array = dropped(out)
        return kept

    def _fed_forward(self, dropped: Any, x: jax.Array) -> jax.Array:
        activated = self.activation(self.linear1(x))
        kept: jax.Array = dropped(self.linear2(self.dropout(activated)))
        return kept

    def _added(self, x: jax.Array, norm: Any, block: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """x and what a block makes of it, one of which is normalized."""
        added: jax.Array = x + block(norm(x)) if self.norm_first else norm(x + block(x))
        return added


class TransformerEncoderLayer(_TransformerLayer):
    """Self-attention and two linear layers, each added to what it was given, and normalized.

    Args:
        d_model: E, an int.
        nhead: Heads of the attention.
        dim_feedforward: Numbers of a token between the linear layers.
        dropout: With which probability what is between, and weights of attention, are dropped.
        activation: Between the linear layers: "relu", "gelu" or a function.
        layer_norm_eps: Of the norms.
        batch_first: Whether N stands first.
        norm_first: Whether what goes into each part is normalized, or the sums are.
        bias: Whether linear layers, attention and norms have one.
        device: Ignored.
        dtype: Of its parameters; None: float64 under x64, else float32.
        generator: What draws first values and masks: a TorchGenerator or a Generator; None: the
            default one, which `manual_seed` seeds.
        rngs: nnx.Rngs in its place.

    Shape:
        src (S, N, E), or (N, S, E) if batch_first, or (S, E), to the same; src_mask (S, S) or
        (N nhead, S, S); src_key_padding_mask (N, S); is_causal: that src_mask is the causal one.
        self_attn, linear1, linear2, norm1, norm2; dropout, dropout1, dropout2.

    Raises:
        InputError: For another activation and sizes that are not divided, and when called for
            shapes that do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> layer = nn.TransformerEncoderLayer(4, 2, dim_feedforward=8, batch_first=True)
        >>> layer(jnp.ones((1, 3, 4))).shape
        (1, 3, 4)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.TransformerEncoderLayer.html
    """

    _attentions = ("self_attn",)
    self_attn: Any

    def forward(
        self,
        src: jax.Array,
        src_mask: jax.Array | None = None,
        src_key_padding_mask: jax.Array | None = None,
        is_causal: bool = False,
    ) -> jax.Array:
        """As said above."""
        masks = src_mask, src_key_padding_mask, is_causal
        x = self._added(
            src, self.norm1, lambda x: self._attended(self.self_attn, self.dropout1, x, x, *masks)
        )
        return self._added(x, self.norm2, lambda x: self._fed_forward(self.dropout2, x))


class TransformerDecoderLayer(_TransformerLayer):
    """Self-attention, attention to an encoder's outputs, and two linear layers.

    Args:
        d_model: E, an int.
        nhead: Heads of both attentions.
        dim_feedforward: Numbers of a token between the linear layers.
        dropout: With which probability what is between, and weights of attention, are dropped.
        activation: Between the linear layers: "relu", "gelu" or a function.
        layer_norm_eps: Of the norms.
        batch_first: Whether N stands first.
        norm_first: Whether what goes into each part is normalized, or the sums are.
        bias: Whether linear layers, attentions and norms have one.
        device: Ignored.
        dtype: Of its parameters; None: float64 under x64, else float32.
        generator: What draws first values and masks: a TorchGenerator or a Generator; None: the
            default one, which `manual_seed` seeds.
        rngs: nnx.Rngs in its place.

    Shape:
        tgt (T, N, E) and memory (S, N, E), or (N, T, E) and (N, S, E) if batch_first, or both
        without N, to tgt's shape; tgt_mask (T, T) or (N nhead, T, T); memory_mask (T, S) or
        (N nhead, T, S); tgt_key_padding_mask (N, T), memory_key_padding_mask (N, S);
        tgt_is_causal, memory_is_causal: that the mask is the causal one. self_attn,
        multihead_attn, linear1, linear2, norm1 to norm3; dropout, dropout1 to dropout3.

    Raises:
        InputError: For another activation and sizes that are not divided, and when called for
            shapes that do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> layer = nn.TransformerDecoderLayer(4, 2, dim_feedforward=8, batch_first=True)
        >>> layer(jnp.ones((1, 3, 4)), jnp.ones((1, 5, 4))).shape
        (1, 3, 4)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.TransformerDecoderLayer.html
    """

    _attentions = ("self_attn", "multihead_attn")
    self_attn: Any
    multihead_attn: Any
    norm3: Any
    dropout3: Any

    def forward(
        self,
        tgt: jax.Array,
        memory: jax.Array,
        tgt_mask: jax.Array | None = None,
        memory_mask: jax.Array | None = None,
        tgt_key_padding_mask: jax.Array | None = None,
        memory_key_padding_mask: jax.Array | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> jax.Array:
        """As said above."""
        own = tgt_mask, tgt_key_padding_mask, tgt_is_causal
        other = memory_mask, memory_key_padding_mask, memory_is_causal
        x = self._added(
            tgt, self.norm1, lambda x: self._attended(self.self_attn, self.dropout1, x, x, *own)
        )
        x = self._added(
            x,
            self.norm2,
            lambda x: self._attended(self.multihead_attn, self.dropout2, x, memory, *other),
        )
        return self._added(x, self.norm3, lambda x: self._fed_forward(self.dropout3, x))
