"""What torch.nn's attention and transformers draw when they are made, from a `TorchGenerator`.

Names, order and layouts are those of the layer's state_dict. Copies of a layer start alike.
"""

import math

import numpy as np

from twinstep.problems.nets.base import under
from twinstep.problems.torch_init import layer_norm, linear
from twinstep.problems.torch_random import FloatArray, TorchGenerator

Params = dict[str, FloatArray]


def xavier_uniform(
    generator: TorchGenerator, shape: tuple[int, ...], *, dtype: str = "float32"
) -> FloatArray:
    """A matrix as `torch.nn.init.xavier_uniform_` fills it. shape: (rows, columns)

    Source: torch/nn/init.py.
    """
    bound = math.sqrt(3.0) * math.sqrt(2.0 / float(sum(shape)))
    return generator.uniform(shape, -bound, bound, dtype)


def multihead_attention(
    generator: TorchGenerator, embed_dim: int, *, dtype: str = "float32"
) -> Params:
    """The parameters that `torch.nn.MultiheadAttention(embed_dim, num_heads)` starts from.

    With E = embed_dim: in_proj_weight (3 E, E), in_proj_bias (3 E,), out_proj.weight (E, E),
    out_proj.bias (E,). out_proj draws first.
    Source: torch/nn/modules/activation.py, MultiheadAttention.
    """
    out_proj = linear(generator, embed_dim, embed_dim, dtype=dtype)
    return {
        "in_proj_weight": xavier_uniform(generator, (3 * embed_dim, embed_dim), dtype=dtype),
        "in_proj_bias": np.zeros(3 * embed_dim, dtype),
        "out_proj.weight": out_proj["weight"],
        "out_proj.bias": np.zeros(embed_dim, dtype),
    }


def transformer_layer(
    generator: TorchGenerator,
    d_model: int,
    dim_feedforward: int,
    *attentions: str,
    dtype: str = "float32",
) -> Params:
    """The parameters that a `torch.nn.TransformerEncoderLayer` or `DecoderLayer` starts from.

    attentions: "self_attn", and a decoder's "multihead_attn" behind it; linear1, linear2, and a
    norm for each part.
    Source: torch/nn/modules/transformer.py.
    """
    params: Params = {}
    for name in attentions:
        params |= under(name, multihead_attention(generator, d_model, dtype=dtype))
    params |= under("linear1", linear(generator, d_model, dim_feedforward, dtype=dtype))
    params |= under("linear2", linear(generator, dim_feedforward, d_model, dtype=dtype))
    for i in range(len(attentions) + 1):
        params |= under(f"norm{i + 1}", layer_norm(d_model, dtype=dtype))
    return params


def transformer_stack(layer: Params, num_layers: int) -> Params:
    """The parameters of a `torch.nn.TransformerEncoder` or `Decoder`: a layer's copies, a norm.

    Source: torch/nn/modules/transformer.py.
    """
    params: Params = {}
    for i in range(num_layers):
        params |= under(f"layers.{i}", layer)
    norm = layer["norm1.weight"]
    return params | under("norm", layer_norm(len(norm), dtype=str(norm.dtype)))


def transformer(
    generator: TorchGenerator,
    d_model: int,
    dim_feedforward: int,
    num_encoder_layers: int,
    num_decoder_layers: int,
    *,
    dtype: str = "float32",
) -> Params:
    """The parameters that a `torch.nn.Transformer` starts from.

    encoder and decoder, of which all matrices are drawn anew at the end: no copies then.
    Source: torch/nn/modules/transformer.py.
    """
    sizes = generator, d_model, dim_feedforward
    own, other = "self_attn", "multihead_attn"
    encoder = transformer_stack(transformer_layer(*sizes, own, dtype=dtype), num_encoder_layers)
    layer = transformer_layer(*sizes, own, other, dtype=dtype)
    decoder = transformer_stack(layer, num_decoder_layers)
    return with_new_matrices(generator, under("encoder", encoder) | under("decoder", decoder))


def with_new_matrices(generator: TorchGenerator, params: Params) -> Params:
    """The parameters after `xavier_uniform_` of each with more than one axis, in their order."""
    return {
        name: xavier_uniform(generator, array.shape, dtype=str(array.dtype))
        if array.ndim > 1
        else array
        for name, array in params.items()
    }
