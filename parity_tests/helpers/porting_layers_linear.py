"""Rows of docs/porting/layers.md: linear maps, tables, dropouts, activations."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from helpers.kit_parity import Port
from helpers.layer_parity import Layer, given
from helpers.porting_layers import FIRST, LayerPort, drawn, first, flax

IDS = np.array([[3, 0, 1], [3, 3, 4]])


def _linear(m: Any, params: Any, x: Any, turned: bool = True) -> Any:
    if not turned:
        params = {**params, "weight": params["weight"].T}
    return flax(nnx.Linear, params, m.in_features, m.out_features)(x)


def _first_linear(m: Any, **options: Any) -> dict[str, Any]:
    return {"weight": first(nnx.Linear, m.in_features, m.out_features, **options)["kernel"]}


def _embedding(m: Any, params: Any, ids: Any) -> Any:
    return flax(nnx.Embed, params, m.num_embeddings, m.embedding_dim)(ids)


def _padded_embedding(m: Any, params: Any, ids: Any) -> Any:
    table = params["weight"]
    still = jax.lax.stop_gradient(table[m.padding_idx])
    return _embedding(m, {"weight": table.at[m.padding_idx].set(still)}, ids)


def _first_embedding(m: Any, **options: Any) -> dict[str, Any]:
    return {"weight": first(nnx.Embed, m.num_embeddings, m.embedding_dim, **options)["embedding"]}


def _prelu(m: Any, params: Any, x: Any) -> Any:
    layer = nnx.PReLU(param_dtype=jnp.float64)
    layer.negative_slope[...] = params["weight"][0]
    return layer(x)


def _dropout(axes: tuple[int, ...] = ()) -> Any:
    """Flax's, the channels where they are."""

    def call(m: Any, params: Any, x: Any) -> Any:
        layer = nnx.Dropout(m.p, broadcast_dims=axes, rngs=nnx.Rngs(0))
        return layer(x, deterministic=not m.training)

    return call


_OWN = "another mask from the same seed; the kit's is PyTorch's, with a TorchGenerator"


def _dropping(text: str, axes: tuple[int, ...], x: Any, why: str = _OWN) -> list[LayerPort]:
    naive = Port(None, None, text, _dropout(axes), why)
    return [LayerPort(Layer((0.3,), {}, (x,)), naive)]


_LINEAR = torch.nn.Linear(3, 2, dtype=torch.float64)


