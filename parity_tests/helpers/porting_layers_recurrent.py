"""Rows of docs/porting/layers.md: recurrent layers and their cells.

Letters: T steps, N samples, D inputs, H hidden.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from helpers.kit_parity import Port
from helpers.layer_parity import Layer
from helpers.porting_layers import FIRST, LayerPort, drawn

T, N, D, H = 4, 3, 2, 3
X, X1, H0, C0 = drawn(T, N, D), drawn(N, D), drawn(N, H, seed=1), drawn(N, H, seed=2)


def _cell(kind: Any, params: Any, end: str = "", half: bool = False, **options: Any) -> Any:
    """One of Flax's with PyTorch's weights; half: its one bias is trained, not PyTorch's two."""
    if kind is nnx.SimpleCell:  # whose own is float32
        options["dtype"] = jnp.float64
    cell = kind(D, H, param_dtype=jnp.float64, rngs=nnx.Rngs(0), **options)
    bias = params[f"bias_ih{end}"] + params[f"bias_hh{end}"]
    if half:  # of what PyTorch's two move together
        bias = bias / 2 + jax.lax.stop_gradient(bias / 2)
    cell.dense_i.kernel[...] = params[f"weight_ih{end}"].T
    cell.dense_h.kernel[...] = params[f"weight_hh{end}"].T
    (cell.dense_h if kind is nnx.OptimizedLSTMCell else cell.dense_i).bias[...] = bias
    return cell


def _sequence(
    kind: Any, m: Any, params: Any, x: Any, end: str = "_l0", time_major: bool = True,
    reverse: bool = False, keep_order: bool = True, **options: Any,
) -> Any:  # fmt: skip
    cell = _cell(kind, params, end, **options)
    layer = nnx.RNN(cell, time_major=time_major, return_carry=True, reverse=reverse,
                    keep_order=keep_order)  # fmt: skip
    carry, y = layer(x)
    return y, carry


def _simple(m: Any, params: Any, x: Any, **options: Any) -> Any:
    activation = {"tanh": jnp.tanh, "relu": jax.nn.relu}[m.nonlinearity]
    y, h = _sequence(nnx.SimpleCell, m, params, x, activation_fn=activation, **options)
    return y, h[None]


def _lstm(m: Any, params: Any, x: Any, **options: Any) -> Any:
    y, (c, h) = _sequence(nnx.OptimizedLSTMCell, m, params, x, **options)
    return y, (h[None], c[None])


def _both_ways(m: Any, params: Any, x: Any, keep_order: bool = True) -> Any:
    y, (h, c) = _lstm(m, params, x)
    back = {"end": "_l0_reverse", "reverse": True, "keep_order": keep_order}
    z, (g, d) = _lstm(m, params, x, **back)
    return jnp.concatenate([y, z], -1), (jnp.concatenate([h, g]), jnp.concatenate([c, d]))


def _gru(m: Any, params: Any, x: Any) -> Any:
    y, h = _sequence(nnx.GRUCell, m, params, x)
    return y, h[None]


def _lstm_cell(m: Any, params: Any, x: Any, hx: Any, turned: bool = False) -> Any:
    cell = _cell(nnx.OptimizedLSTMCell, params)
    if turned:
        carry, _ = cell(tuple(hx), x)
        return carry
    (c, h), _ = cell((hx[1], hx[0]), x)
    return h, c


def _first(m: Any, **options: Any) -> dict[str, Any]:
    cell = nnx.OptimizedLSTMCell(m.input_size, m.hidden_size, rngs=nnx.Rngs(0), **options)
    return {
        "weight_ih_l0": np.asarray(cell.dense_i.kernel[...]),
        "weight_hh_l0": np.asarray(cell.dense_h.kernel[...]),
    }


_ONE_BIAS = "PyTorch trains two biases, which get the same gradient: one moves half as far"
_SPREAD = jax.nn.initializers.uniform(2 / 64**0.5)

