"""torch.nn's recurrent cells: one time step.

Letters: N samples, I inputs, H hidden units.
"""

from typing import Any

import jax
import jax.numpy as jnp

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn.drawing import drawing
from twinstep.jax.nn.module import Module, Parameter, default_dtype
from twinstep.jax.nn.recurrence import CELLS, Carry, rows_by
from twinstep.jax.nn.rnn_base import MODES, check_state

__all__ = ["GRUCell", "LSTMCell", "RNNCell", "RNNCellBase"]


class RNNCellBase(Module):
    """What RNNCell, LSTMCell and GRUCell have in common."""

    weight_ih: Parameter
    weight_hh: Parameter
    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        num_chunks: int,
        device: Any = None,
        dtype: Any = None,
        *,
        generator: Any = None,
        rngs: Any = None,
    ) -> None:
        check_arguments(
            type(self).__name__,
            input_size=(input_size, "an int of 0 or more", _is_size),
            hidden_size=(hidden_size, "an int of 0 or more", _is_size),
        )
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        draws, dtype = drawing(generator, rngs), default_dtype(dtype)
        bound = 1 / hidden_size**0.5 if hidden_size else 0
        rows = num_chunks * hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (rows, input_size), "weight_hh": (rows, hidden_size),
            "bias_ih": (rows,), "bias_hh": (rows,),
        }  # fmt: skip
        for name, shape in shapes.items():
            drawn = bias or name.startswith("weight")
            values = draws.uniform(shape, -bound, bound, dtype) if drawn else None
            setattr(self, name, None if values is None else Parameter(values))

    def _step(self, mode: str, input: Any, names: tuple[str, ...], states: Any) -> Carry:
        """The states after the step. names: what they are called; states: None: zeros"""
        what, input = type(self).__name__, jnp.asarray(input)
        weight_ih, weight_hh = self.weight_ih[...], self.weight_hh[...]
        dtype = weight_ih.dtype
        if input.ndim not in (1, 2) or input.shape[-1] != self.input_size:
            size = self.input_size
            raise InputError(
                f"{what}: input has shape {input.shape}, expected (N, {size}) or ({size},)"
            )
        if input.dtype != dtype:
            raise InputError(f"{what}: input is {input.dtype}, expected {dtype} as the weights are")
        shape = (*input.shape[:-1], self.hidden_size)
        if states is None:
            states = (jnp.zeros(shape, dtype),) * len(names)
        for name, state in zip(names, states, strict=True):
            check_state(what, name, state, shape, dtype)
        rows, carry = jnp.atleast_2d(input), tuple(map(jnp.atleast_2d, states))
        x, z = rows_by(rows, weight_ih), rows_by(carry[0], weight_hh)
        x = x if self.bias_ih is None else x + self.bias_ih[...]
        z = z if self.bias_hh is None else z + self.bias_hh[...]
        after, _ = CELLS[mode].forward(x, z, carry)
        return tuple(state.reshape(shape) for state in after)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and value >= 0


