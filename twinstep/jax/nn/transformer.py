"""torch.nn's transformer, encoder and decoder.

Letters: N samples, S source tokens, T target tokens, E numbers of a token. Masks are those of
MultiheadAttention: True bars a key. The fast path that PyTorch has where no gradients are taken is
not followed: there a token that is padding gives 0, here it has outputs too.
"""

import copy
from typing import Any

import jax
import jax.numpy as jnp

from twinstep.errors import InputError
from twinstep.jax.nn import functional, init
from twinstep.jax.nn.container import ModuleList
from twinstep.jax.nn.drawing import drawing
from twinstep.jax.nn.module import Module, default_dtype
from twinstep.jax.nn.normalization import LayerNorm
from twinstep.jax.nn.transformer_layers import (
    Activation,
    TransformerDecoderLayer,
    TransformerEncoderLayer,
)

__all__ = ["Transformer", "TransformerDecoder", "TransformerEncoder"]


class _Stack(Module):
    """Copies of a layer one after the other, and a norm."""

    def _fill(self, layer: Any, num_layers: int, norm: Any) -> None:
        self.layers = ModuleList([copy.deepcopy(layer) for _ in range(num_layers)])
        self.num_layers, self.norm = num_layers, norm

    def _run(self, x: jax.Array, *args: Any, **masks: Any) -> jax.Array:
        if not len(self.layers):
            raise InputError(f"{type(self).__name__}: num_layers is 0, expected at least 1")
        for layer in self.layers:
            x = layer(x, *args, **masks)
        return x if self.norm is None else self.norm(x)


class TransformerEncoder(_Stack):
    """Copies of an encoder layer one after the other; all start from its values.

    Args:
        encoder_layer: A TransformerEncoderLayer, which is copied; its generator is shared.
        num_layers: How many copies.
        norm: What the last one's outputs go through, or None.
        enable_nested_tensor, mask_check: Of PyTorch's fast path; not looked at.

    Shape:
        src as the layer's, to the same; mask, src_key_padding_mask and is_causal are src_mask and
        the like of its. layers, a ModuleList, and norm.

    Raises:
        InputError: When called, for no layers, and for shapes that do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8), num_layers=2)
        >>> encoder(jnp.ones((3, 1, 4))).shape
        (3, 1, 4)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.TransformerEncoder.html
    """

    def __init__(
        self,
        encoder_layer: Any,
        num_layers: int,
        norm: Any = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ) -> None:
        self._fill(encoder_layer, num_layers, norm)
        self.enable_nested_tensor, self.mask_check = enable_nested_tensor, mask_check

    def forward(
        self,
        src: jax.Array,
        mask: jax.Array | None = None,
        src_key_padding_mask: jax.Array | None = None,
        is_causal: bool | None = None,
    ) -> jax.Array:
        """As said above."""
        return self._run(
            src,
            src_mask=mask,
            is_causal=_told(is_causal),
            src_key_padding_mask=src_key_padding_mask,
        )


