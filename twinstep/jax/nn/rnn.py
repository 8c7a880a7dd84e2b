"""torch.nn's recurrent layers.

Letters: N samples, T time steps, I inputs, H hidden units, P what is handed on of them (H without
proj_size), L layers, D directions.
"""

from typing import Any

from twinstep.errors import check_arguments
from twinstep.jax.nn.rnn_base import MODES, RNNBase

__all__ = ["GRU", "LSTM", "RNN"]


class RNN(RNNBase):
    """Elman RNN.

    h' = tanh(W_ih x + b_ih + W_hh h + b_hh). Both biases are kept: they get the same gradient, and
    one in their place, as flax.nnx.SimpleCell has it, would move at half their speed.

    Args:
        input_size, hidden_size: I and H, ints.
        num_layers: L, an int: each layer's inputs are the outputs of the one before.
        nonlinearity: "tanh" or "relu".
        bias: Whether it has b_ih and b_hh.
        batch_first: Whether samples come before time steps in input and output.
        dropout: Which share of a layer's outputs is dropped, of all layers but the last.
        bidirectional: Whether each layer also runs backwards, as a second direction.
        device: Ignored.
        dtype: Of its parameters; None: float64 under x64, else float32.
        generator: What draws its first values, and what dropout drops: a TorchGenerator or a
            Generator; None: the default one, which `manual_seed` seeds.
        rngs: nnx.Rngs in its place.

    Shape:
        input (T, N, I), or (N, T, I) with batch_first, or (T, I), or a PackedSequence; hx
        (L D, N, H), (L D, H) for (T, I), None: zeros. To the outputs, (T, N, D H), with axes as
        the input's, and the last states, as hx.
        weight_ih_l0 (H, I), weight_hh_l0 (H, H), bias_ih_l0, bias_hh_l0 (H,); _l1, ...:
        of further layers, with D H in place of I; _reverse: of the second direction.

    Raises:
        InputError: For an input or a state of another shape or dtype, sizes below 1, a dropout that
            is none.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax import nn
        >>> layer = nn.RNN(3, 2, batch_first=True, generator=TorchGenerator(0))
        >>> output, hx = layer(jnp.ones((4, 5, 3)))
        >>> output.shape, hx.shape, layer.weight_hh_l0.shape
        ((4, 5, 2), (1, 4, 2), (2, 2))

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.RNN.html
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        generator: Any = None,
        rngs: Any = None,
    ) -> None:
        check_arguments(
            "RNN", nonlinearity=(nonlinearity, "tanh or relu", lambda value: value in MODES)
        )
        self.nonlinearity = nonlinearity
        super().__init__(
            MODES[nonlinearity], input_size, hidden_size, num_layers, bias, batch_first, dropout,
            bidirectional, dtype=dtype, generator=generator, rngs=rngs,
        )  # fmt: skip


class LSTM(RNNBase):
    """Long short-term memory.

    i, f, g, o = W_ih x + b_ih + W_hh h + b_hh; c' = sigmoid(f) c + sigmoid(i) tanh(g);
    h' = sigmoid(o) tanh(c'), of which W_hr h' is handed on where it is projected.

    Args:
        input_size, hidden_size: I and H, ints.
        num_layers: L, an int: each layer's inputs are the outputs of the one before.
        bias: Whether it has b_ih and b_hh.
        batch_first: Whether samples come before time steps in input and output.
        dropout: Which share of a layer's outputs is dropped, of all layers but the last.
        bidirectional: Whether each layer also runs backwards, as a second direction.
        proj_size: P, an int: to how many the hidden units are projected; 0: they are not.
        device: Ignored.
        dtype: Of its parameters; None: float64 under x64, else float32.
        generator: What draws its first values, and what dropout drops: a TorchGenerator or a
            Generator; None: the default one, which `manual_seed` seeds.
        rngs: nnx.Rngs in its place.

    Shape:
        input (T, N, I), or (N, T, I) with batch_first, or (T, I), or a PackedSequence; hx: h
        (L D, N, P) and c (L D, N, H), without N for (T, I), None: zeros. To the outputs,
        (T, N, D P), with axes as the input's, and the last h and c.
        weight_ih_l0 (4 H, I), weight_hh_l0 (4 H, P), bias_ih_l0, bias_hh_l0 (4 H,); _l1, ...:
        of further layers, with D P in place of I; _reverse: of the second direction;
        weight_hr_l0 (P, H), where it is projected.

    Raises:
        InputError: For an input or a state of another shape or dtype, sizes below 1, a proj_size
            that is not below hidden_size, a dropout that is none.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax import nn
        >>> layer = nn.LSTM(3, 2, batch_first=True, generator=TorchGenerator(0))
        >>> output, (h, c) = layer(jnp.ones((4, 5, 3)))
        >>> output.shape, h.shape, c.shape, layer.weight_hh_l0.shape
        ((4, 5, 2), (1, 4, 2), (1, 4, 2), (8, 2))

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        *,
        generator: Any = None,
        rngs: Any = None,
    ) -> None:
        super().__init__(
            "LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout,
            bidirectional, proj_size, dtype=dtype, generator=generator, rngs=rngs,
        )  # fmt: skip


class GRU(RNNBase):
    """Gated recurrent unit.

    r, z = sigmoid(W_ih x + b_ih + W_hh h + b_hh); n = tanh(W_in x + b_in + r (W_hn h + b_hn));
    h' = (1 - z) n + z h. flax.nnx.GRUCell has no b_hn.

    Args:
        input_size, hidden_size: I and H, ints.
        num_layers: L, an int: each layer's inputs are the outputs of the one before.
        bias: Whether it has b_ih and b_hh.
        batch_first: Whether samples come before time steps in input and output.
        dropout: Which share of a layer's outputs is dropped, of all layers but the last.
        bidirectional: Whether each layer also runs backwards, as a second direction.
        device: Ignored.
        dtype: Of its parameters; None: float64 under x64, else float32.
        generator: What draws its first values, and what dropout drops: a TorchGenerator or a
            Generator; None: the default one, which `manual_seed` seeds.
        rngs: nnx.Rngs in its place.

    Shape:
        input (T, N, I), or (N, T, I) with batch_first, or (T, I), or a PackedSequence; hx
        (L D, N, H), (L D, H) for (T, I), None: zeros. To the outputs, (T, N, D H), with axes as
        the input's, and the last states, as hx.
        weight_ih_l0 (3 H, I), weight_hh_l0 (3 H, H), bias_ih_l0, bias_hh_l0 (3 H,); _l1, ...:
        of further layers, with D H in place of I; _reverse: of the second direction.

    Raises:
        InputError: For an input or a state of another shape or dtype, sizes below 1, a dropout that
            is none.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax import nn
        >>> layer = nn.GRU(3, 2, batch_first=True, generator=TorchGenerator(0))
        >>> output, hx = layer(jnp.ones((4, 5, 3)))
        >>> output.shape, hx.shape, layer.weight_hh_l0.shape
        ((4, 5, 2), (1, 4, 2), (6, 2))

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GRU.html
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        generator: Any = None,
        rngs: Any = None,
    ) -> None:
        super().__init__(
            "GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout,
            bidirectional, dtype=dtype, generator=generator, rngs=rngs,
        )  # fmt: skip