def _sequential(m: Any, params: Any, x: Any) -> Any:
    linear = nnx.Linear(3, 2, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    return given(nnx.Sequential(linear, jax.nn.relu), params)(x)


def _bilinear(m: Any, params: Any, x: Any, y: Any) -> Any:
    return jnp.einsum("...i,oij,...j->...o", x, params["weight"], y) + params["bias"]


PORTS: dict[str, list[LayerPort]] = {
    "Linear": [
        LayerPort(
            Layer((4, 4), {}, (drawn(3, 4),)),
            Port(
                "nnx.Linear(D, E)(x)",
                _linear,
                "nnx.Linear(D, E)(x), its kernel the weight as it is",
                functools.partial(_linear, turned=False),
                "PyTorch's weight is (E, D), Flax's kernel (D, E): a square one fits either way",
            ),
        ),
        LayerPort(
            Layer((256, 256), {}),
            Port(
                'variance_scaling(1 / 3, "fan_in", "uniform") as kernel_init, other numbers',
                functools.partial(
                    _first_linear,
                    kernel_init=jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
                ),
                "nnx.Linear(D, E)",
                _first_linear,
                "Flax's are lecun_normal, 1.7 times as wide, and 0 for the bias, which PyTorch "
                "draws",
            ),
            FIRST,
        ),
    ],
    "Bilinear": [
        LayerPort(
            Layer((3, 2, 4), {}, (drawn(5, 3), drawn(5, 2, seed=1))),
            Port('jnp.einsum("...i,oij,...j->...o", x, weight, y) + bias', _bilinear),
        )
    ],
    "Identity": [LayerPort(Layer((), {}, (drawn(3),)), Port("x", lambda m, params, x: x))],
    "Sequential": [
        LayerPort(
            Layer((_LINEAR, torch.nn.ReLU()), {}, (drawn(4, 3),)),
            Port("nnx.Sequential(nnx.Linear(D, E), jax.nn.relu)(x)", _sequential),
        )
    ],
    "Embedding": [
        LayerPort(
            Layer((5, 3), {}, (IDS,)),
            Port("nnx.Embed(R, D)(numbers)", _embedding),
        ),
        LayerPort(
            Layer((5, 3), {"padding_idx": 3}, (IDS,)),
            Port(
                "embed = nnx.Embed(R, D); table = embed.embedding[...]; "
                "table.at[p].set(jax.lax.stop_gradient(table[p]))[numbers]",
                _padded_embedding,
                "nnx.Embed(R, D)(numbers)",
                _embedding,
                "the row of padding_idx gets no gradient, and is 0 at first",
            ),
        ),
        LayerPort(
            Layer((5, 3), {"max_norm": 0.5}, (IDS,)),
            Port(
                None,
                None,
                "nnx.Embed(R, D)(numbers)",
                _embedding,
                "max_norm shortens the rows that are asked for, in the table itself",
            ),
        ),
        LayerPort(
            Layer((256, 64), {}),
            Port(
                "nnx.Embed(R, D, embedding_init=jax.nn.initializers.normal(1)), other numbers",
                functools.partial(
                    _first_embedding, embedding_init=jax.nn.initializers.normal(1.0)
                ),
                "nnx.Embed(R, D)",
                _first_embedding,
                "PyTorch's have a standard deviation of 1, Flax's of 1 / D**0.5",
            ),
            FIRST,
        ),
    ],
    "EmbeddingBag": [
        LayerPort(
            Layer((5, 3), {}, (IDS,)),
            Port(
                "nnx.Embed(R, D)(numbers).mean(1)",
                lambda m, params, ids: _embedding(m, params, ids).mean(1),
            ),
        ),
        LayerPort(
            Layer((5, 3), {"padding_idx": 3}, (IDS,)),
            Port(
                None,
                None,
                "nnx.Embed(R, D)(numbers).mean(1)",
                lambda m, params, ids: _embedding(m, params, ids).mean(1),
                "rows of padding_idx are left out, and are not counted by the mean",
            ),
        ),
    ],
    "AdaptiveLogSoftmaxWithLoss": [
        LayerPort(
            Layer((4, 12, [4, 7]), {}, (drawn(5, 4), np.array([0, 3, 6, 7, 11]))),
            Port(None, None, None, None, "JAX and Flax have none"),
        )
    ],
    "PReLU": [
        LayerPort(
            Layer((), {}, (np.array([-2.0, -1.0, 0.0, 1.0]),)),
            Port(
                "jnp.where(x > 0, x, weight * x)",
                lambda m, params, x: jnp.where(x > 0, x, params["weight"] * x),
                "nnx.PReLU()(x)",
                _prelu,
                "at 0 the derivative is the weight, in Flax 1; the weight begins with 0.25, in "
                "Flax with 0.01, and may be one a channel",
            ),
        )
    ],
    "ReLU6": [
        LayerPort(
            Layer((), {}, (np.array([-1.0, 0.0, 3.0, 7.0]),)),
            Port(
                "jax.nn.relu6(x)",
                lambda m, params, x: jax.nn.relu6(x),
                "jnp.clip(x, 0, 6)",
                lambda m, params, x: jnp.clip(x, 0, 6),
                "at 0 and 6 the derivative is 0; jnp.clip's is 0.5",
            ),
        )
    ],
    "Softmax2d": [
        LayerPort(
            Layer((), {}, (drawn(2, 3, 4, 5),)),
            Port(
                "jax.nn.softmax(x, -1), channels last",
                lambda m, params, x: jax.nn.softmax(x, 1),
                "jax.nn.softmax(x, -1), channels second",
                lambda m, params, x: jax.nn.softmax(x, -1),
                "it is over the channels",
            ),
        )
    ],
    "Dropout": [
        *_dropping("nnx.Dropout(p)(x)", (), drawn(4, 6)),
        LayerPort(
            Layer((0.3,), {}, (drawn(4, 6),), training=False),
            Port("nnx.Dropout(p)(x, deterministic=True)", _dropout()),
        ),
    ],
    "Dropout1d": _dropping("nnx.Dropout(p, broadcast_dims=(1,))(x)", (2,), drawn(4, 3, 5)),
    "Dropout2d": _dropping("nnx.Dropout(p, broadcast_dims=(1, 2))(x)", (2, 3), drawn(4, 3, 2, 2)),
    "Dropout3d": _dropping(
        "nnx.Dropout(p, broadcast_dims=(1, 2, 3))(x)", (2, 3, 4), drawn(4, 3, 2, 2, 2)
    ),
    "AlphaDropout": _dropping(
        "nnx.Dropout(p)(x)", (), drawn(4, 6), "what is dropped is -1.76, not 0, and the rest is "
        "moved so that mean and variance stay"
    ),
    "FeatureAlphaDropout": _dropping(
        "nnx.Dropout(p, broadcast_dims=(1,))(x)", (2,), drawn(4, 3, 5),
        "as of AlphaDropout, whole channels",
    ),
}  # fmt: skip
FUNCTIONS = {
    "CELU": "celu",
    "CosineSimilarity": "cosine_similarity",
    "ELU": "elu",
    "GELU": "gelu",
    "GLU": "glu",
    "Hardshrink": "hardshrink",
    "Hardsigmoid": "hardsigmoid",
    "Hardswish": "hardswish",
    "Hardtanh": "hardtanh",
    "LeakyReLU": "leaky_relu",
    "LogSigmoid": "logsigmoid",
    "LogSoftmax": "log_softmax",
    "Mish": "mish",
    "PairwiseDistance": "pairwise_distance",
    "RReLU": "rrelu",
    "ReLU": "relu",
    "SELU": "selu",
    "SiLU": "silu",
    "Sigmoid": "sigmoid",
    "Softmax": "softmax",
    "Softmin": "softmin",
    "Softplus": "softplus",
    "Softshrink": "softshrink",
    "Softsign": "softsign",
    "Tanh": "tanh",
    "Tanhshrink": "tanhshrink",
    "Threshold": "threshold",
}
