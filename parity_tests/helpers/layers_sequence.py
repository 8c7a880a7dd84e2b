"""Layers of attention and losses that PyTorch's own table of modules lacks, or options of theirs.

Letters: N samples, S source tokens, T target tokens, E numbers of a token.
"""

from typing import Any

import numpy as np
import torch
from helpers.layer_parity import Layer

RNG = np.random.default_rng(5)
N, S, T, E = 2, 5, 3, 4
SRC, TGT = RNG.normal(size=(S, N, E)), RNG.normal(size=(T, N, E))
SRC_FIRST, TGT_FIRST = SRC.swapaxes(0, 1), TGT.swapaxes(0, 1)
CAUSAL = np.triu(np.ones((T, T), bool), 1)
PADDING = np.array([[False] * 4 + [True], [False] * 3 + [True] * 2])  # (N, S)
ADDED = np.where(PADDING, -np.inf, 0.0)
ANCHOR, POSITIVE, NEGATIVE = RNG.normal(size=(3, 6, E))
IMAGES, LABELS = RNG.normal(size=(N, 3, 2, 2)), RNG.integers(0, 3, (N, 2, 2))


def _layer(kind: Any, **kwargs: Any) -> Any:
    """A layer of PyTorch's, of E numbers and 2 heads, in float64."""
    torch.manual_seed(1)
    return kind(E, 2, 6, dtype=torch.float64, **kwargs)


def _half(x: Any) -> Any:
    return x * 0.5


ENCODER, DECODER = torch.nn.TransformerEncoderLayer, torch.nn.TransformerDecoderLayer
DROPPING = {"dim_feedforward": 6, "dropout": 0.4}
FIRST = {**DROPPING, "batch_first": True}

