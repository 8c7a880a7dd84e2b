"""torch.nn.MultiheadAttention.

Letters: N samples, H heads, L queries, S keys, E embedding's size.
"""

from typing import Any

import jax
import jax.numpy as jnp

from twinstep.errors import check_arguments
from twinstep.jax.nn import functional, init
from twinstep.jax.nn.computed import read
from twinstep.jax.nn.drawing import drawing
from twinstep.jax.nn.functional.taking_in import value_of
from twinstep.jax.nn.linear import Linear
from twinstep.jax.nn.module import Module, Parameter, default_dtype

__all__ = ["MultiheadAttention"]


class MultiheadAttention(Module):
    """Attention of several heads between projections; True in a mask bars a key, not so in Flax.

    A query that may look at no key gives NaN with need_weights, else the output's bias. The fast
    path that PyTorch has where no gradients are taken is not followed.

    Args:
        embed_dim: E.
        num_heads: H, by which E is divided.
        dropout: What part of the weights is 0 in training; the others are divided by the rest.
        bias: Whether the projections have one.
        add_bias_kv: Whether a key and a value are added that are trained.
        add_zero_attn: Whether a key and a value of 0 are added.
        kdim, vdim: Sizes of keys and values; None: E.
        batch_first: Whether N stands first.
        device: Ignored.
        dtype: Of its parameters; None: float64 under x64, else float32.
        generator: What draws first values and masks: a TorchGenerator or a Generator; None: the
            default one, which `manual_seed` seeds.
        rngs: nnx.Rngs in its place.

    Shape:
        query (L, N, E) or (L, E), key (S, N, kdim), value (S, N, vdim). key_padding_mask, (N, S),
        and attn_mask, (L, S) or (N H, L, S): bools, or floats that are added. is_causal: that
        attn_mask is the causal one; without need_weights and padding it is made.
        To (outputs as query, weights (N, L, S), (N, H, L, S) if not average_attn_weights, or None
        without need_weights). in_proj_weight (3 E, E), or q_proj_weight (E, E), k_proj_weight
        (E, kdim), v_proj_weight (E, vdim); in_proj_bias (3 E,); bias_k, bias_v (1, 1, E);
        out_proj, a Linear.

    Raises:
        InputError: For sizes below 1 or that are not divided, and when called for shapes that do
            not fit, is_causal without attn_mask.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> layer = nn.MultiheadAttention(4, 2, batch_first=True)
        >>> x = jnp.ones((1, 3, 4))
        >>> outputs, weights = layer(x, x, x, key_padding_mask=jnp.array([[False, True, False]]))
        >>> outputs.shape, weights[0, 0].tolist()
        ((1, 3, 4), [0.5, 0.0, 0.5])

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MultiheadAttention.html
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        generator: Any = None,
        rngs: Any = None,
    ) -> None:
        check_arguments(
            "MultiheadAttention",
            embed_dim=(embed_dim, "at least 1", lambda v: v > 0),
            num_heads=(
                num_heads,
                f"at least 1, and a divisor of embed_dim, {embed_dim}",
                lambda v: v > 0 and embed_dim % v == 0,
            ),
        )
        self.embed_dim, self.num_heads, self.dropout = embed_dim, num_heads, dropout
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.batch_first, self.add_zero_attn = batch_first, add_zero_attn
        self.head_dim = embed_dim // num_heads
        self.generator = drawing(generator, rngs, "dropout")
        dtype, draws = default_dtype(dtype), drawing(generator, rngs)

        def zeros(*shape: int) -> Parameter:
            return Parameter(jnp.zeros(shape, dtype))

        self.in_proj_weight = self.q_proj_weight = self.k_proj_weight = self.v_proj_weight = None
        if self.kdim == self.vdim == embed_dim:
            self.in_proj_weight = zeros(3 * embed_dim, embed_dim)
        else:
            self.q_proj_weight = zeros(embed_dim, embed_dim)
            self.k_proj_weight = zeros(embed_dim, self.kdim)
            self.v_proj_weight = zeros(embed_dim, self.vdim)
        self.in_proj_bias = zeros(3 * embed_dim) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias, dtype=dtype, generator=draws)
        self.bias_k = zeros(1, 1, embed_dim) if add_bias_kv else None
        self.bias_v = zeros(1, 1, embed_dim) if add_bias_kv else None
        self._reset_parameters(draws)

    def _reset_parameters(self, draws: Any) -> None:
        """The first values; out_proj has drawn its own before, as in PyTorch."""
        apart = self.q_proj_weight, self.k_proj_weight, self.v_proj_weight
        for weight in (self.in_proj_weight, *apart):
            if weight is not None:
                init.xavier_uniform_(weight, generator=draws)
        if self.out_proj.bias is not None:
            init.zeros_(self.out_proj.bias)
        for bias in (self.bias_k, self.bias_v):
            if bias is not None:
                init.xavier_normal_(bias, generator=draws)

    def forward(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        key_padding_mask: jax.Array | None = None,
        need_weights: bool = True,
        attn_mask: jax.Array | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[jax.Array, jax.Array | None]:
        """As said above."""
        turned = self.batch_first and query.ndim == 3
        # PyTorch looks whether it has a faster way for attention to itself
        times = 3 if query.ndim == 3 and query is key is value else 1
        in_proj_weight = value_of(read(self, "in_proj_weight", times))
        if turned:
            query, key, value = (jnp.swapaxes(array, 0, 1) for array in (query, key, value))
        outputs, weights = functional.multi_head_attention_forward(
            query,
            key,
            value,
            self.embed_dim,
            self.num_heads,
            in_proj_weight,
            value_of(self.in_proj_bias),
            value_of(self.bias_k),
            value_of(self.bias_v),
            self.add_zero_attn,
            self.dropout,
            value_of(self.out_proj.weight),
            value_of(self.out_proj.bias),
            training=self.training,
            key_padding_mask=key_padding_mask,
            need_weights=need_weights,
            attn_mask=attn_mask,
            use_separate_proj_weight=in_proj_weight is None,
            q_proj_weight=value_of(self.q_proj_weight),
            k_proj_weight=value_of(self.k_proj_weight),
            v_proj_weight=value_of(self.v_proj_weight),
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
            generator=self.generator,
        )
        return (jnp.swapaxes(outputs, 0, 1) if turned else outputs), weights