class RNNCell(RNNCellBase):
    """A step of an Elman RNN.

    h' = tanh(W_ih x + b_ih + W_hh h + b_hh).

    Args:
        input_size, hidden_size: I and H, ints.
        bias: Whether it has b_ih and b_hh.
        nonlinearity: "tanh" or "relu".
        device: Ignored.
        dtype: Of its parameters; None: float64 under x64, else float32.
        generator: What draws its first values: a TorchGenerator or a Generator; None: the default
            one, which `manual_seed` seeds.
        rngs: nnx.Rngs in its place.

    Shape:
        input (N, I) or (I,), hx (N, H) or (H,), None: zeros. To the next state, as hx.
        weight_ih (H, I), weight_hh (H, H), bias_ih, bias_hh (H,).

    Raises:
        InputError: For an input or a state of another shape or dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax import nn
        >>> cell = nn.RNNCell(3, 2, generator=TorchGenerator(0))
        >>> cell(jnp.ones((4, 3))).shape
        (4, 2)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.RNNCell.html
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
        *,
        generator: Any = None,
        rngs: Any = None,
    ) -> None:
        check_arguments(
            "RNNCell", nonlinearity=(nonlinearity, "tanh or relu", lambda value: value in MODES)
        )
        self.nonlinearity = nonlinearity
        super().__init__(
            input_size, hidden_size, bias, 1, dtype=dtype, generator=generator, rngs=rngs
        )

    def forward(self, input: jax.Array, hx: jax.Array | None = None) -> jax.Array:
        """As said above."""
        return self._step(MODES[self.nonlinearity], input, ("hx",), None if hx is None else (hx,))[
            0
        ]


class LSTMCell(RNNCellBase):
    """A step of an LSTM.

    i, f, g, o = W_ih x + b_ih + W_hh h + b_hh; c' = sigmoid(f) c + sigmoid(i) tanh(g);
    h' = sigmoid(o) tanh(c').

    Args:
        input_size, hidden_size: I and H, ints.
        bias: Whether it has b_ih and b_hh.
        device: Ignored.
        dtype: Of its parameters; None: float64 under x64, else float32.
        generator: What draws its first values: a TorchGenerator or a Generator; None: the default
            one, which `manual_seed` seeds.
        rngs: nnx.Rngs in its place.

    Shape:
        input (N, I) or (I,), hx: h and c, (N, H) or (H,) each, None: zeros. To the next h and c.
        weight_ih (4 H, I), weight_hh (4 H, H), bias_ih, bias_hh (4 H,).

    Raises:
        InputError: For an input or a state of another shape or dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax import nn
        >>> cell = nn.LSTMCell(3, 2, generator=TorchGenerator(0))
        >>> h, c = cell(jnp.ones((4, 3)))
        >>> h.shape, c.shape
        ((4, 2), (4, 2))

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTMCell.html
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        generator: Any = None,
        rngs: Any = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, bias, 4, dtype=dtype, generator=generator, rngs=rngs
        )

    def forward(self, input: jax.Array, hx: Any = None) -> Any:
        """As said above."""
        if hx is not None and not (isinstance(hx, list | tuple) and len(hx) == 2):
            raise InputError(f"LSTMCell: hx is {type(hx).__name__}, expected (h, c)")
        return self._step("LSTM", input, ("hx[0]", "hx[1]"), hx)


class GRUCell(RNNCellBase):
    """A step of a GRU.

    r, z = sigmoid(W_ih x + b_ih + W_hh h + b_hh); n = tanh(W_in x + b_in + r (W_hn h + b_hn));
    h' = (1 - z) n + z h. flax.nnx.GRUCell has no b_hn.

    Args:
        input_size, hidden_size: I and H, ints.
        bias: Whether it has b_ih and b_hh.
        device: Ignored.
        dtype: Of its parameters; None: float64 under x64, else float32.
        generator: What draws its first values: a TorchGenerator or a Generator; None: the default
            one, which `manual_seed` seeds.
        rngs: nnx.Rngs in its place.

    Shape:
        input (N, I) or (I,), hx (N, H) or (H,), None: zeros. To the next state, as hx.
        weight_ih (3 H, I), weight_hh (3 H, H), bias_ih, bias_hh (3 H,).

    Raises:
        InputError: For an input or a state of another shape or dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax import nn
        >>> cell = nn.GRUCell(3, 2, generator=TorchGenerator(0))
        >>> cell(jnp.ones((4, 3))).shape
        (4, 2)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GRUCell.html
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        generator: Any = None,
        rngs: Any = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, bias, 3, dtype=dtype, generator=generator, rngs=rngs
        )

    def forward(self, input: jax.Array, hx: jax.Array | None = None) -> jax.Array:
        """As said above."""
        return self._step("GRU", input, ("hx",), None if hx is None else (hx,))[0]
