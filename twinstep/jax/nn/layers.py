"""PyTorch's layers in Flax, for training and not only for the forward pass.

Arguments are PyTorch's; parameters have Flax's layout (`layout.TABLE` takes them there). All of
them are 0 until values are loaded (`layout.load_params`), and none needs a seed.
Letters: N samples, T time steps, I inputs, H hidden units.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from twinstep.errors import InputError

_SMALL_DOT = 2048  # products, up to which a dot is multiply-and-sum


def dot_general(
    lhs: jax.Array, rhs: jax.Array, dimension_numbers: Any, precision: Any = None, **options: Any
) -> jax.Array:
    """`jax.lax.dot_general` of (..., I) and (I, O), written out where it is small.

    XLA fuses a small sum of products with its neighbours; a call of a matrix product takes longer
    than the product. It rounds as a dot may: in some order.

    Args:
        lhs: The left side, (..., I).
        rhs: The right side, (I, O).
        dimension_numbers, precision, options: As `jax.lax.dot_general` has them.

    Returns:
        The product, (..., O).

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from twinstep.jax.nn import dot_general
        >>> layer = nnx.Linear(3, 2, dot_general=dot_general, rngs=nnx.Rngs(0))
        >>> layer(jnp.ones((4, 3))).shape
        (4, 2)

    Source: https://docs.jax.dev/en/latest/_autosummary/jax.lax.dot_general.html
    """
    (contracted, _), _ = dimension_numbers
    if contracted != (lhs.ndim - 1,) or lhs.size * rhs.shape[1] > _SMALL_DOT:
        return jax.lax.dot_general(lhs, rhs, dimension_numbers, precision=precision, **options)
    return jnp.sum(lhs[..., None] * rhs, axis=-2)


class Linear(nnx.Linear):
    """x W^T + b.

    A `flax.nnx.Linear`, whose kernel is PyTorch's weight transposed, (in_features, out_features).
    All is 0 until values are loaded.

    Args:
        in_features, out_features: How many numbers go in and come out, ints.
        bias: Whether b is added.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.layout import load_params
        >>> from twinstep.jax.nn import Linear
        >>> layer = Linear(3, 2)  # torch.nn.Linear(3, 2): a weight of shape (2, 3)
        >>> load_params(layer, {"weight": jnp.ones((2, 3)), "bias": jnp.zeros(2)})
        >>> layer(jnp.array([1.0, 2.0, 3.0])).tolist()
        [6.0, 6.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Linear.html
    """

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
    flax.nnx.Embed keeps the dtype that it was made in. All is 0 until values are loaded.

    Args:
        num_embeddings: Rows of the table, an int.
        embedding_dim: Numbers in a row, an int.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.layout import load_params
        >>> from twinstep.jax.nn import Embedding
        >>> layer = Embedding(3, 2)
        >>> load_params(layer, {"weight": jnp.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])})
        >>> layer(jnp.array([2, 0])).tolist()
        [[4.0, 5.0], [0.0, 1.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Embedding.html
    """

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        self.weight = nnx.Param(jnp.zeros((num_embeddings, embedding_dim)))

    def __call__(self, numbers: jax.Array) -> jax.Array:
        """The rows of these numbers.

        Args:
            numbers: Which rows, (N,) int, from 0.

        Returns:
            The rows, (N, embedding_dim); in a compiled function NaN for a number that is no row's.

        Raises:
            InputError: For a number that is no row's, where numbers are known.
        """
        table, rows = self.weight[...], jnp.asarray(numbers)
        if not isinstance(rows, jax.core.Tracer):
            known = np.asarray(rows)
            if (odd := known[(known < 0) | (known >= len(table))]).size:
                raise InputError(
                    f"Embedding: number {odd[0]} is no row's, expected 0 to {len(table) - 1}"
                )
        rows = jnp.where(rows < 0, len(table), rows)  # which JAX would count from the end
        found: jax.Array = table.at[rows].get(mode="fill", fill_value=jnp.nan)
        return found


class RNN(nnx.Module):
    """Elman RNN, h' = tanh(W_ih x + b_ih + W_hh h + b_hh), one layer, batch first.

    Both biases are kept: they get the same gradient, and one in their place, as flax.nnx.SimpleCell
    has it, would move at half their speed. All is 0 until values are loaded.

    Args:
        input_size: Inputs of a time step, I, an int.
        hidden_size: Hidden units, H, an int.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.layout import load_params
        >>> from twinstep.jax.nn import RNN
        >>> layer = RNN(1, 1)  # torch.nn.RNN(1, 1, batch_first=True)
        >>> weights = {"weight_ih_l0": jnp.ones((1, 1)), "weight_hh_l0": jnp.ones((1, 1))}
        >>> biases = {"bias_ih_l0": jnp.zeros(1), "bias_hh_l0": jnp.zeros(1)}
        >>> load_params(layer, weights | biases)
        >>> outputs, last = layer(jnp.ones((1, 2, 1)), jnp.zeros((1, 1)))
        >>> [round(float(h), 4) for h in outputs[0, :, 0]], last.shape
        ([0.7616, 0.9427], (1, 1))

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.RNN.html
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        self.input = Linear(input_size, hidden_size)
        self.hidden = Linear(hidden_size, hidden_size)

    def __call__(self, x: jax.Array, h0: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Runs over all time steps.

        Args:
            x: The inputs, (N, T, I).
            h0: The hidden units before the first step, (N, H); PyTorch's have an axis more.

        Returns:
            The outputs, (N, T, H), and the last one, (N, H).

        Raises:
            InputError: For other shapes.
        """

        def cell(h: jax.Array, i: jax.Array) -> jax.Array:
            return jnp.tanh(i + self.hidden(h))

        _check_shapes(self, x, h0)
        return _over_time(cell, self.input(x), h0)


class GRU(nnx.Module):
    """Gated recurrent unit, gates in PyTorch's order r, z, n, one layer, batch first.

    b_hn stands inside the reset gate's product, where flax.nnx.GRUCell has no bias. All is 0 until
    values are loaded.

    Args:
        input_size: Inputs of a time step, I, an int.
        hidden_size: Hidden units, H, an int.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.layout import load_params
        >>> from twinstep.jax.nn import GRU
        >>> layer = GRU(1, 1)  # torch.nn.GRU(1, 1, batch_first=True)
        >>> weights = {"weight_ih_l0": jnp.ones((3, 1)), "weight_hh_l0": jnp.ones((3, 1))}
        >>> biases = {"bias_ih_l0": jnp.zeros(3), "bias_hh_l0": jnp.zeros(3)}
        >>> load_params(layer, weights | biases)
        >>> outputs, last = layer(jnp.ones((1, 2, 1)), jnp.zeros((1, 1)))
        >>> [round(float(h), 4) for h in outputs[0, :, 0]], last.shape
        ([0.2048, 0.3468], (1, 1))

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GRU.html
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        self.input = Linear(input_size, 3 * hidden_size)
        self.hidden = Linear(hidden_size, 3 * hidden_size)

    def __call__(self, x: jax.Array, h0: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Runs over all time steps.

        Args:
            x: The inputs, (N, T, I).
            h0: The hidden units before the first step, (N, H); PyTorch's have an axis more.

        Returns:
            The outputs, (N, T, H), and the last one, (N, H).

        Raises:
            InputError: For other shapes.
        """

        def cell(h: jax.Array, i: jax.Array) -> jax.Array:
            i_r, i_z, i_n = jnp.split(i, 3, axis=-1)  # (N, H) each
            h_r, h_z, h_n = jnp.split(self.hidden(h), 3, axis=-1)
            r = jax.nn.sigmoid(i_r + h_r)
            z = jax.nn.sigmoid(i_z + h_z)
            n = jnp.tanh(i_n + r * h_n)
            return (1 - z) * n + z * h

        _check_shapes(self, x, h0)
        return _over_time(cell, self.input(x), h0)


def _check_shapes(layer: Any, x: jax.Array, h0: jax.Array) -> None:
    """Raises InputError for others than (N, T, I) and (N, H): an axis more would broadcast."""
    name, size = type(layer).__name__, layer.input.kernel.shape[0]
    if x.ndim != 3 or x.shape[2] != size:
        raise InputError(f"{name}: x has shape {x.shape}, expected (N, T, {size})")
    expected = (x.shape[0], layer.hidden.kernel.shape[0])
    if h0.shape != expected:
        raise InputError(f"{name}: h0 has shape {h0.shape}, expected {expected}")


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
    """Bytes 0..255 as numbers 0..1, in the default dtype.

    Looked up: XLA would turn a division by 255 into a product with 1 / 255, an ulp off. The axes
    stay, where torchvision's moves the channels to the front.

    Args:
        images: Bytes, of any shape: an integer dtype.

    Returns:
        The numbers, of the same shape.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn import to_tensor
        >>> [round(float(x), 4) for x in to_tensor(jnp.array([0, 51, 255], jnp.uint8))]
        [0.0, 0.2, 1.0]

    Source:
    https://docs.pytorch.org/vision/stable/generated/torchvision.transforms.ToTensor.html
    """
    values = jnp.asarray(np.arange(256) / 255, float)
    return values[images]
