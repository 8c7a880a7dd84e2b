"""Rows of docs/porting/layers.md: convolutions."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from helpers.kit_parity import Port
from helpers.layer_parity import Layer
from helpers.porting_layers import FIRST, LayerPort, drawn, first, flax, last, second

from twinstep.jax.nn.rules import RULES, Rule

SIZES = {1: (8,), 2: (8, 6), 3: (6, 4, 8)}
EVEN: dict[str, Any] = {"stride": 2, "padding": 1}
SPREAD = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def _conv(m: Any, params: Any, x: Any, **options: Any) -> jax.Array:
    options = {"padding": [(p, p) for p in m.padding]} | options
    layer = flax(
        nnx.Conv, params, m.in_channels, m.out_channels, m.kernel_size, m.stride,
        kernel_dilation=m.dilation, feature_group_count=m.groups, **options,
    )  # fmt: skip
    return second(layer(last(x)))


def _as_it_is(m: Any, params: Any, x: Any) -> jax.Array:
    """The weight of PyTorch's shape, which fits where all sizes are equal."""
    axes = (*range(2, x.ndim), 1, 0)
    turned = jnp.transpose(params["weight"], [axes.index(i) for i in range(x.ndim)])
    return _conv(m, {**params, "weight": turned}, x)


def _edges(m: Any, params: Any, x: Any) -> jax.Array:
    widths = [(0, 0), (0, 0), *[(p, p) for p in m.padding]]
    return _conv(m, params, jnp.pad(x, widths, "edge"), padding="VALID")


def _transposed(m: Any, params: Any, x: Any, turn: bool = True, **options: Any) -> jax.Array:
    rank = x.ndim - 2
    ends = [
        (d * (k - 1) - p, d * (k - 1) - p + more)
        for k, p, d, more in zip(
            m.kernel_size, m.padding, m.dilation, m.output_padding, strict=True
        )
    ]
    axes = (rank, rank + 1) if not turn else (rank + 1, rank)
    rule = {
        "weight": Rule(("kernel",), (*axes, *range(rank))),
        "bias": RULES[nnx.Conv]["bias"],
    }
    layer = flax(
        nnx.ConvTranspose, params, m.in_channels, m.out_channels, m.kernel_size, m.stride,
        kernel_dilation=m.dilation, transpose_kernel=turn, rules={nnx.ConvTranspose: rule},
        **({"padding": ends} | options),
    )  # fmt: skip
    return second(layer(last(x)))


def _first_conv(m: Any, **options: Any) -> dict[str, Any]:
    kernel = first(nnx.Conv, m.in_channels, m.out_channels, m.kernel_size, **options)["kernel"]
    return {"weight": kernel}


def _rows(rank: int) -> list[LayerPort]:
    x = drawn(2, 4, *SIZES[rank])
    return [
        LayerPort(
            Layer((4, 6, 3), EVEN, (x,)),
            Port(
                "nnx.Conv(C, D, kernel_size, strides=2, padding=[(1, 1), ...])(x)",
                _conv,
                "nnx.Conv(C, D, kernel_size, strides=2)(x)",
                functools.partial(_conv, padding="SAME"),
                'Flax\'s default is "SAME", which pads the end alone of an even size',
            ),
        ),
        LayerPort(
            Layer((4, 6, 3), {"padding": 2, "dilation": 2, "groups": 2}, (x,)),
            Port(
                "nnx.Conv(C, D, kernel_size, padding=[(2, 2), ...], kernel_dilation=2, "
                "feature_group_count=2)(x)",
                _conv,
                None,
                None,
                "PyTorch's dilation is the kernel's",
            ),
        ),
        LayerPort(
            Layer((3, 3, 3), {}, (drawn(2, 3, *SIZES[rank]),)),
            Port(
                'nnx.Conv(C, D, kernel_size, padding="VALID")(x)',
                _conv,
                'nnx.Conv(C, D, kernel_size, padding="VALID")(x), its kernel the weight as it is',
                _as_it_is,
                "PyTorch's weight is (D, C, k...), Flax's kernel (k..., C, D): any order fits "
                "where all are equal",
            ),
        ),
    ]


def _mode(rank: int, mode: str, call: Any, pure: str, why: str = "") -> LayerPort:
    options = {"padding": 1, "padding_mode": mode}
    return LayerPort(
        Layer((4, 6, 3), options, (drawn(2, 4, *SIZES[rank]),)),
        Port(
            pure,
            call,
            "nnx.Conv(C, D, kernel_size, padding=[(1, 1), ...])(x)",
            _conv,
            why or "that pads with zeros",
        ),
    )


def _transposed_rows(rank: int) -> list[LayerPort]:
    x = drawn(2, 4, *SIZES[rank])
    pads = "padding=[(d * (k - 1) - p, d * (k - 1) - p + output_padding), ...]"
    pure = f"nnx.ConvTranspose(C, D, kernel_size, strides, {pads}, transpose_kernel=True)(x)"
    return [
        LayerPort(
            Layer((4, 6, 3), {"stride": 2, "padding": 1, "output_padding": 1}, (x,)),
            Port(
                pure,
                _transposed,
                'nnx.ConvTranspose(C, D, kernel_size, strides=2, padding="SAME", '
                "transpose_kernel=True)(x)",
                functools.partial(_transposed, padding="SAME"),
                "that pads the other end; nnx.ConvTranspose has no groups",
            ),
        ),
        LayerPort(
            Layer((4, 6, 3), {"dilation": 2}, (x,)),
            Port(
                pure,
                _transposed,
                f"nnx.ConvTranspose(C, D, kernel_size, kernel_dilation=2, {pads})(x)",
                functools.partial(_transposed, turn=False),
                "PyTorch's is the gradient of a convolution, which turns the kernel about: its "
                "weight (C, D, k...) is transpose_kernel's (k..., D, C)",
            ),
        ),
    ]


PORTS: dict[str, list[LayerPort]] = {
    **{f"Conv{rank}d": _rows(rank) for rank in SIZES},
    **{f"ConvTranspose{rank}d": _transposed_rows(rank) for rank in SIZES},
}
PORTS["Conv2d"] += [
    _mode(2, "circular", functools.partial(_conv, padding="CIRCULAR"),
          'nnx.Conv(C, D, kernel_size, padding="CIRCULAR")(x), where p is (k - 1) / 2'),
    _mode(2, "reflect", functools.partial(_conv, padding="REFLECT"),
          'nnx.Conv(C, D, kernel_size, padding="REFLECT")(x), where p is (k - 1) / 2'),
    _mode(2, "replicate", _edges,
          'nnx.Conv(C, D, kernel_size, padding="VALID")(jnp.pad(x, ..., mode="edge"))',
          "that pads with zeros; nnx.Conv has no such mode"),
    LayerPort(
        Layer((64, 64, 3), {}),
        Port(
            'variance_scaling(1 / 3, "fan_in", "uniform") as kernel_init, other numbers',
            functools.partial(_first_conv, kernel_init=SPREAD),
            "nnx.Conv(C, D, kernel_size)",
            _first_conv,
            "Flax's are lecun_normal, 1.7 times as wide, and 0 for the bias, which PyTorch draws",
        ),
        FIRST,
    ),
]  # fmt: skip
