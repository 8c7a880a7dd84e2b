"""What the default constructors of torch.nn draw, from a `TorchGenerator`: the same initial bits.

Each function draws in the order of its constructor and returns {name: array} with the names, the
order and the layouts of the layer's state_dict. Of the arguments that decide it, those in the
signatures are covered: a recurrent layer has one direction and no projection.
"""

import math

import numpy as np

from twinstep.errors import InputError
from twinstep.problems.torch_random import FloatArray, TorchGenerator


def linear(
    generator: TorchGenerator,
    in_features: int,
    out_features: int,
    *,
    bias: bool = True,
    dtype: str = "float32",
) -> dict[str, FloatArray]:
    """The parameters that `torch.nn.Linear(in_features, out_features, bias)` starts from.

    weight (out_features, in_features), then bias (out_features,). InputError for a negative size.
    Source: torch/nn/modules/linear.py, Linear.reset_parameters.
    """
    # Both bounds are 1 / sqrt(in_features); the weight's is reached by kaiming_uniform_'s way,
    # a = sqrt(5), whose rounding differs.
    gain = math.sqrt(2.0 / (1 + math.sqrt(5) ** 2))
    bound = math.sqrt(3.0) * (gain / math.sqrt(in_features)) if in_features > 0 else 0
    params = {"weight": generator.uniform((out_features, in_features), -bound, bound, dtype)}
    if bias:
        bound = 1 / math.sqrt(in_features) if in_features > 0 else 0  # not 0.0: -0.0 would show
        params["bias"] = generator.uniform((out_features,), -bound, bound, dtype)
    return params


def conv(
    generator: TorchGenerator,
    in_channels: int,
    out_channels: int,
    kernel_size: tuple[int, ...],
    *,
    bias: bool = True,
    dtype: str = "float32",
) -> dict[str, FloatArray]:
    """The parameters that `torch.nn.Conv1d` to `Conv3d(in_channels, out_channels, ...)` start from.

    weight (out_channels, in_channels, *kernel_size), then bias (out_channels,).
    InputError for a negative size.
    Source: torch/nn/modules/conv.py, _ConvNd.reset_parameters.
    """
    flat = linear(
        generator, in_channels * math.prod(kernel_size), out_channels, bias=bias, dtype=dtype
    )
    return flat | {"weight": flat["weight"].reshape(out_channels, in_channels, *kernel_size)}


def layer_norm(size: int, *, dtype: str = "float32") -> dict[str, FloatArray]:
    """The parameters that `torch.nn.LayerNorm(size)` starts from: nothing is drawn.

    weight (size,) of ones, bias (size,) of zeros.
    Source: torch/nn/modules/normalization.py, LayerNorm.reset_parameters.
    """
    return {"weight": np.ones(size, dtype), "bias": np.zeros(size, dtype)}


def embedding(
    generator: TorchGenerator, num_embeddings: int, embedding_dim: int, *, dtype: str = "float32"
) -> dict[str, FloatArray]:
    """The parameters that `torch.nn.Embedding(num_embeddings, embedding_dim)` starts from.

    weight (num_embeddings, embedding_dim), from the standard normal distribution.
    InputError for a negative size.
    Source: torch/nn/modules/sparse.py, Embedding.reset_parameters.
    """
    return {"weight": generator.randn(num_embeddings, embedding_dim, dtype=dtype)}


def recurrent(
    generator: TorchGenerator,
    input_size: int,
    hidden_size: int,
    *,
    gates: int,
    num_layers: int = 1,
    dtype: str = "float32",
) -> dict[str, FloatArray]:
    """The parameters that `torch.nn.RNN`, `GRU` or `LSTM` (1, 3 or 4 gates) starts from.

    With G = gates, H = hidden_size, I = input_size: weight_ih_l0 (G H, I), weight_hh_l0 (G H, H),
    bias_ih_l0 (G H,), bias_hh_l0 (G H,); then those of _l1, ..., H in place of I.
    InputError for other gates and sizes below 1.
    Source: torch/nn/modules/rnn.py, RNNBase.reset_parameters.
    """
    if gates not in (1, 3, 4):
        raise InputError(f"gates is {gates}, not 1 (RNN), 3 (GRU) or 4 (LSTM)")
    if min(input_size, hidden_size, num_layers) < 1:
        raise InputError(
            f"input_size {input_size}, hidden_size {hidden_size} and num_layers {num_layers} "
            "must be positive"
        )
    bound = 1.0 / math.sqrt(hidden_size)
    rows = gates * hidden_size
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(num_layers):
        shapes |= {
            f"weight_ih_l{layer}": (rows, hidden_size if layer else input_size),
            f"weight_hh_l{layer}": (rows, hidden_size),
            f"bias_ih_l{layer}": (rows,),
            f"bias_hh_l{layer}": (rows,),
        }
    return {name: generator.uniform(shape, -bound, bound, dtype) for name, shape in shapes.items()}


def batch_norm(num_features: int, *, dtype: str = "float32") -> dict[str, FloatArray]:
    """The parameters that `torch.nn.BatchNorm1d` to `BatchNorm3d(num_features)` starts from.

    weight (num_features,), ones, then bias (num_features,), zeros; nothing is drawn.
    Source: torch/nn/modules/batchnorm.py, _NormBase.reset_parameters.
    """
    return {"weight": np.ones(num_features, dtype), "bias": np.zeros(num_features, dtype)}