PORTS: dict[str, list[LayerPort]] = {
    "RNN": [
        LayerPort(
            Layer((D, H), {}, (X,)),
            Port(
                "nnx.RNN(nnx.SimpleCell(D, H, dtype=x.dtype), time_major=True)(x), its bias "
                "b_ih + b_hh",
                _simple,
                "nnx.RNN(nnx.SimpleCell(D, H, dtype=x.dtype), time_major=True)(x), its one bias "
                "a parameter",
                functools.partial(_simple, half=True),
                f"{_ONE_BIAS}; Flax's computes in float32 unless told not to",
            ),
        ),
        LayerPort(
            Layer((D, H), {"nonlinearity": "relu"}, (drawn(T, T, D),)),
            Port(
                "nnx.RNN(nnx.SimpleCell(D, H, activation_fn=jax.nn.relu, dtype=x.dtype), "
                "time_major=True)(x), its bias b_ih + b_hh",
                _simple,
                "nnx.RNN(nnx.SimpleCell(D, H, activation_fn=jax.nn.relu, dtype=x.dtype))(x)",
                functools.partial(_simple, time_major=False),
                "the steps are PyTorch's first axis unless batch_first=True, Flax's second",
            ),
        ),
    ],
    "LSTM": [
        LayerPort(
            Layer((D, H), {}, (X,)),
            Port(
                "nnx.RNN(nnx.OptimizedLSTMCell(D, H), time_major=True)(x), its bias b_ih + b_hh",
                _lstm,
                "nnx.RNN(nnx.OptimizedLSTMCell(D, H), time_major=True)(x), its one bias a "
                "parameter",
                functools.partial(_lstm, half=True),
                f"{_ONE_BIAS}; the order of the gates is one",
            ),
        ),
        LayerPort(
            Layer((D, H), {"bidirectional": True}, (X,)),
            Port(
                "one nnx.RNN beside one of reverse=True, keep_order=True, concatenated",
                _both_ways,
                "one nnx.RNN beside one of reverse=True, concatenated",
                functools.partial(_both_ways, keep_order=False),
                "without keep_order Flax's begins with the last step",
            ),
        ),
        LayerPort(
            Layer((64, 64), {}),
            Port(
                "nnx.OptimizedLSTMCell(D, H, ...) with both kernels' and the biases' "
                "jax.random.uniform(key, shape, minval=-1 / H**0.5, maxval=1 / H**0.5), other "
                "numbers",
                functools.partial(
                    _first,
                    kernel_init=lambda *args: _SPREAD(*args) - 1 / 8,
                    recurrent_kernel_init=lambda *args: _SPREAD(*args) - 1 / 8,
                ),
                "nnx.OptimizedLSTMCell(D, H)",
                _first,
                "Flax's are lecun_normal by the inputs and orthogonal by the hidden, its bias 0",
            ),
            FIRST,
        ),
    ],
    "GRU": [
        LayerPort(
            Layer((D, H), {}, (X,)),
            Port(
                None,
                None,
                "nnx.RNN(nnx.GRUCell(D, H), time_major=True)(x), its bias b_ih + b_hh",
                _gru,
                "the reset gate multiplies W_hn h + b_hn: Flax's cell has no bias there, and "
                "b_hn added elsewhere is another function",
            ),
        )
    ],
    "RNNCell": [
        LayerPort(
            Layer((D, H), {}, (X1, H0)),
            Port(
                "nnx.SimpleCell(D, H, dtype=x.dtype)(h, x)[0], its bias b_ih + b_hh",
                lambda m, params, x, h: _cell(nnx.SimpleCell, params)(h, x)[0],
                "nnx.SimpleCell(D, H, dtype=x.dtype)(h, x)[0], its one bias a parameter",
                lambda m, params, x, h: _cell(nnx.SimpleCell, params, half=True)(h, x)[0],
                _ONE_BIAS,
            ),
        )
    ],
    "LSTMCell": [
        LayerPort(
            Layer((D, H), {}, (X1, (H0, C0))),
            Port(
                "nnx.OptimizedLSTMCell(D, H)((c, h), x)[0], its bias b_ih + b_hh",
                _lstm_cell,
                "nnx.OptimizedLSTMCell(D, H)((h, c), x)[0]",
                functools.partial(_lstm_cell, turned=True),
                f"PyTorch's state is (h, c), Flax's (c, h); {_ONE_BIAS}",
            ),
        )
    ],
    "GRUCell": [
        LayerPort(
            Layer((D, H), {}, (X1, H0)),
            Port(
                None,
                None,
                "nnx.GRUCell(D, H)(h, x)[0], its bias b_ih + b_hh",
                lambda m, params, x, h: _cell(nnx.GRUCell, params)(h, x)[0],
                "the reset gate multiplies W_hn h + b_hn: Flax's cell has no bias there",
            ),
        )
    ],
}
