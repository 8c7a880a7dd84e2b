"""Rows of convolutions, pools, paddings and moves that PyTorch's own table lacks."""

from typing import Any

import numpy as np
import torch
from helpers.layer_parity import Layer

SIZES = {1: (9,), 2: (7, 6), 3: (6, 5, 7)}


def drawn(*shape: int, seed: int = 0) -> Any:
    """Numbers of a normal distribution."""
    return np.random.default_rng(seed).normal(size=shape)


def _conv(rank: int) -> list[Layer]:
    x, plain = drawn(2, 4, *SIZES[rank]), {"groups": 2, "dilation": (1, 2, 1)[:rank]}
    return [
        Layer((4, 6, (3, 2, 3)[:rank], 2, 1), plain, (x,)),
        Layer((4, 6, 2), {"padding": "same", "padding_mode": "reflect", **plain}, (x,)),
        Layer((4, 6, 3), {"padding": "valid", "padding_mode": "circular", "bias": False}, (x,)),
        Layer((4, 6, 3), {"padding": [2, 1, 0][:rank], "padding_mode": "replicate"}, (x[0],)),
        Layer((4, 6, 3, 2, (2, 1, 0)[:rank]), {"padding_mode": "circular"}, (x,)),
    ]


def _conv_transpose(rank: int) -> list[Layer]:
    x = drawn(2, 4, *SIZES[rank])
    sizes = [3 * size + 1 for size in SIZES[rank]]  # least: 3 size - 1
    strided: dict[str, Any] = {"stride": 3, "padding": 1, "groups": 2}
    return [
        Layer((4, 6, 4), {**strided, "output_padding": (1, 0, 2)[:rank]}, (x,)),
        Layer((4, 6, 4), strided, (x,), {"output_size": sizes}),
        Layer((4, 6, 4), strided, (x[0], [6, *sizes])),
        Layer((4, 6, (3, 2, 3)[:rank]), {"dilation": (2, 1, 3)[:rank], "bias": False}, (x,)),
    ]


def _unpool(rank: int) -> list[Layer]:
    x = drawn(2, 2, *[4] * rank)
    pool = getattr(torch.nn, f"MaxPool{rank}d")
    values, places = (
        v.numpy() for v in pool(2, (2, 1, 2)[:rank], return_indices=True)(torch.tensor(x))
    )
    args = (2, (2, 1, 2)[:rank])
    return [
        Layer(args, {}, (values, places)),
        Layer(args, {}, (values[0], places[0], [4] * rank)),
        Layer((2, 2, 0), {}, (values[:, :, :2], places[:, :, :2]), {"output_size": [5] * rank})
        if rank == 1
        else Layer(args, {}, (values, places), {"output_size": [2, 2, *[4] * rank]}),
    ]


def _fractional(rank: int) -> list[Layer]:
    sizes = (11, 12, 13)[:rank]
    x = drawn(2, 3, *sizes)
    samples = np.random.default_rng(2).uniform(size=(2, 3, rank))
    return [
        Layer((2, (4, 3, 5)[:rank]), {}, (x,)),
        Layer((2,), {"output_ratio": (0.5, 0.3, 0.7)[:rank], "return_indices": True}, (x,)),
        Layer((3, 4), {"_random_samples": samples}, (x,)),
        Layer(((2, 3, 1)[:rank], 4), {}, (x[0],)),
    ]


def _pads(kind: str, rank: int) -> list[Layer]:
    more = (1.5,) if kind == "ConstantPad" else ()
    x, widths = drawn(2, 3, *SIZES[rank]), [2, 1, 0, 3, 1, -1][: 2 * rank]
    return [Layer((widths, *more), {}, (x,)), Layer((1, *more), {}, (x[0],))]


