"""Rows of docs/porting/layers.md: attention and transformers.

Letters: N samples, S source tokens, T target tokens, E numbers of a token, H heads.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from flax.nnx.nn.attention import dot_product_attention_weights
from helpers.kit_parity import Port
from helpers.layer_parity import Layer, drawn_from, given, kit_function
from helpers.porting_layers import FIRST, LayerPort, drawn

from twinstep.jax import nn

N, S, T, E, H = 2, 5, 3, 4, 2
SRC, TGT = drawn(N, S, E), drawn(N, T, E, seed=1)
CAUSAL = np.triu(np.ones((S, S), bool), 1)
"""PyTorch's: True for what is barred."""
PADDING = np.array([[False] * 5, [False] * 3 + [True] * 2])
NONE_LEFT = np.array([[False] * 5, [True] * 5])


def _heads(params: Any, prefix: str = "", **options: Any) -> Any:
    """Flax's layer with PyTorch's weights, which has the three projections in one."""
    layer = nnx.MultiHeadAttention(
        H, E, decode=False, deterministic=True, param_dtype=jnp.float64, rngs=nnx.Rngs(0), **options
    )
    weights = jnp.split(params[f"{prefix}in_proj_weight"], 3)
    biases = jnp.split(params[f"{prefix}in_proj_bias"], 3)
    weights.append(params[f"{prefix}out_proj.weight"])
    biases.append(params[f"{prefix}out_proj.bias"])
    parts: Any = (layer.query, layer.key, layer.value, layer.out)
    for part, weight, bias in zip(parts, weights, biases, strict=True):
        part.kernel[...] = weight.T.reshape(part.kernel.shape)
        part.bias[...] = bias.reshape(part.bias.shape)
    return layer


def _exact(q: Any, k: Any, v: Any, mask: Any = None, **_: Any) -> jax.Array:
    """Attention whose softmax is of the arrays' dtype; Flax's own is of float32."""
    weights = dot_product_attention_weights(q, k, mask=mask)
    return jnp.einsum("...hqk,...khd->...qhd", weights, v)


def _attention(
    m: Any, params: Any, q: Any, k: Any, v: Any, *, attn_mask: Any = None,
    key_padding_mask: Any = None, need_weights: bool = False, turned: bool = True,
    exact: bool = True,
) -> Any:  # fmt: skip
    """turned: the mask is. exact: the softmax is of the arrays' dtype"""
    barred = attn_mask if key_padding_mask is None else key_padding_mask[:, None, None]
    mask = None if barred is None else ~barred if turned else barred
    own: dict[str, Any] = {"attention_fn": _exact} if exact else {}
    return _heads(params, **own)(q, k, v, mask=mask)


def _encoder_layer(m: Any, params: Any, x: Any, src_mask: Any = None) -> Any:
    """Of Flax's parts, the norms behind."""
    own: dict[str, Any] = {"param_dtype": jnp.float64, "rngs": nnx.Rngs(0)}
    norms = [nnx.LayerNorm(E, epsilon=1e-5, use_fast_variance=False, **own) for _ in range(2)]
    wide = m.linear1.out_features
    layers = [*norms, nnx.Linear(E, wide, **own), nnx.Linear(wide, E, **own)]
    for layer, name in zip(layers, ("norm1", "norm2", "linear1", "linear2"), strict=True):
        given(layer, {key: params[f"{name}.{key}"] for key in ("weight", "bias")})
    norm1, norm2, up, down = layers
    mask = None if src_mask is None else ~src_mask
    x = norm1(x + _heads(params, "self_attn.", attention_fn=_exact)(x, mask=mask))
    return norm2(x + down(jax.nn.relu(up(x))))


def _kit(change: Any) -> Any:
    """The kit's layer with a change that makes another of it."""

    def call(m: Any, params: Any, *inputs: Any, **options: Any) -> Any:
        module = nn.from_torch(m)
        change(module)
        params = {name: array for name, array in params.items() if name in nn.state_dict(module)}
        return kit_function(module)(params, *inputs, drawn=drawn_from(module), **options)[0]

    return call


def _norms_first(module: Any) -> None:
    module.norm_first = True


def _without_last_norms(module: Any) -> None:
    module.encoder.norm = module.decoder.norm = None


def _norms_of_the_layers_first(module: Any) -> None:
    for layer in module.layers:
        layer.norm_first = True


def _first_heads(m: Any, **options: Any) -> dict[str, Any]:
    layer = nnx.MultiHeadAttention(
        m.num_heads, m.embed_dim, decode=False, rngs=nnx.Rngs(0), **options
    )
    parts = (layer.query, layer.key, layer.value)
    joined = np.stack([np.asarray(part.kernel[...]) for part in parts])
    return {"in_proj_weight": joined}


def _xavier(key: Any, shape: Any, dtype: Any = jnp.float32, *_: Any) -> Any:
    """Of the three projections in one: fan_in E, fan_out 3 E."""
    bound = (6 / (4 * shape[0])) ** 0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def _row(
    pure: str | None, call: Any, naive: str, naive_call: Any, why: str, **options: Any
) -> LayerPort:
    given = {"need_weights": False, **options}
    return LayerPort(
        Layer((E, H), {"batch_first": True}, (SRC, SRC, SRC), given),
        Port(pure, call, naive, naive_call, why),
    )


def _stacked(kind: Any) -> Any:
    torch.manual_seed(1)
    return kind(E, H, 6, 0.0, batch_first=True, dtype=torch.float64)


