"""torch.nn's recurrent layers.

Letters: N samples, T time steps, I inputs, H hidden units.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from twinstep.errors import InputError
from twinstep.jax.nn.linear import dot_general


def _linear(inputs: int, outputs: int) -> nnx.Linear:
    zeros = nnx.initializers.zeros
    return nnx.Linear(inputs, outputs, kernel_init=zeros, dot_general=dot_general, rngs=nnx.Rngs(0))


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
        self.input = _linear(input_size, hidden_size)
        self.hidden = _linear(hidden_size, hidden_size)

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
        self.input = _linear(input_size, 3 * hidden_size)
        self.hidden = _linear(hidden_size, 3 * hidden_size)

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