LAYERS: dict[str, list[Layer]] = {
    "PixelShuffle": [Layer((2,), {}, (drawn(2, 8, 3, 2),)), Layer((3,), {}, (drawn(9, 1, 2),))],
    "PixelUnshuffle": [Layer((2,), {}, (drawn(2, 3, 4, 6),)), Layer((1,), {}, (drawn(2, 2, 3),))],
    "ChannelShuffle": [Layer((3,), {}, (drawn(2, 6, 3, 2),)), Layer((2,), {}, (drawn(1, 4, 5),))],
    "Flatten": [
        Layer((), {}, (drawn(2, 3, 4, 5),)),
        Layer((0, -2), {}, (drawn(2, 3, 4),)),
        Layer((0,), {}, (drawn(),)),
        Layer((2, 2), {}, (drawn(2, 3, 4),)),
    ],
    "Unflatten": [
        Layer((1, (2, 3)), {}, (drawn(2, 6, 4),)),
        Layer((-1, [2, -1, 1]), {}, (drawn(2, 6),)),
    ],
    "Fold": [
        Layer(((4, 5), 2), {}, (drawn(2, 8, 12),)),
        Layer(((5, 6), (2, 3)), {"dilation": (2, 1), "padding": 1, "stride": [1, 2]},
              (drawn(12, 15),)),
    ],
    "Unfold": [
        Layer((2,), {}, (drawn(2, 3, 4, 5),)),
        Layer(([2, 3],), {"dilation": (2, 1), "padding": 1, "stride": (1, 2)}, (drawn(2, 5, 6),)),
    ],
    "Upsample": [
        Layer((), {"scale_factor": 2}, (drawn(2, 3, 5),)),
        Layer(([7, 4],), {"mode": "bilinear", "align_corners": True}, (drawn(2, 3, 4, 5),)),
        Layer((None, (1.7, 2.3), "bicubic"), {}, (drawn(2, 3, 4, 5),)),
        Layer((None, 1.7, "trilinear", False, True), {}, (drawn(2, 1, 4, 3, 2),)),
        Layer((3, None, "area"), {}, (drawn(2, 3, 7, 5),)),
        Layer((8, None, "nearest-exact"), {}, (drawn(2, 3, 5),)),
    ],
    "UpsamplingNearest2d": [
        Layer((), {"scale_factor": 2.5}, (drawn(2, 3, 4, 5),)),
        Layer(((7, 3),), {}, (drawn(2, 3, 4, 5),)),
    ],
    "UpsamplingBilinear2d": [
        Layer((), {"scale_factor": (2, 1.5)}, (drawn(2, 3, 4, 5),)),
        Layer(([7, 3],), {}, (drawn(2, 3, 4, 5),)),
    ],
}  # fmt: skip
for _rank in SIZES:
    _sizes = (2, 3, *SIZES[_rank])
    LAYERS |= {
        f"Conv{_rank}d": _conv(_rank),
        f"ConvTranspose{_rank}d": _conv_transpose(_rank),
        f"MaxUnpool{_rank}d": _unpool(_rank),
        f"MaxPool{_rank}d": [
            Layer((3, 2, 1, 2, True, True), {}, (drawn(*_sizes),)),
            Layer(([2] * _rank,), {}, (drawn(*_sizes),)),
        ],
        f"AvgPool{_rank}d": [
            Layer((3, 2, 1, True, False), {}, (drawn(*_sizes),)),
            Layer((3, 2, 1, True), {"divisor_override": 5} if _rank > 1 else {}, (drawn(*_sizes),)),
        ],
        f"LPPool{_rank}d": [Layer((3, 2), {"ceil_mode": True}, (abs(drawn(*_sizes)),))],
        f"AdaptiveMaxPool{_rank}d": [Layer((3, True), {}, (drawn(*_sizes),))],
        f"AdaptiveAvgPool{_rank}d": [Layer((4,), {}, (drawn(*_sizes),))],
    }
    for _kind in ("Constant", "Zero", "Reflection", "Replication", "Circular"):
        LAYERS[f"{_kind}Pad{_rank}d"] = _pads(f"{_kind}Pad", _rank)
for _rank in (2, 3):
    LAYERS[f"FractionalMaxPool{_rank}d"] = _fractional(_rank)
