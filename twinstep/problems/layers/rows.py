"""The rows of the set `layers`: each class of torch.nn, with options that show what it does."""

from typing import Any

import numpy as np

from twinstep.problems.layers.row import Input, Layer, Row
from twinstep.problems.layers.shapes import (
    Shapes,
    affine,
    attention,
    cell,
    norm,
    recurrent,
    transformer_layer,
    transposed,
    under,
)

_FLAT, _LINE, _PLANE, _SPACE = (4, 6), (2, 4, 9), (2, 4, 6, 6), (1, 4, 5, 4, 5)
_BY_DIMENSION = {1: _LINE, 2: _PLANE, 3: _SPACE}


def _row(
    layer: Layer,
    *inputs: tuple[int, ...] | Input,
    shapes: Shapes | None = None,
    draws: bool = False,
) -> Row:
    made = tuple(one if isinstance(one, Input) else Input(one) for one in inputs)
    return Row(layer, made, shapes or {}, draws)


def _of(kind: str, *args: Any, **options: Any) -> Layer:
    return Layer(kind, args, options)


def _linear() -> list[Row]:
    return [
        _row(_of("Linear", 6, 3), _FLAT, shapes=affine(3, 6)),
        _row(_of("Linear", 6, 3, bias=False), (2, 4, 6), shapes=affine(3, 6, bias=False)),
        _row(_of("Bilinear", 3, 4, 2), (5, 3), (5, 4), shapes=affine(2, 3, 4)),
        _row(_of("Identity"), _FLAT),
        _row(_of("Flatten"), _LINE),
        _row(_of("Unflatten", 1, (2, 3)), _FLAT),
        _row(
            _of("Sequential", _of("Linear", 6, 5), _of("ReLU"), _of("Linear", 5, 2)),
            _FLAT,
            shapes=under("0", affine(5, 6)) | under("2", affine(2, 5)),
        ),
        _row(_of("Embedding", 7, 3, padding_idx=2), Input((4, 5), 7), shapes={"weight": (7, 3)}),
        _row(
            _of("Embedding", 7, 3, scale_grad_by_freq=True),
            Input((4, 5), 7),
            shapes={"weight": (7, 3)},
        ),
        *(
            _row(_of("EmbeddingBag", 7, 3, mode=mode), Input((4, 5), 7), shapes={"weight": (7, 3)})
            for mode in ("sum", "mean", "max")
        ),
    ]


def _convolutions() -> list[Row]:
    rows = []
    for n, shape in _BY_DIMENSION.items():
        kernel = (3,) * n
        rows += [
            _row(_of(f"Conv{n}d", 4, 3, 3), shape, shapes=affine(3, 4, *kernel)),
            _row(
                _of(f"ConvTranspose{n}d", 4, 3, 3, stride=2, padding=1, output_padding=1),
                shape,
                shapes=transposed(4, 3, *kernel),
            ),
        ]
    return [
        *rows,
        _row(
            _of("Conv2d", 4, 6, 3, stride=2, padding=1, groups=2),
            _PLANE,
            shapes=affine(6, 2, 3, 3),
        ),
        _row(
            _of("Conv2d", 4, 3, 3, padding=2, dilation=2, padding_mode="reflect", bias=False),
            _PLANE,
            shapes=affine(3, 4, 3, 3, bias=False),
        ),
        _row(_of("Conv2d", 4, 3, 4, padding="same"), _PLANE, shapes=affine(3, 4, 4, 4)),
        _row(_of("Unfold", 3, padding=1, stride=2), _PLANE),
        _row(_of("Fold", (5, 5), 2), (2, 8, 16)),
    ]


