"""Rows of docs/porting/layers.md: pools."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from helpers.kit_parity import Port
from helpers.layer_parity import Layer
from helpers.porting_layers import LayerPort, drawn, last, second

SIZES = {1: (8,), 2: (8, 6), 3: (6, 4, 8)}
ODD = {1: (7,), 2: (7, 8), 3: (7, 8, 5)}


def _each(value: Any, rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def _pool(pool: Callable[..., Any], **options: Any) -> Callable[..., jax.Array]:
    """One of Flax's with the module's settings, unless the options have others."""

    def call(m: Any, params: Any, x: Any) -> jax.Array:
        rank = x.ndim - 2
        settings = {
            "strides": _each(m.stride, rank),
            "padding": [(p, p) for p in _each(m.padding, rank)],
        } | options
        return second(pool(last(x), _each(m.kernel_size, rank), **settings))

    return call


def _padded_with_zeros(m: Any, params: Any, x: Any) -> jax.Array:
    widths = [(0, 0), *[(m.padding, m.padding)] * (x.ndim - 2), (0, 0)]
    window = (m.kernel_size,) * (x.ndim - 2)
    return second(nnx.max_pool(jnp.pad(last(x), widths), window, window))


def _overhang(m: Any, params: Any, x: Any) -> jax.Array:
    rank = x.ndim - 2
    ends = [(m.padding, m.padding + 1)] * rank
    return second(nnx.avg_pool(last(x), (m.kernel_size,) * rank, (m.stride,) * rank, ends))


def _whole(reduction: Callable[..., Any]) -> Callable[..., jax.Array]:
    return lambda m, params, x: reduction(x, tuple(range(2, x.ndim)), keepdims=True)


def _cut(pool: Callable[..., Any]) -> Callable[..., jax.Array]:
    """Equal windows, the rest is left out."""

    def call(m: Any, params: Any, x: Any) -> jax.Array:
        window = tuple(size // m.output_size for size in x.shape[2:])
        cut = x[(..., *(slice(m.output_size * width) for width in window))]
        return second(pool(last(cut), window, window))

    return call


def _rows(rank: int, kind: str) -> list[LayerPort]:
    x, pool = drawn(2, 3, *SIZES[rank]), nnx.max_pool if kind == "max" else nnx.avg_pool
    name = f"nnx.{kind}_pool"
    return [
        LayerPort(
            Layer((3, 2, 1), {}, (x,)),
            Port(
                f"{name}(x, (3, ...), (2, ...), [(1, 1), ...])",
                _pool(pool),
                f'{name}(x, (3, ...), (2, ...), "SAME")',
                _pool(pool, padding="SAME"),
                '"SAME" pads the end alone of an even size',
            ),
        ),
        LayerPort(
            Layer((2,), {}, (x,)),
            Port(
                f"{name}(x, (2, ...), (2, ...))",
                _pool(pool),
                f"{name}(x, (2, ...))",
                _pool(pool, strides=None),
                "the stride is the kernel's size in PyTorch unless it is given, 1 in Flax",
            ),
        ),
    ]


def _adaptive(rank: int, kind: str) -> list[LayerPort]:
    pool, reduction = (nnx.max_pool, jnp.max) if kind == "max" else (nnx.avg_pool, jnp.mean)
    return [
        LayerPort(
            Layer((1,), {}, (drawn(2, 3, *ODD[rank]),)),
            Port(
                f"jnp.{reduction.__name__}(x, axes, keepdims=True)",
                _whole(reduction),
                None,
                None,
                "of equal largest entries PyTorch derives one, jnp.max all"
                if kind == "max"
                else "",
            ),
        ),
        LayerPort(
            Layer((3,), {}, (drawn(2, 3, *ODD[rank]),)),
            Port(
                None,
                None,
                f"nnx.{kind}_pool(x, window, window), window = (H // 3, ...)",
                _cut(pool),
                "where 3 does not divide the size PyTorch's windows overlap, and leave nothing out",
            ),
        ),
    ]


PORTS: dict[str, list[LayerPort]] = {
    f"{name}{rank}d": rows(rank, kind)
    for name, kind, rows in (
        ("MaxPool", "max", _rows),
        ("AvgPool", "avg", _rows),
        ("AdaptiveMaxPool", "max", _adaptive),
        ("AdaptiveAvgPool", "avg", _adaptive),
    )
    for rank in SIZES
}
PORTS["MaxPool2d"].append(
    LayerPort(
        Layer((2,), {"padding": 1}, (-abs(drawn(2, 3, *SIZES[2])),)),
        Port(
            "nnx.max_pool(x, (2, 2), (2, 2), [(1, 1), (1, 1)])",
            _pool(nnx.max_pool),
            "nnx.max_pool(jnp.pad(x, ...), (2, 2), (2, 2))",
            _padded_with_zeros,
            "the padding is -inf, not 0",
        ),
    )
)
PORTS["AvgPool2d"] += [
    LayerPort(
        Layer((3, 2, 1), {"count_include_pad": False}, (drawn(2, 3, *SIZES[2]),)),
        Port(
            "nnx.avg_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)], count_include_pad=False)",
            _pool(nnx.avg_pool, count_include_pad=False),
            "nnx.avg_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])",
            _pool(nnx.avg_pool),
            "in both padding counts by default",
        ),
    ),
    LayerPort(
        Layer((3, 2, 1), {"ceil_mode": True}, (drawn(2, 3, *SIZES[2]),)),
        Port(
            None,
            None,
            "nnx.avg_pool(x, (3, 3), (2, 2), [(1, 2), (1, 2)])",
            _overhang,
            "what hangs over the padding does not count in PyTorch",
        ),
    ),
]
FUNCTIONS = {
    **{f"LPPool{rank}d": f"lp_pool{rank}d" for rank in SIZES},
    **{f"MaxUnpool{rank}d": f"max_unpool{rank}d" for rank in SIZES},
    **{f"FractionalMaxPool{rank}d": f"fractional_max_pool{rank}d" for rank in (2, 3)},
}
