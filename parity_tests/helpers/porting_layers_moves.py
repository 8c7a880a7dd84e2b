"""Rows of docs/porting/layers.md: paddings, shuffles, flattening, resizing."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from helpers.kit_parity import Port
from helpers.layer_parity import Layer
from helpers.porting_layers import LayerPort, drawn, last, second

SIZES = {1: (6,), 2: (6, 5), 3: (5, 4, 6)}
WIDTHS = (2, 1, 1, 2, 3, 0)
"""Of which each axis gets as many in all: in another order they fit too."""
MODES = {
    "Constant": "constant", "Zero": "constant", "Reflection": "reflect", "Replication": "edge",
    "Circular": "wrap",
}  # fmt: skip
IMAGE = drawn(2, 3, 4, 5)


def _padded(mode: str, last_first: bool = True, **options: Any) -> Any:
    def call(m: Any, params: Any, x: Any) -> jax.Array:
        pairs = [(m.padding[i], m.padding[i + 1]) for i in range(0, len(m.padding), 2)]
        widths = [(0, 0), (0, 0), *(pairs[::-1] if last_first else pairs)]
        return jnp.pad(x, widths, mode, **options)

    return call


def _pad_row(kind: str, rank: int) -> LayerPort:
    mode = MODES[kind]
    value: dict[str, Any] = {"constant_values": 1.5} if kind == "Constant" else {}
    more = ", constant_values=value" if value else ""
    text = "" if mode == "constant" else f', mode="{mode}"'
    inner = ["(left, right)", "(top, bottom)", "(front, back)"][:rank]
    axes = ", ".join(["(0, 0)", *inner[::-1], "(0, 0)"])
    other = ", ".join(["(0, 0)", *inner, "(0, 0)"])
    naive, call, why = None, None, ""
    if rank > 1:
        naive = f"jnp.pad(x, [{other}]{text}{more})"
        call, why = _padded(mode, False, **value), "PyTorch's widths begin with the last axis"
    elif kind == "Reflection":
        naive, call = f'jnp.pad(x, [{axes}], mode="symmetric")', _padded("symmetric")
        why = "that has the edge twice"
    widths = [*WIDTHS[: 2 * rank]]
    return LayerPort(
        Layer((widths, *value.values()), {}, (drawn(2, 3, *SIZES[rank]),)),
        Port(f"jnp.pad(x, [{axes}]{text}{more})", _padded(mode, **value), naive, call, why),
    )


def _shuffled(m: Any, params: Any, x: Any, behind: bool = False) -> jax.Array:
    n, h, w, c = last(x).shape
    r = m.upscale_factor
    shape = (r, r, c // r**2) if behind else (c // r**2, r, r)
    parts = last(x).reshape(n, h, w, *shape)
    axes = (0, 1, 3, 2, 4, 5) if behind else (0, 1, 4, 2, 5, 3)
    return second(parts.transpose(axes).reshape(n, h * r, w * r, c // r**2))


def _unshuffled(m: Any, params: Any, x: Any, behind: bool = False) -> jax.Array:
    n, h, w, c = last(x).shape
    r = m.downscale_factor
    parts = last(x).reshape(n, h // r, r, w // r, r, c)
    axes = (0, 1, 3, 2, 4, 5) if behind else (0, 1, 3, 5, 2, 4)
    return second(parts.transpose(axes).reshape(n, h // r, w // r, c * r**2))


def _channels(m: Any, params: Any, x: Any, turned: bool = False) -> jax.Array:
    y = last(x)
    shape = (m.groups, -1) if not turned else (-1, m.groups)
    return second(y.reshape(*y.shape[:-1], *shape).swapaxes(-1, -2).reshape(y.shape))


def _resized(method: str) -> Any:
    def call(m: Any, params: Any, x: Any) -> jax.Array:
        sizes = m.size if m.size else [int(n * m.scale_factor) for n in x.shape[2:]]
        sizes = [sizes] * (x.ndim - 2) if isinstance(sizes, int) else sizes
        n, *_, c = last(x).shape
        return second(jax.image.resize(last(x), (n, *sizes, c), method))

    return call


def _repeated(m: Any, params: Any, x: Any) -> jax.Array:
    factor = int(m.scale_factor)
    return second(jnp.repeat(jnp.repeat(last(x), factor, 1), factor, 2))


def _resize_row(name: str, pure: str | None, call: Any, why: str, **options: Any) -> LayerPort:
    return LayerPort(
        Layer((), options, (IMAGE,)),
        Port(pure, call, f'jax.image.resize(x, shape, "{name}")', _resized(name), why),
    )


_CORNERS = "PyTorch's keeps the corners' centres where they are (align_corners)"
_EDGES = (
    'JAX\'s goes by the pixels\' centres, which is "nearest-exact", PyTorch\'s "nearest" by edges'
)
_EXACT = Port(
    "jnp.repeat(jnp.repeat(x, factor, 1), factor, 2)", _repeated,
    None, None, "of a whole factor jax.image.resize's too",
)  # fmt: skip
PORTS: dict[str, list[LayerPort]] = {
    **{f"{kind}Pad{rank}d": [_pad_row(kind, rank)] for kind in MODES for rank in SIZES},
    "PixelShuffle": [
        LayerPort(
            Layer((2,), {}, (drawn(2, 8, 3, 2),)),
            Port(
                "x.reshape(N, H, W, C, r, r).transpose(0, 1, 4, 2, 5, 3)"
                ".reshape(N, H * r, W * r, C)",
                _shuffled,
                "x.reshape(N, H, W, r, r, C).transpose(0, 1, 3, 2, 4, 5)"
                ".reshape(N, H * r, W * r, C)",
                functools.partial(_shuffled, behind=True),
                "that is TensorFlow's depth_to_space: in PyTorch the channels are (C, r, r), there "
                "(r, r, C)",
            ),
        )
    ],
    "PixelUnshuffle": [
        LayerPort(
            Layer((2,), {}, (drawn(2, 2, 4, 6),)),
            Port(
                "x.reshape(N, H // r, r, W // r, r, C).transpose(0, 1, 3, 5, 2, 4)"
                ".reshape(N, H // r, W // r, -1)",
                _unshuffled,
                "x.reshape(N, H // r, r, W // r, r, C).transpose(0, 1, 3, 2, 4, 5)"
                ".reshape(N, H // r, W // r, -1)",
                functools.partial(_unshuffled, behind=True),
                "that is TensorFlow's space_to_depth, whose channels are (r, r, C)",
            ),
        )
    ],
    "ChannelShuffle": [
        LayerPort(
            Layer((2,), {}, (drawn(2, 6, 3, 2),)),
            Port(
                "x.reshape(N, H, W, groups, -1).swapaxes(-1, -2).reshape(x.shape)",
                _channels,
                "x.reshape(N, H, W, -1, groups).swapaxes(-1, -2).reshape(x.shape)",
                functools.partial(_channels, turned=True),
                "that undoes it",
            ),
        )
    ],
    "Flatten": [
        LayerPort(
            Layer((), {}, (IMAGE,)),
            Port(
                "jnp.moveaxis(x, -1, 1).reshape(N, -1)",
                lambda m, params, x: second(last(x)).reshape(len(x), -1),
                "x.reshape(N, -1)",
                lambda m, params, x: last(x).reshape(len(x), -1),
                "a Linear behind a convolution has its inputs by channels first",
            ),
        )
    ],
    "Unflatten": [
        LayerPort(
            Layer((1, (3, 2, 2)), {}, (drawn(2, 12),)),
            Port(
                "jnp.moveaxis(x.reshape(N, C, H, W), 1, -1)",
                lambda m, params, x: second(last(x.reshape(2, 3, 2, 2))),
                "x.reshape(N, H, W, C)",
                lambda m, params, x: second(x.reshape(2, 2, 2, 3)),
                "what a Linear gives to a convolution has its channels first",
            ),
        )
    ],
    "Upsample": [
        LayerPort(Layer((), {"scale_factor": 2}, (IMAGE,)), _EXACT),
        _resize_row("nearest", None, None, _EDGES, size=7),
        LayerPort(
            Layer((), {"scale_factor": 2, "mode": "bilinear"}, (IMAGE,)),
            Port('jax.image.resize(x, shape, "bilinear")', _resized("bilinear")),
        ),
        _resize_row("bilinear", 'jax.image.resize(x, shape, "bilinear", antialias=False)',
                    lambda m, params, x: second(
                        jax.image.resize(last(x), (2, 3, 3, 3), "bilinear", antialias=False)
                    ),
                    "JAX's looks at all of a larger input unless told not to",
                    size=3, mode="bilinear"),
        _resize_row("bilinear", None, None, _CORNERS,
                    scale_factor=2, mode="bilinear", align_corners=True),
        _resize_row("bicubic", None, None, "PyTorch's cubic has a = -0.75, JAX's -0.5",
                    scale_factor=2, mode="bicubic"),
    ],
    "UpsamplingNearest2d": [
        LayerPort(Layer((), {"scale_factor": 2}, (IMAGE,)), _EXACT),
        _resize_row("nearest", None, None, _EDGES, size=7),
    ],
    "UpsamplingBilinear2d": [_resize_row("bilinear", None, None, _CORNERS, scale_factor=2)],
}  # fmt: skip
FUNCTIONS = {"Fold": "fold", "Unfold": "unfold"}