def _recurrent() -> list[Row]:
    rows = []
    for kind, gates in {"RNN": 1, "GRU": 3, "LSTM": 4}.items():
        rows += [
            _row(_of(kind, 4, 3), (5, 2, 4), shapes=recurrent(gates, 4, 3)),
            _row(
                _of(kind, 4, 3, num_layers=2, batch_first=True, dropout=0.3, bidirectional=True),
                (2, 5, 4),
                shapes=recurrent(gates, 4, 3, 2, bidirectional=True),
                draws=True,
            ),
        ]
        hidden = [] if kind == "LSTM" else [(2, 3)]  # whose cell takes a pair, not an array
        rows.append(_row(_of(f"{kind}Cell", 4, 3), (2, 4), *hidden, shapes=cell(gates, 4, 3)))
    rows.append(_row(_of("RNN", 4, 3, nonlinearity="relu"), (5, 2, 4), shapes=recurrent(1, 4, 3)))
    projected = recurrent(4, 4, 3)
    projected |= {"weight_hh_l0": (12, 2), "weight_hr_l0": (2, 3)}
    rows.append(_row(_of("LSTM", 4, 3, proj_size=2), (5, 2, 4), shapes=projected))
    return rows


def _norms() -> list[Row]:
    rows = []
    for n, shape in _BY_DIMENSION.items():
        rows += [
            _row(_of(f"BatchNorm{n}d", 4), shape, shapes=norm(4)),
            _row(_of(f"InstanceNorm{n}d", 4, affine=True), shape, shapes=norm(4)),
        ]
    return [
        *rows,
        _row(_of("BatchNorm1d", 6), _FLAT, shapes=norm(6)),
        _row(_of("BatchNorm2d", 4, eps=0.1, momentum=None), _PLANE, shapes=norm(4)),
        _row(_of("BatchNorm2d", 4, affine=False, track_running_stats=False), _PLANE),
        _row(_of("InstanceNorm2d", 4, track_running_stats=True), _PLANE),
        _row(_of("LayerNorm", 6), _FLAT, shapes=norm(6)),
        _row(_of("LayerNorm", (6, 6), eps=0.1), _PLANE, shapes=norm(6, 6)),
        _row(_of("RMSNorm", 6), _FLAT, shapes={"weight": (6,)}),
        _row(_of("RMSNorm", 6, eps=0.1), _FLAT, shapes={"weight": (6,)}),
        _row(_of("GroupNorm", 2, 4), _PLANE, shapes=norm(4)),
        _row(_of("LocalResponseNorm", 2), _PLANE),
        _row(_of("CrossMapLRN2d", 3), _PLANE),
    ]


def _transformers() -> list[Row]:
    encoder = _of("TransformerEncoderLayer", 6, 2, 8, dropout=0.1)
    decoder = _of("TransformerDecoderLayer", 6, 2, 8, dropout=0.1, batch_first=True)
    target, source = (3, 2, 6), (5, 2, 6)
    mask = Input((3, 5), "target", "attn_mask")
    stack = under("encoder.layers.0", transformer_layer(6, 8)) | under("encoder.norm", norm(6))
    stack |= under("decoder.layers.0", transformer_layer(6, 8, decoder=True))
    stack |= under("decoder.norm", norm(6))
    return [
        _row(
            _of("MultiheadAttention", 6, 2, dropout=0.2),
            target,
            source,
            source,
            mask,
            shapes=attention(6),
            draws=True,
        ),
        _row(encoder, source, shapes=transformer_layer(6, 8), draws=True),
        _row(
            _of(
                "TransformerEncoderLayer", 6, 2, 8, activation="gelu", norm_first=True, dropout=0.0
            ),
            source,
            shapes=transformer_layer(6, 8),
        ),
        _row(
            decoder,
            (2, 3, 6),
            (2, 5, 6),
            shapes=transformer_layer(6, 8, decoder=True),
            draws=True,
        ),
        _row(
            _of("TransformerEncoder", encoder, 2, enable_nested_tensor=False),
            source,
            shapes=under("layers.0", transformer_layer(6, 8))
            | under("layers.1", transformer_layer(6, 8)),
            draws=True,
        ),
        _row(
            _of("TransformerDecoder", decoder, 1),
            (2, 3, 6),
            (2, 5, 6),
            shapes=under("layers.0", transformer_layer(6, 8, decoder=True)),
            draws=True,
        ),
        _row(
            _of("Transformer", 6, 2, 1, 1, 8, batch_first=True),
            (2, 5, 6),
            (2, 3, 6),
            shapes=stack,
            draws=True,
        ),
    ]


