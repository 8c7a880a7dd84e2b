"""torch.nn.functional's convolutions, columns and shuffles: calls, refusals, what JAX has."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from helpers.kit_parity import Array, Case, Port

SIZES = {1: (7,), 2: (7, 6), 3: (4, 5, 4)}
KERNELS = {1: (3,), 2: (3, 2), 3: (2, 3, 2)}


def drawn(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def whole(*shape: int) -> Array:
    """Integers: of three values."""
    return np.random.default_rng(1).integers(-1, 2, shape, np.int32)


def _conv(rank: int) -> list[Case]:
    x, weight, bias = drawn(2, 4, *SIZES[rank]), drawn(6, 2, *KERNELS[rank], seed=1), drawn(6)
    full, steps = drawn(3, 4, *KERNELS[rank], seed=2), (2, 1, 3)[:rank]
    return [
        Case((x, weight, bias), {"stride": 2, "padding": 1, "groups": 2}),
        Case((x, full, drawn(3), steps, (1, 0, 2)[:rank], (2, 1, 1)[:rank])),
        Case((x, full), {"padding": "same", "dilation": 2}),
        Case((x, full, None, 2, "valid")),
        Case((x[0], full, drawn(3), [1] * rank), {"padding": [1]}),
        Case((x[:0], full)),
        Case((x, drawn(8, 1, *KERNELS[rank])), {"groups": 4}),
        Case((x + 1j * x[::-1], full - 2j * full), {"padding": 1}),
        Case((whole(2, 4, *SIZES[rank]), whole(3, 4, *KERNELS[rank]))),
    ]


def _conv_errors(rank: int) -> list[Case]:
    x, weight = drawn(2, 4, *SIZES[rank]), drawn(6, 2, *KERNELS[rank])
    return [
        Case((x, weight)),  # 4 channels, 2 expected
        Case((x, weight[:5]), {"groups": 2}),
        Case((x[0, 0], weight)),
        Case((x, weight), {"groups": 0}),
        Case((x, weight, drawn(5)), {"groups": 2}),
        Case((x, weight.astype("float32")), {"groups": 2}),
        Case((x, weight), {"groups": 2, "stride": 0}),
        Case((x, weight), {"groups": 2, "padding": -1}),
        Case((x, weight), {"groups": 2, "dilation": 0}),
        Case((x, weight), {"groups": 2, "dilation": 8}),
        Case((x, weight), {"groups": 2, "padding": "full"}),
        Case((x, weight), {"groups": 2, "padding": "same", "stride": 2}),
        Case((x, weight), {"groups": 2, "stride": (1,) * (rank + 1)}),
    ]


def _transposed(rank: int) -> list[Case]:
    x, weight = drawn(2, 4, *SIZES[rank]), drawn(4, 3, *KERNELS[rank], seed=1)
    return [
        Case((x, weight, drawn(3), 2, 1, 1)),
        Case((x, weight, drawn(6), 3, 0, (2, 0, 1)[:rank], 2, 1)),
        Case((x, weight, None, (1, 2, 1)[:rank], 1, 1, 4, 2)),
        Case((x[0], weight, drawn(3)), {"padding": 2}),
        Case((x[:0], weight)),
        Case((x + 1j * x[::-1], weight - 2j * weight)),
    ]


def _transposed_errors(rank: int) -> list[Case]:
    x, weight = drawn(2, 4, *SIZES[rank]), drawn(4, 3, *KERNELS[rank])
    return [
        Case((x, weight[:3])),
        Case((x, weight), {"groups": 3}),
        Case((x, weight, drawn(4))),
        Case((x, weight), {"output_padding": 1}),
        Case((x, weight), {"padding": 9}),
        Case((x, weight), {"padding": -1}),
        Case((x, weight), {"stride": 0}),
        Case((x[0, 0], weight)),
    ]


X, COLUMNS = drawn(2, 3, 5, 6), drawn(2, 12, 20)
CASES: dict[str, list[Case]] = {
    **{f"conv{rank}d": _conv(rank) for rank in SIZES},
    **{f"conv_transpose{rank}d": _transposed(rank) for rank in SIZES},
    "unfold": [
        Case((X, (3, 2), (1, 2), (1, 0), 2)),
        Case((X[0], 2)),
        Case((X[:0], 2)),
        Case((X, (5, 6))),
        Case((X + 1j, 2)),
    ],
    "fold": [
        Case((drawn(2, 12, 6), (5, 6), (3, 2), (1, 2), (1, 0), 2)),
        Case((COLUMNS, (5, 6), 2)),
        Case((COLUMNS[0], [5, 6], 2)),
        Case((COLUMNS[:0], (5, 6), 2)),
        Case((COLUMNS + 1j, (5, 6), 2)),
    ],
    "pixel_shuffle": [
        Case((drawn(2, 8, 3, 2), 2)),
        Case((drawn(9, 2, 1), 3)),
        Case((drawn(2, 1, 4, 3, 2), 2)),
        Case((whole(2, 4, 3, 2), 2)),
    ],
    "pixel_unshuffle": [
        Case((drawn(2, 3, 4, 6), 2)),
        Case((drawn(1, 6, 3), 3)),
        Case((drawn(2, 2, 1, 2, 4), 2)),
        Case((whole(1, 2, 2, 2), 2)),
    ],
    "channel_shuffle": [
        Case((drawn(2, 6, 3, 2), 3)),
        Case((drawn(2, 4, 3), 2)),
        Case((drawn(2, 4, 1, 2, 2), 1)),
        Case((whole(1, 4, 2, 2), 2)),
    ],
}
ERRORS: dict[str, list[Case]] = {
    **{f"conv{rank}d": _conv_errors(rank) for rank in SIZES},
    **{f"conv_transpose{rank}d": _transposed_errors(rank) for rank in SIZES},
    "unfold": [
        Case((X, 7)),
        Case((X[0, 0], 2)),
        Case((X, 0)),
        Case((X, 2), {"stride": 0}),
        Case((X, 2), {"padding": -1}),
        Case((X[:, :0], 2)),
    ],
    "fold": [
        Case((COLUMNS, (5, 5), 2)),
        Case((COLUMNS, (5, 6), (5, 1))),
        Case((COLUMNS[0, 0], (5, 6), 2)),
        Case((COLUMNS, (5, 6), 2), {"stride": 0}),
    ],
    "pixel_shuffle": [Case((X, 2)), Case((X[0, 0], 1)), Case((X, 0))],
    "pixel_unshuffle": [Case((X, 2)), Case((X[0, 0], 1)), Case((X, 0))],
    "channel_shuffle": [Case((X, 2)), Case((X[0, 0], 1)), Case((X, 0))],
}


def _both(value: Any, rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def _lax(rank: int, same: bool = False) -> Callable[..., jax.Array]:
    def call(
        x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1,
    ) -> jax.Array:  # fmt: skip
        edges = "SAME" if same or padding == "same" else [(p, p) for p in _both(padding, rank)]
        out = jax.lax.conv_general_dilated(
            x, weight, _both(stride, rank), edges, rhs_dilation=_both(dilation, rank),
            feature_group_count=groups,
        )  # fmt: skip
        return out if bias is None else out + bias.reshape(-1, *[1] * rank)

    return call


def _lax_transposed(rank: int, naive: bool = False) -> Callable[..., jax.Array]:
    def call(
        x: Any, weight: Any, bias: Any, stride: int, padding: int, output_padding: int
    ) -> jax.Array:
        axes = "DHW"[-rank:]
        edges = [(k - 1 - padding, k - 1 - padding + output_padding) for k in weight.shape[2:]]
        out = jax.lax.conv_transpose(
            x, weight.swapaxes(0, 1) if naive else weight, (stride,) * rank,
            "SAME" if naive else edges, transpose_kernel=not naive,
            dimension_numbers=(f"NC{axes}", f"OI{axes}", f"NC{axes}"),
        )  # fmt: skip
        return out + bias.reshape(-1, *[1] * rank)

    return call


def _patches(
    x: Any, kernel: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> jax.Array:
    found = jax.lax.conv_general_dilated_patches(
        x, _both(kernel, 2), _both(stride, 2), [(p, p) for p in _both(padding, 2)],
        rhs_dilation=_both(dilation, 2),
    )  # fmt: skip
    return found.reshape(*found.shape[:2], -1)


def _folded(columns: Any, size: Any, kernel: Any, *more: Any) -> jax.Array:
    channels = columns.shape[1] // (kernel[0] * kernel[1])
    image = jnp.zeros((len(columns), channels, *size), columns.dtype)
    return jax.linear_transpose(lambda x: _patches(x, kernel, *more), image)(columns)[0]


def _shuffled(x: Any, r: int, channels_last: bool = False) -> jax.Array:
    n, c, h, w = x.shape
    if channels_last:
        return (
            x.reshape(n, r, r, c // r**2, h, w)
            .transpose(0, 3, 4, 1, 5, 2)
            .reshape(n, c // r**2, h * r, w * r)
        )
    parts = x.reshape(n, c // r**2, r, r, h, w).transpose(0, 1, 4, 2, 5, 3)
    return parts.reshape(n, c // r**2, h * r, w * r)


def _unshuffled(x: Any, r: int) -> jax.Array:
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // r, r, w // r, r).transpose(0, 1, 3, 5, 2, 4)
    return parts.reshape(n, c * r**2, h // r, w // r)


def _channels(x: Any, groups: int) -> jax.Array:
    n, c, *rest = x.shape
    return x.reshape(n, groups, c // groups, *rest).swapaxes(1, 2).reshape(x.shape)


PORTS: dict[str, Port] = {
    **{
        f"conv{rank}d": Port(
            "jax.lax.conv_general_dilated(x, w, stride, [(p, p)], rhs_dilation=dilation, "
            "feature_group_count=groups) + b",
            _lax(rank),
            'nnx.Conv(..., strides=2), whose padding is "SAME"',
            _lax(rank, same=True),
            '"SAME" pads the end alone where the size is even, and more than p where it is not',
        )
        for rank in SIZES
    },
    **{
        f"conv_transpose{rank}d": Port(
            "jax.lax.conv_transpose(x, w, stride, [(k - 1 - p, k - 1 - p + output_padding)], "
            "transpose_kernel=True), without groups",
            _lax_transposed(rank),
            'nnx.ConvTranspose(..., strides=2), whose padding is "SAME" and kernel is not turned',
            _lax_transposed(rank, naive=True),
            "PyTorch's is the gradient of a convolution, which turns the kernel about",
        )
        for rank in SIZES
    },
    "unfold": Port(
        "jax.lax.conv_general_dilated_patches(x, kernel, stride, [(p, p)] * 2, "
        "rhs_dilation=dilation).reshape(N, -1, L)",
        _patches,
    ),
    "fold": Port("jax.linear_transpose of unfold's", _folded),
    "pixel_shuffle": Port(
        "x.reshape(N, C, r, r, H, W).transpose(0, 1, 4, 2, 5, 3).reshape(N, C, H * r, W * r)",
        _shuffled,
        "x.reshape(N, r, r, C, H, W), as TensorFlow's depth_to_space",
        lambda x, r: _shuffled(x, r, channels_last=True),
        "a pixel's channels stand side by side in PyTorch",
    ),
    "pixel_unshuffle": Port(
        "x.reshape(N, C, H, r, W, r).transpose(0, 1, 3, 5, 2, 4).reshape(N, C * r**2, H, W)",
        _unshuffled,
    ),
    "channel_shuffle": Port(
        "x.reshape(N, groups, C // groups, ...).swapaxes(1, 2).reshape(x.shape)", _channels
    ),
}
