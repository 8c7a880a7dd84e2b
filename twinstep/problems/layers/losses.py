"""The rows of the set `losses`: each loss of torch.nn, with options that show what it does."""

from collections.abc import Sequence
from typing import Any

from twinstep.problems.layers.row import Input, Layer, Row

_SHAPE = (4, 5)
_SCORES, _LABELS = Input((6, 5)), Input((6,), 5)
_MAP, _MAP_LABELS = Input((2, 5, 3, 3)), Input((2, 3, 3), 5)

_PAIRS: dict[str, tuple[Input, Input]] = {
    "L1Loss": (Input(_SHAPE), Input(_SHAPE, "target")),
    "MSELoss": (Input(_SHAPE), Input(_SHAPE, "target")),
    "SmoothL1Loss": (Input(_SHAPE), Input(_SHAPE, "target")),
    "HuberLoss": (Input(_SHAPE), Input(_SHAPE, "target")),
    "BCELoss": (Input(_SHAPE, "positive"), Input(_SHAPE, "share")),
    "BCEWithLogitsLoss": (Input(_SHAPE), Input(_SHAPE, "share")),
    "KLDivLoss": (Input(_SHAPE), Input(_SHAPE, "share")),
    "PoissonNLLLoss": (Input(_SHAPE, "positive"), Input(_SHAPE, "share")),
    "SoftMarginLoss": (Input(_SHAPE), Input(_SHAPE, "sign")),
    "HingeEmbeddingLoss": (Input(_SHAPE), Input(_SHAPE, "sign")),
    "CrossEntropyLoss": (_SCORES, _LABELS),
    "NLLLoss": (_SCORES, _LABELS),
    "MultiMarginLoss": (_SCORES, _LABELS),
    "MultiLabelMarginLoss": (Input((2, 4)), Input((), values=[[3, 0, -1, 1], [1, -1, 0, 2]])),
    "MultiLabelSoftMarginLoss": (Input(_SHAPE), Input(_SHAPE, "share")),
}
"""{loss: its input and target}"""

_OPTIONS: dict[str, Sequence[dict[str, Any]]] = {
    "MSELoss": [{}, {"reduction": "sum"}, {"reduction": "none"}],
    "SmoothL1Loss": [{}, {"beta": 0.3}],
    "HuberLoss": [{}, {"delta": 0.3}],
    "KLDivLoss": [{"reduction": "batchmean"}, {"reduction": "sum", "log_target": True}],
    "PoissonNLLLoss": [{}, {"log_input": False, "full": True}],
    "HingeEmbeddingLoss": [{}, {"margin": 0.5}],
    "CrossEntropyLoss": [
        {},
        {"label_smoothing": 0.2},
        {"ignore_index": 2},
        {"reduction": "none"},
    ],
    "NLLLoss": [{}, {"ignore_index": 2}],
    "MultiMarginLoss": [{}, {"p": 2, "margin": 0.5}],
}
"""{loss: options that it is tried with; others with none}"""


def _others() -> list[Row]:
    far = Input(_SHAPE)
    labels = Input((4,), "sign")
    lengths = [Input((), values=[9, 7]), Input((), values=[3, 2])]
    scores, targets = Input((9, 2, 5)), Input((), values=[[1, 2, 2], [3, 1, 0]])
    return [
        Row(Layer("CrossEntropyLoss", (), {"reduction": "sum"}), (_MAP, _MAP_LABELS)),
        Row(
            Layer("CrossEntropyLoss"),
            (_SCORES, Input((6, 5), "share")),
            note="probabilities",
        ),
        Row(Layer("GaussianNLLLoss"), (far, Input(_SHAPE, "target"), Input(_SHAPE, "share"))),
        Row(Layer("CosineEmbeddingLoss", (), {"margin": 0.1}), (far, far, labels)),
        Row(Layer("MarginRankingLoss", (), {"margin": 0.5}), (Input((4,)), Input((4,)), labels)),
        Row(Layer("TripletMarginLoss"), (far, far, far)),
        Row(Layer("TripletMarginLoss", (), {"p": 1, "swap": True}), (far, far, far)),
        Row(Layer("TripletMarginWithDistanceLoss"), (far, far, far)),
        Row(Layer("CTCLoss"), (scores, targets, *lengths)),
        Row(Layer("CTCLoss", (), {"reduction": "sum", "blank": 4}), (scores, targets, *lengths)),
        Row(
            Layer("AdaptiveLogSoftmaxWithLoss", (6, 8, (3, 5)), {"div_value": 2.0}),
            (Input((6, 6)), Input((), values=[0, 4, 6, 1, 2, 7])),
            {
                "head.weight": (5, 6),
                "tail.0.0.weight": (3, 6),
                "tail.0.1.weight": (2, 3),
                "tail.1.0.weight": (1, 6),
                "tail.1.1.weight": (3, 1),
            },
        ),
        Row(
            Layer("LinearCrossEntropyLoss", (5, 4)),
            (Input((6, 5)), Input((6,), 4)),
            {"linear.weight": (4, 5)},
        ),
    ]


def rows() -> list[Row]:
    """All of them.

    Returns:
        The rows, each loss's together.
    """
    found = [
        Row(Layer(kind, (), options), inputs)
        for kind, inputs in _PAIRS.items()
        for options in _OPTIONS.get(kind, [{}])
    ]
    return found + _others()