class TransformerDecoder(_Stack):
    """Copies of a decoder layer one after the other; all start from its values.

    Args:
        decoder_layer: A TransformerDecoderLayer, which is copied; its generator is shared.
        num_layers: How many copies.
        norm: What the last one's outputs go through, or None.

    Shape:
        tgt, memory, masks and the like as the layer's, to tgt's shape. layers, a ModuleList, and
        norm.

    Raises:
        InputError: When called, for no layers, and for shapes that do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 2, 8), num_layers=2)
        >>> decoder(jnp.ones((3, 1, 4)), jnp.ones((5, 1, 4))).shape
        (3, 1, 4)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.TransformerDecoder.html
    """

    def __init__(self, decoder_layer: Any, num_layers: int, norm: Any = None) -> None:
        self._fill(decoder_layer, num_layers, norm)

    def forward(
        self,
        tgt: jax.Array,
        memory: jax.Array,
        tgt_mask: jax.Array | None = None,
        memory_mask: jax.Array | None = None,
        tgt_key_padding_mask: jax.Array | None = None,
        memory_key_padding_mask: jax.Array | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> jax.Array:
        """As said above."""
        return self._run(
            tgt,
            memory,
            tgt_mask=tgt_mask,
            memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
            tgt_is_causal=_told(tgt_is_causal),
            memory_is_causal=memory_is_causal,
        )


class Transformer(Module):
    """An encoder and a decoder; all their matrices are drawn anew, xavier_uniform_.

    Args:
        d_model: E, an int.
        nhead: Heads of the attentions.
        num_encoder_layers, num_decoder_layers: How many.
        dim_feedforward: Numbers of a token between two linear layers.
        dropout: With which probability what is between, and weights of attention, are dropped.
        activation: Between the linear layers: "relu", "gelu" or a function.
        custom_encoder, custom_decoder: Modules in their place.
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
        src (S, N, E) and tgt (T, N, E), or (N, S, E) and (N, T, E) if batch_first, or both without
        N, to tgt's shape; src_mask (S, S), tgt_mask (T, T), memory_mask (T, S), each also of
        (N nhead, ..., ...); src_key_padding_mask and memory_key_padding_mask (N, S),
        tgt_key_padding_mask (N, T); src_is_causal, tgt_is_causal, memory_is_causal: that the mask
        is the causal one. encoder and decoder.

    Raises:
        InputError: For another activation and sizes that are not divided, and when called for
            shapes that do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> net = nn.Transformer(4, 2, 1, 1, dim_feedforward=8)
        >>> mask = net.generate_square_subsequent_mask(3)
        >>> net(jnp.ones((5, 1, 4)), jnp.ones((3, 1, 4)), tgt_mask=mask).shape
        (3, 1, 4)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Transformer.html
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = functional.relu,
        custom_encoder: Any = None,
        custom_decoder: Any = None,
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
        layer: dict[str, Any] = {
            "d_model": d_model,
            "nhead": nhead,
            "dim_feedforward": dim_feedforward,
            "dropout": dropout,
            "activation": activation,
            "layer_norm_eps": layer_norm_eps,
            "batch_first": batch_first,
            "norm_first": norm_first,
            "bias": bias,
            "dtype": dtype,
            "generator": generator,
            "rngs": rngs,
        }

        def norm() -> LayerNorm:
            return LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)

        self.encoder = custom_encoder
        if custom_encoder is None:
            one: Any = TransformerEncoderLayer(**layer)
            self.encoder = TransformerEncoder(one, num_encoder_layers, norm())
        self.decoder = custom_decoder
        if custom_decoder is None:
            one = TransformerDecoderLayer(**layer)
            self.decoder = TransformerDecoder(one, num_decoder_layers, norm())
        draws = drawing(generator, rngs)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                init.xavier_uniform_(parameter, generator=draws)
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first

    def forward(
        self,
        src: jax.Array,
        tgt: jax.Array,
        src_mask: jax.Array | None = None,
        tgt_mask: jax.Array | None = None,
        memory_mask: jax.Array | None = None,
        src_key_padding_mask: jax.Array | None = None,
        tgt_key_padding_mask: jax.Array | None = None,
        memory_key_padding_mask: jax.Array | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> jax.Array:
        """As said above."""
        self._check(src, tgt)
        memory = self.encoder(
            src,
            mask=src_mask,
            src_key_padding_mask=src_key_padding_mask,
            is_causal=src_is_causal,
        )
        output: jax.Array = self.decoder(
            tgt,
            memory,
            tgt_mask=tgt_mask,
            memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
            tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )
        return output

    def _check(self, src: jax.Array, tgt: jax.Array) -> None:
        axis = 0 if self.batch_first else 1
        batched = src.ndim == 3
        if (
            src.ndim != tgt.ndim
            or (batched and src.shape[axis] != tgt.shape[axis])
            or {src.shape[-1], tgt.shape[-1]} != {self.d_model}
        ):
            shape = "(N, ., E)" if self.batch_first else "(., N, E)"
            raise InputError(
                f"Transformer: src is of shape {src.shape} and tgt of {tgt.shape}, expected "
                f"{shape} or (., E) of both, E being {self.d_model}"
            )

    @staticmethod
    def generate_square_subsequent_mask(
        sz: int, device: Any = None, dtype: Any = None
    ) -> jax.Array:
        """The causal mask: -inf above the diagonal, else 0.

        Args:
            sz: Its rows and columns.
            device: Ignored.
            dtype: Its dtype; None: float64 under x64, else float32.

        Returns:
            (sz, sz).
        """
        return jnp.triu(jnp.full((sz, sz), -jnp.inf, default_dtype(dtype)), 1)


def _told(is_causal: bool | None) -> bool:
    """Of None PyTorch looks whether the mask is the causal one, which gives the same, faster."""
    return bool(is_causal)
