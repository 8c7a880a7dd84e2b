"""PyTorch's layers in Flax, for training and not only for the forward pass.

Arguments and attribute names are PyTorch's; parameters have Flax's layout (`layout.TABLE`
takes them there). Initial values are the spec's; until then all
parameters are 0, and none needs a seed.
Letters: N samples, T time steps, I inputs, H hidden units.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

# Below this many products a dot is multiply-and-sum, which XLA fuses with its neighbours; calling
# a matrix product takes longer than the product. The sum rounds as a dot may: in some order.
_SMALL_DOT = 2048


def dot_general(
    lhs: jax.Array, rhs: jax.Array, dimension_numbers: Any, precision: Any = None, **options: Any
) -> jax.Array:
    """`jax.lax.dot_general` of (..., I) and (I, O), written out where it is small."""
    (contracted, _), _ = dimension_numbers
    if contracted != (lhs.ndim - 1,) or lhs.size * rhs.shape[1] > _SMALL_DOT:
        return jax.lax.dot_general(lhs, rhs, dimension_numbers, precision=precision, **options)
    return jnp.sum(lhs[..., None] * rhs, axis=-2)


class Linear(nnx.Linear):
    """x W^T + b. Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Linear.html"""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(
            in_features,
            out_features,
            use_bias=bias,
            kernel_init=nnx.initializers.zeros,
            dot_general=dot_general,
            rngs=nnx.Rngs(0),
        )


class Embedding(nnx.Module):
    """Rows of a table by their numbers, (N,) -> (N, embedding_dim).

    The gradient is dense, as PyTorch's is unless sparse=True: 0 in rows that no number names.
    flax.nnx.Embed keeps the dtype that it was made in.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Embedding.html
    """

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        self.weight = nnx.Param(jnp.zeros((num_embeddings, embedding_dim)))

    def __call__(self, numbers: jax.Array) -> jax.Array:
        return self.weight[numbers]


class RNN(nnx.Module):
    """Elman RNN, h' = tanh(W_ih x + b_ih + W_hh h + b_hh), one layer, batch first.

    Both biases are kept: they get the same gradient, and one in their place would move at half
    their speed. x: (N, T, I), h0: (N, H) -> the outputs (N, T, H) and the last one (N, H).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.RNN.html
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        self.input = Linear(input_size, hidden_size)
        self.hidden = Linear(hidden_size, hidden_size)

    def __call__(self, x: jax.Array, h0: jax.Array) -> tuple[jax.Array, jax.Array]:
        def cell(h: jax.Array, i: jax.Array) -> jax.Array:
            return jnp.tanh(i + self.hidden(h))

        return _over_time(cell, self.input(x), h0)


class GRU(nnx.Module):
    """Gated recurrent unit, gates in PyTorch's order r, z, n, one layer, batch first.

    b_hn stands inside the reset gate's product, where flax.nnx.GRUCell has no bias.
    x: (N, T, I), h0: (N, H) -> the outputs (N, T, H) and the last one (N, H).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GRU.html
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        self.input = Linear(input_size, 3 * hidden_size)
        self.hidden = Linear(hidden_size, 3 * hidden_size)

    def __call__(self, x: jax.Array, h0: jax.Array) -> tuple[jax.Array, jax.Array]:
        def cell(h: jax.Array, i: jax.Array) -> jax.Array:
            i_r, i_z, i_n = jnp.split(i, 3, axis=-1)  # (N, H) each
            h_r, h_z, h_n = jnp.split(self.hidden(h), 3, axis=-1)
            r = jax.nn.sigmoid(i_r + h_r)
            z = jax.nn.sigmoid(i_z + h_z)
            n = jnp.tanh(i_n + r * h_n)
            return (1 - z) * n + z * h

        return _over_time(cell, self.input(x), h0)


def _over_time(cell: Any, inputs: jax.Array, h0: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Runs a cell over axis 1. What the input adds has no part in the recurrence: it is given for
    all time steps, one product instead of T. (N, T, G), (N, H) -> (N, T, H), (N, H)
    """

    def step(h: jax.Array, i: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = cell(h, i)
        return h, h

    last, outputs = jax.lax.scan(step, h0, jnp.swapaxes(inputs, 0, 1))
    return jnp.swapaxes(outputs, 0, 1), last


def to_tensor(images: jax.Array) -> jax.Array:
    """Bytes 0..255 as numbers 0..1, in the default dtype. Source: torchvision's ToTensor

    Looked up: XLA would turn a division by 255 into a product with 1 / 255, an ulp off.
    """
    values = jnp.asarray(np.arange(256) / 255, float)
    return values[images]
