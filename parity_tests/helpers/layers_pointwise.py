"""torch.nn's activations, norms, dropouts, tables and distances: what its own table lacks."""

import numpy as np
from helpers.kit_parity import Array
from helpers.layer_parity import Layer


def drawn(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


KINKS = np.array([-7.0, -3.0, -1.0, -0.5, -0.0, 0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 6.0, 25.0])
"""Where activations bend."""
NAN = np.array([np.nan, -1.0, np.inf, 2.0, -np.inf])
X1, X2, X3 = drawn(4, 3, 5), drawn(4, 3, 5, 2), drawn(4, 3, 2, 5, 2)
IDS = np.array([[3, 0, 1], [3, 3, 4]])
FLAT, OFFSETS = np.array([3, 0, 1, 3, 3, 4, 2]), np.array([0, 2, 2, 5])
BAG = {"offsets": OFFSETS}


def _bends(*args: float, **kwargs: float) -> list[Layer]:
    rows = [Layer((), {}, (KINKS,)), Layer((), {}, (NAN,))]
    return [Layer(args, kwargs, (KINKS,)), *rows] if args or kwargs else rows


def _dropout(*inputs: Array) -> list[Layer]:
    first, *_ = inputs
    return [
        *[Layer((p,), {}, (x,)) for x in inputs for p in (0.3, 0.5)],
        Layer((), {}, (first,)),
        Layer((0.0,), {}, (first,)),
        Layer((1.0,), {}, (first,)),
        Layer((0.3,), {}, (first,), training=False),
        Layer((0.9, True), {}, (first[:0],)),
    ]


def _norm(x: Array) -> list[Layer]:
    return [
        Layer((3,), {"momentum": None, "bias": False}, (x,)),
        Layer((3, 1e-3, 0.3), {"track_running_stats": False}, (x,), training=False),
        Layer((3, 1e-3, 0.3, False), {}, (x,), training=False),
        Layer((3, 1e-3, 0.0), {}, (x,)),
        Layer((3, 1e-3, 1.0), {}, (x + 100,)),
    ]


def _instance(x: Array) -> list[Layer]:
    return [
        Layer((3, 1e-3, 0.3, True, True), {"bias": False}, (x,)),
        Layer((3, 1e-3, 0.3, True, True), {}, (x,), training=False),
        Layer((3, 1e-3, None, True, True), {}, (x,)),
        Layer((3,), {}, (x[0],)),
    ]


LAYERS: dict[str, list[Layer]] = {
    "AlphaDropout": _dropout(X1, drawn(7), drawn(40, 40)),
    "BatchNorm1d": [*_norm(X1), *_norm(X1[..., 0])],
    "BatchNorm2d": _norm(X2),
    "BatchNorm3d": _norm(X3),
    "Bilinear": [
        Layer((3, 2, 5), {}, (drawn(4, 6, 3), drawn(4, 6, 2, seed=1))),
        Layer((1, 1, 1, False), {}, (drawn(1), drawn(1, seed=1))),
    ],
    "CELU": _bends(0.5),
    "CosineSimilarity": [
        Layer((), {}, (X1, drawn(4, 3, 5, seed=1))),
        Layer((-1, 0.5), {}, (X1, drawn(3, 5, seed=1))),
        Layer((0,), {}, (drawn(3), np.zeros(3))),
    ],
    "CrossMapLRN2d": [
        Layer((size,), options, (drawn(2, channels, 3, 2),))
        for size in (2, 3, 4, 5, 9)
        for channels in (1, 3, 8)
        for options in ({"alpha": 0.5, "beta": 1.5, "k": 2.0},)
    ]
    + [Layer((3,), {}, (drawn(2, 7, 3, 2),)), Layer((3,), {}, (drawn(0, 2, 3, 2),))],
    "Dropout": _dropout(X1, drawn(3), drawn(40, 40), np.full((3, 3), np.inf), np.array(2.0)),
    "Dropout1d": _dropout(X1, drawn(3, 5)),
    "Dropout2d": _dropout(X2, X2[:1]),
    "Dropout3d": _dropout(X3, X3[0]),
    "ELU": _bends(0.5),
    "Embedding": [
        Layer((5, 3), {}, (IDS,)),
        Layer((5, 3, -2), {"scale_grad_by_freq": True}, (IDS,)),
        Layer((5, 3, 0, 0.7, 1.0), {}, (IDS,)),
        Layer((5, 3), {"max_norm": 0.5, "padding_idx": 3}, (IDS,)),
        Layer((5, 3), {"_weight": drawn(5, 3, seed=4), "_freeze": True}, (IDS[0],)),
        Layer((5, 3), {}, (np.array(2),)),
        Layer((20, 7), {}, (IDS,)),
        Layer((5, 0), {}, (IDS,)),
    ],
    "EmbeddingBag": [
        Layer((5, 3), {}, (IDS,)),
        Layer((5, 3), {"mode": "max", "padding_idx": 3}, (FLAT,), BAG),
        Layer((5, 3), {"mode": "sum"}, (FLAT,), BAG | {"per_sample_weights": drawn(7, seed=2)}),
        Layer((5, 3), {"include_last_offset": True, "mode": "sum"}, (FLAT, np.array([0, 2, 7]))),
        Layer((5, 3, 0.5, 1.0), {"padding_idx": -1}, (FLAT,), BAG),
        Layer((5, 3), {"scale_grad_by_freq": True}, (IDS,)),
        Layer((5, 3), {"_weight": drawn(5, 3, seed=4)}, (FLAT,), BAG),
    ],
    "FeatureAlphaDropout": _dropout(X1, X2, drawn(4, 3), X3),
    "GELU": [Layer(("tanh",), {}, (KINKS,)), Layer((), {}, (KINKS,))],
    "GLU": [Layer((0,), {}, (X1,)), Layer((-2,), {}, (drawn(2, 4, 3),))],
    "GroupNorm": [
        Layer((3, 6), {"bias": False}, (drawn(2, 6, 4),)),
        Layer((3, 6, 1e-3, False), {}, (drawn(2, 6),)),
        Layer((6, 6), {}, (drawn(2, 6, 4, 2) + 100,)),
    ],
    "Hardshrink": _bends(1.0),
    "Hardsigmoid": _bends(),
    "Hardswish": _bends(),
    "Hardtanh": [*_bends(-3.0, 1.0), *_bends(min_val=-0.5, max_val=6.0)],
    "InstanceNorm1d": _instance(X1),
    "InstanceNorm2d": _instance(X2),
    "InstanceNorm3d": _instance(X3),
    "LayerNorm": [
        Layer((5,), {"bias": False}, (X1 + 100,)),
        Layer(((3, 5), 1e-3, False), {}, (X1,)),
        Layer((5,), {}, (X1[:0],)),
    ],
    "LeakyReLU": _bends(0.5),
    "LocalResponseNorm": [
        Layer((4, 0.5, 1.5, 2.0), {}, (X2,)),
        Layer((9,), {"alpha": 0.5}, (X1,)),
    ],
    "LogSigmoid": _bends(),
    "LogSoftmax": [Layer((-1,), {}, (X1,)), Layer((0,), {}, (np.array(2.0),))],
    "Mish": _bends(),
    "PReLU": [
        Layer((3, 0.5), {}, (X1,)),
        Layer((), {"init": -0.5}, (KINKS,)),
        Layer((), {}, (NAN,)),
    ],
    "PairwiseDistance": [
        Layer((), {}, (X1, drawn(4, 3, 5, seed=1))),
        Layer((1.0, 1e-3, True), {}, (X1, drawn(3, 5, seed=1))),
        Layer((np.inf,), {}, (drawn(3), drawn(3, seed=1))),
        Layer((3.0, 0.0), {}, (X1, X1)),
    ],
    "RMSNorm": [
        Layer((5,), {}, (X1,)),
        Layer(((3, 5), 0.5, False), {}, (X1,)),
    ],
    "RReLU": [
        Layer((), {}, (KINKS,)),
        Layer((-0.5, 2.0), {}, (drawn(40, 40),)),
        Layer((0.25, 0.25), {}, (KINKS,)),
        Layer((), {}, (KINKS,), training=False),
        Layer((), {}, (NAN,)),
        Layer((), {}, (X1[:0],)),
        Layer((), {}, (np.abs(X1) + 1,)),
        Layer((), {}, (np.array(-2.0),)),
    ],
    "ReLU": _bends(),
    "ReLU6": _bends(),
    "SELU": _bends(),
    "SiLU": _bends(),
    "Sigmoid": _bends(),
    "Softmax": [Layer((-1,), {}, (X1,)), Layer((0,), {}, (np.array(2.0),))],
    "Softmax2d": [Layer((), {}, (X2,)), Layer((), {}, (X2[0],))],
    "Softmin": [Layer((-1,), {}, (X1,))],
    "Softplus": [*_bends(2.0, 1.0), Layer((0.5,), {"threshold": 3.0}, (KINKS,))],
    "Softshrink": _bends(1.0),
    "Softsign": _bends(),
    "SyncBatchNorm": [
        *[row for x in (X1[..., 0], X1, X3) for row in _norm(x)],
        Layer((3,), {}, (X1[:0],)),
    ],
    "Tanh": _bends(),
    "Tanhshrink": _bends(),
    "Threshold": [Layer((0.5, -2.0), {}, (KINKS,)), Layer((-1.0, 3.0), {}, (NAN,))],
}