MADE: dict[str, Any] = {"dim_feedforward": 6, "dropout": 0.0, "batch_first": True}
_FLAX = "nnx.MultiHeadAttention(H, E, decode=False)"
_EXACT = _FLAX.replace(")", ", attention_fn=exact)")
_FLOAT32 = (
    "Flax's softmax is of float32 in float64 too, but in `exact = lambda q, k, v, mask=None, **_: "
    'jnp.einsum("...hqk,...khd->...qhd", dot_product_attention_weights(q, k, mask=mask), v)` of '
    "`flax.nnx.nn.attention`"
)
_NORMS = "PyTorch's norms stand behind each part unless norm_first=True"

PORTS: dict[str, list[LayerPort]] = {
    "MultiheadAttention": [
        _row(
            f"{_EXACT}(q, k, v)",
            _attention,
            f"{_FLAX}(q, k, v)",
            functools.partial(_attention, exact=False),
            f"{_FLOAT32}; in_proj_weight is the three of (E, E) in one, Flax's kernels (E, H, D)",
        ),
        _row(
            f"{_EXACT}(q, k, v, mask=~attn_mask)",
            _attention,
            f"{_FLAX}(q, k, v, mask=attn_mask)",
            functools.partial(_attention, turned=False),
            "PyTorch's mask is True for what is barred, Flax's for what takes part",
            attn_mask=CAUSAL,
        ),
        _row(
            f"{_EXACT}(q, k, v, mask=~key_padding_mask[:, None, None]), where a key is left",
            _attention,
            f"{_FLAX}(q, k, v, mask=key_padding_mask[:, None, None])",
            functools.partial(_attention, turned=False),
            "as for attn_mask; it is of samples and keys",
            key_padding_mask=PADDING,
        ),
    ],
    "TransformerEncoderLayer": [
        LayerPort(
            Layer((E, H), MADE, (SRC,), {"src_mask": CAUSAL}),
            Port(
                "x = norm1(x + attention(x, mask=~src_mask)); "
                "norm2(x + linear2(jax.nn.relu(linear1(x)))), of nnx.LayerNorm(E, epsilon=1e-5, "
                "use_fast_variance=False)",
                _encoder_layer,
                "x = x + attention(norm1(x), mask=~src_mask); "
                "x + linear2(jax.nn.relu(linear1(norm2(x))))",
                _kit(_norms_first),
                _NORMS,
            ),
        )
    ],
    "TransformerDecoderLayer": [
        LayerPort(
            Layer((E, H), MADE, (TGT, SRC)),
            Port(
                None,
                None,
                "x = x + attention(norm1(x)); x = x + cross(norm2(x), memory); "
                "x + linear2(jax.nn.relu(linear1(norm3(x))))",
                _kit(_norms_first),
                f"{_NORMS}; attention is not causal without tgt_mask",
            ),
        )
    ],
    "TransformerEncoder": [
        LayerPort(
            Layer((_stacked(torch.nn.TransformerEncoderLayer), 2), {}, (SRC,)),
            Port(
                None,
                None,
                "for layer in layers: x = layer(x), of layers with the norms first",
                _kit(_norms_of_the_layers_first),
                f"{_NORMS}; there is none at the end without norm=; all layers begin as copies of "
                "the one that is given",
            ),
        )
    ],
    "TransformerDecoder": [
        LayerPort(
            Layer((_stacked(torch.nn.TransformerDecoderLayer), 2), {}, (TGT, SRC)),
            Port(
                None,
                None,
                "for layer in layers: x = layer(x, memory), of layers with the norms first",
                _kit(_norms_of_the_layers_first),
                "as of the encoder",
            ),
        )
    ],
    "Transformer": [
        LayerPort(
            Layer((E, H, 1, 1), MADE, (SRC, TGT)),
            Port(
                None,
                None,
                "decoder(tgt, encoder(src))",
                _kit(_without_last_norms),
                "Transformer has a norm behind the encoder and one behind the decoder, whatever "
                "norm_first is",
            ),
        )
    ],
}
PORTS["MultiheadAttention"] += [
    LayerPort(
        Layer((E, H), {}, (SRC, SRC, SRC), {"need_weights": False}),
        Port(
            f"{_EXACT}(q, k, v), of arrays of (N, S, E)",
            lambda m, params, *qkv, **_: jnp.swapaxes(
                _attention(m, params, *(jnp.swapaxes(x, 0, 1) for x in qkv)), 0, 1
            ),
            f"{_EXACT}(q, k, v), of arrays of (S, N, E)",
            _attention,
            "PyTorch's arrays are (S, N, E) unless batch_first=True",
        ),
    ),
    LayerPort(
        Layer(
            (E, H),
            {"batch_first": True, "add_zero_attn": True},
            (SRC, SRC, SRC),
            {"need_weights": False},
        ),
        Port(
            None,
            None,
            f"{_FLAX}(q, k, v)",
            functools.partial(_attention, exact=False),
            "a key and a value of 0 are added; Flax has neither this nor add_bias_kv",
        ),
    ),
    LayerPort(
        Layer(
            (E, H),
            {"batch_first": True},
            (SRC, SRC, SRC),
            {"need_weights": False, "key_padding_mask": NONE_LEFT},
        ),
        Port(
            None,
            None,
            f"{_FLAX}(q, k, v, mask=~key_padding_mask[:, None, None])",
            _attention,
            "Flax gives the values' mean, PyTorch the output's bias, and NaN with "
            "need_weights=True",
        ),
        "a sample with no key left",
    ),
    LayerPort(
        Layer((64, 4), {}),
        Port(
            "nnx.MultiHeadAttention(H, E, kernel_init=...) with jax.random.uniform(key, shape, "
            "minval=-(1.5 / E) ** 0.5, maxval=(1.5 / E) ** 0.5), other numbers",
            functools.partial(_first_heads, kernel_init=_xavier),
            "nnx.MultiHeadAttention(H, E)",
            _first_heads,
            "Xavier's bound of PyTorch is that of the three projections in one",
        ),
        FIRST,
    ),
]