def _activations() -> list[Row]:
    plain = (
        "CELU ELU GELU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid Mish ReLU "
        "ReLU6 SELU SiLU Sigmoid Softplus Softshrink Softsign Tanh Tanhshrink"
    )
    return [
        *(_row(_of(kind), _FLAT) for kind in plain.split()),
        _row(_of("CELU", alpha=0.5), _FLAT),
        _row(_of("ELU", alpha=0.5), _FLAT),
        _row(_of("GELU", approximate="tanh"), _FLAT),
        _row(_of("GLU"), _FLAT),
        _row(_of("PReLU", 4), _LINE, shapes={"weight": (4,)}),
        _row(_of("RReLU"), _FLAT, draws=True),
        _row(_of("Softplus", beta=2, threshold=1), _FLAT),
        _row(_of("Threshold", 0.1, 0.5), _FLAT),
        _row(_of("Softmax", dim=1), _FLAT),
        _row(_of("Softmin", dim=1), _FLAT),
        _row(_of("LogSoftmax", dim=1), _FLAT),
        _row(_of("Softmax2d"), _PLANE),
        *(
            _row(_of(kind, 0.3), shape, draws=True)
            for kind, shape in {
                "Dropout": _FLAT,
                "Dropout1d": _LINE,
                "Dropout2d": _PLANE,
                "Dropout3d": _SPACE,
                "AlphaDropout": _FLAT,
                "FeatureAlphaDropout": _PLANE,
            }.items()
        ),
    ]


def _pools() -> list[Row]:
    rows = []
    for n, shape in _BY_DIMENSION.items():
        rows += [
            _row(_of(f"MaxPool{n}d", 3, stride=2, padding=1, ceil_mode=True), shape),
            _row(_of(f"AvgPool{n}d", 3, stride=2, padding=1, ceil_mode=True), shape),
            _row(_of(f"LPPool{n}d", 2, 2), shape),
            _row(_of(f"AdaptiveAvgPool{n}d", 2), shape),
            _row(_of(f"AdaptiveMaxPool{n}d", 2), shape),
            _row(_of(f"ConstantPad{n}d", 1, 0.5), shape),
            *(
                _row(_of(f"{kind}Pad{n}d", 1), shape)
                for kind in ("Zero", "Circular", "Reflection", "Replication")
            ),
        ]
    # in what is unpooled
    places: dict[int, Any] = {1: [0, 3, 4], 2: [[0, 3], [9, 15]], 3: [[[0, 6]]]}
    return [
        *rows,
        _row(_of("AvgPool2d", 3, padding=1, count_include_pad=False), _PLANE),
        _row(_of("FractionalMaxPool2d", 2, output_size=3), _PLANE, draws=True),
        _row(_of("FractionalMaxPool3d", 2, output_size=2), _SPACE, draws=True),
        *(
            _row(
                _of(f"MaxUnpool{n}d", 2),
                (1, 1, *np.shape(where)),
                Input((), values=[[where]]),
            )
            for n, where in places.items()
        ),
    ]


def _images() -> list[Row]:
    return [
        _row(_of("PixelShuffle", 2), _PLANE),
        _row(_of("PixelUnshuffle", 2), _PLANE),
        _row(_of("ChannelShuffle", 2), _PLANE),
        _row(_of("Upsample", scale_factor=2), _PLANE),
        _row(_of("Upsample", size=(9, 4), mode="bilinear"), _PLANE),
        _row(_of("Upsample", scale_factor=1.5, mode="bicubic", align_corners=True), _PLANE),
        _row(_of("UpsamplingNearest2d", scale_factor=2), _PLANE),
        _row(_of("UpsamplingBilinear2d", scale_factor=2), _PLANE),
        _row(_of("CosineSimilarity"), _FLAT, _FLAT),
        _row(_of("PairwiseDistance"), _FLAT, _FLAT),
    ]


def rows() -> list[Row]:
    """All of them.

    Returns:
        The rows, by family.
    """
    return [
        *_linear(),
        *_convolutions(),
        *_recurrent(),
        *_norms(),
        *_transformers(),
        *_activations(),
        *_pools(),
        *_images(),
    ]