LAYERS: dict[str, list[Layer]] = {
    "MultiheadAttention": [
        Layer((E, 2), {"dropout": 0.4}, (TGT, SRC, SRC), {"key_padding_mask": PADDING}),
        Layer(
            (E, 2),
            {"dropout": 0.4, "batch_first": True, "add_bias_kv": True},
            (TGT_FIRST, SRC_FIRST, SRC_FIRST),
            {"need_weights": False},
        ),
        Layer(
            (E, 2),
            {"dropout": 0.4, "kdim": 3, "vdim": 2, "add_zero_attn": True},
            (TGT, SRC[..., :3], SRC[..., :2]),
            {"key_padding_mask": ADDED, "average_attn_weights": False},
        ),
        Layer((E, 2), {}, (TGT, TGT, TGT), {"attn_mask": CAUSAL, "is_causal": True}),
        Layer(
            (E, 2),
            {},
            (SRC, TGT, TGT),
            {"key_padding_mask": np.ones((N, T), bool), "need_weights": False},
        ),  # no key that may be looked at: the output's bias
        Layer((E, 2), {"dropout": 0.4}, (TGT[:, 0], SRC[:, 0], SRC[:, 0])),
    ],
    "TransformerEncoderLayer": [
        Layer((E, 2), FIRST, (SRC_FIRST,), {"src_key_padding_mask": PADDING}),
        Layer((E, 2), {**FIRST, "norm_first": True, "activation": "gelu"}, (SRC_FIRST,)),
        Layer((E, 2), {**DROPPING, "bias": False, "layer_norm_eps": 1e-3}, (SRC,)),
        Layer((E, 2), {**FIRST, "activation": torch.nn.GELU()}, (SRC[:, 0],)),
        Layer((E, 2), FIRST, (SRC_FIRST,), {"src_key_padding_mask": PADDING}, training=False),
    ],
    "TransformerDecoderLayer": [
        Layer(
            (E, 2),
            FIRST,
            (TGT_FIRST, SRC_FIRST),
            {"tgt_mask": CAUSAL, "memory_key_padding_mask": PADDING},
        ),
        Layer((E, 2), {**FIRST, "norm_first": True, "activation": "gelu"}, (TGT_FIRST, SRC_FIRST)),
        Layer((E, 2), {**DROPPING, "bias": False, "layer_norm_eps": 1e-3}, (TGT, SRC)),
        Layer((E, 2), FIRST, (TGT[:, 0], SRC[:, 0])),
    ],
    "TransformerEncoder": [
        Layer(
            (_layer(ENCODER, dropout=0.4, batch_first=True), 2),
            {"norm": torch.nn.LayerNorm(E, dtype=torch.float64)},
            (SRC_FIRST,),
            {"src_key_padding_mask": PADDING},
        ),
        Layer(
            (_layer(ENCODER, dropout=0.4, norm_first=True), 2),
            {"enable_nested_tensor": False, "mask_check": False},
            (TGT,),
            {"mask": CAUSAL, "is_causal": True},
        ),
    ],
    "TransformerDecoder": [
        Layer(
            (_layer(DECODER, dropout=0.4, batch_first=True), 2),
            {"norm": torch.nn.LayerNorm(E, dtype=torch.float64)},
            (TGT_FIRST, SRC_FIRST),
            {"tgt_mask": CAUSAL, "memory_key_padding_mask": PADDING},
        ),
        Layer(
            (_layer(DECODER, norm_first=True), 1),
            {},
            (TGT, SRC),
            {"tgt_mask": np.where(CAUSAL, -np.inf, 0.0), "tgt_is_causal": True},
            training=False,
        ),
    ],
    "Transformer": [
        Layer(
            (E, 2, 2, 1),
            FIRST,
            (SRC_FIRST, TGT_FIRST),
            {"tgt_mask": CAUSAL, "src_key_padding_mask": PADDING},
        ),
        Layer(
            (E, 2, 1, 2),
            {**DROPPING, "norm_first": True, "activation": "gelu", "bias": False},
            (SRC, TGT),
            {"memory_key_padding_mask": PADDING},
        ),
        Layer((E, 2, 1, 1), DROPPING, (SRC[:, 0], TGT[:, 0]), training=False),
    ],
    "AdaptiveLogSoftmaxWithLoss": [
        Layer((E, 12, [4, 7]), {"div_value": 2.0}, (SRC[:, 0], np.array([0, 3, 6, 7, 11]))),
        Layer((E, 12, [4, 7]), {"head_bias": True}, (SRC[0, 0], np.array(8))),
        Layer((E, 6, [5]), {"div_value": 1.5}, (SRC[:, 1], np.array([1, 1, 4, 0, 2]))),
    ],
    "NLLLoss2d": [
        Layer((), {"weight": np.array([0.2, 1.0, 3.0]), "ignore_index": 2}, (IMAGES, LABELS)),
        Layer((), {"reduction": "none"}, (IMAGES, LABELS)),
    ],
    "LinearCrossEntropyLoss": [
        Layer(
            (E, 3),
            {"bias": True, "weight": np.array([0.2, 1.0, 3.0]), "label_smoothing": 0.1},
            (SRC[:, 0], np.array([0, 2, -100, 1, 1])),
        ),
        Layer(
            (E, 3),
            {"out_features": (2,), "bias": True, "ignore_index": 1},
            (SRC[:, 0], np.array([[0, 1], [2, 2], [1, 1], [0, 2], [1, 0]])),
        ),
    ],
    "TripletMarginLoss": [
        Layer((), {"margin": 3.0}, (ANCHOR, POSITIVE, NEGATIVE)),
        Layer((2.0, 1.0, 1e-3, True), {"reduction": "sum"}, (ANCHOR, POSITIVE, NEGATIVE)),
        Layer((), {"size_average": False}, (ANCHOR[0], POSITIVE[0], NEGATIVE[0])),
        Layer((), {"reduce": False, "p": 3.0}, (ANCHOR, POSITIVE, NEGATIVE)),
    ],
    "TripletMarginWithDistanceLoss": [
        Layer((), {"margin": 3.0}, (ANCHOR, POSITIVE, NEGATIVE)),
        Layer(
            (),
            {"distance_function": torch.nn.PairwiseDistance(1.0), "swap": True, "reduction": "sum"},
            (ANCHOR, POSITIVE, NEGATIVE),
        ),
        Layer(
            (),
            {"distance_function": torch.nn.functional.cosine_similarity, "reduction": "none"},
            (ANCHOR, POSITIVE, NEGATIVE),
        ),
    ],
    "BCEWithLogitsLoss": [
        Layer(
            (),
            {"weight": RNG.uniform(size=3), "pos_weight": RNG.uniform(size=3), "reduction": "sum"},
            (RNG.normal(size=(4, 3)), RNG.uniform(size=(4, 3))),
        ),
    ],
    "CrossEntropyLoss": [
        Layer(
            (np.array([0.2, 1.0, 3.0]),),
            {"label_smoothing": 0.2, "ignore_index": 1},
            (IMAGES, LABELS),
        ),
    ],
}
