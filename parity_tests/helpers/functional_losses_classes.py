"""torch.nn.functional's losses of classes: calls of each, what is refused, what JAX has for it.

WEIGHTED, WARNED and EXACT as in functional_losses.py.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from helpers.kit_parity import Case, Port

RNG = np.random.default_rng(13)
NAN, INF = np.nan, np.inf
NONE = {"reduction": "none"}
SUM = {"reduction": "sum"}
REDUCTIONS = ("mean", "sum", "none")


def log_softmax(x: Any, axis: int = 1) -> Any:
    """Of an array that is finite."""
    return x - np.log(np.sum(np.exp(x), axis, keepdims=True))


SHAPES = [(5, 4), (3, 4, 2), (2, 4, 3, 2), (2, 4, 2, 1, 3)]
LOGITS = {len(shape): 2 * RNG.normal(size=shape) for shape in SHAPES}
NUMBERS = {len(s): RNG.integers(0, 4, s[:1] + s[2:]) for s in SHAPES}
SHARES = {rank: np.exp(log_softmax(RNG.normal(size=x.shape))) for rank, x in LOGITS.items()}
X, LOGS, LABELS, SHARE = LOGITS[2], log_softmax(LOGITS[2]), NUMBERS[2], SHARES[2]
SOME = np.array([1, -100, 3, -100, 0])
ALL = np.full(5, -100)
WEIGHT = RNG.uniform(0.2, 3, 4)
ROW, LABEL = X[0], np.array(2)
NOTHING = np.zeros((0, 4)), np.zeros(0, int)
IMAGE = np.where(NUMBERS[4] == 1, -100, NUMBERS[4])
INPUT, LAYER, BIAS = RNG.normal(size=(5, 3)), RNG.normal(size=(4, 3)), RNG.normal(size=4)
DEEP = RNG.normal(size=(4, 2, 3))

CASES: dict[str, list[Case]] = {
    "cross_entropy": [
        Case((LOGITS[4], IMAGE), {"label_smoothing": 0.1}),
        *(
            Case((LOGITS[rank], NUMBERS[rank]), {"reduction": r})
            for rank in LOGITS
            for r in REDUCTIONS
        ),
        *(
            Case((LOGITS[rank], SHARES[rank]), {"reduction": r})
            for rank in LOGITS
            for r in REDUCTIONS
        ),
        *(Case((X, SOME), {"reduction": r, "label_smoothing": 0.2}) for r in REDUCTIONS),
        *(
            Case((X, ALL), {"reduction": r, "label_smoothing": s})
            for r in REDUCTIONS
            for s in (0.0, 0.1)
        ),
        *(Case((X, SHARE, WEIGHT), {"reduction": r, "label_smoothing": 0.1}) for r in REDUCTIONS),
        Case((X, LABELS), {"ignore_index": 1}),
        Case((X, LABELS), {"label_smoothing": 1.0}),
        Case((ROW, LABEL)),
        Case((ROW, LABEL), NONE),
        Case((ROW, SHARE[0], WEIGHT), {"label_smoothing": 0.1}),
        Case((X, LABELS.astype(np.uint8))),
        *(Case(NOTHING, {"reduction": r}) for r in REDUCTIONS),
        Case((NOTHING[0], NOTHING[0])),
        Case(
            (np.array([[INF, 0, 1], [-INF, 0, 1], [NAN, 0, 1], [900, -900, 0]]), LABELS[:4] % 3),
            NONE,
        ),
    ],
    "nll_loss": [
        Case((log_softmax(LOGITS[4]), IMAGE)),
        *(
            Case((log_softmax(LOGITS[rank]), NUMBERS[rank]), {"reduction": r})
            for rank in LOGITS
            for r in REDUCTIONS
        ),
        *(Case((LOGS, SOME), {"reduction": r}) for r in REDUCTIONS),
        *(Case((LOGS, ALL), {"reduction": r}) for r in REDUCTIONS),
        Case((LOGITS[3], NUMBERS[3] * 0 + 7), {"ignore_index": 7}),
        Case((LOGS, LABELS), {"ignore_index": 1}),
        Case((LOGS, LABELS), {"ignore_index": -1, **SUM}),
        Case((LOGS[0], LABEL)),
        Case((LOGS[0], LABEL), NONE),
        Case((LOGS[0], LABEL), {"ignore_index": 2}),
        *(Case(NOTHING, {"reduction": r}) for r in REDUCTIONS),
        Case((np.zeros((2, 4, 0)), np.zeros((2, 0), int)), SUM),
        Case((np.array([[-INF, 0, 1], [-INF, NAN, 1]]), np.array([0, 2])), NONE),
        Case((LOGS, LABELS.astype(np.uint8))),
    ],
    "linear_cross_entropy": [
        Case((INPUT, LAYER, SOME), {"linear_bias": BIAS, "label_smoothing": 0.1}),
        *(Case((INPUT, LAYER, LABELS), {"reduction": r}) for r in REDUCTIONS),
        Case((INPUT, LAYER, SHARE)),
        Case((INPUT, LAYER, SHARE), {"weight": WEIGHT, "linear_bias": BIAS}),
        Case((INPUT, LAYER, LABELS), {"ignore_index": 1}),
        Case((INPUT[0], LAYER, LABEL), {"linear_bias": BIAS}),
        Case((INPUT[0], LAYER, SHARE[0])),
        Case((INPUT, DEEP, RNG.integers(0, 4, (5, 2))), {"linear_bias": RNG.normal(size=(4, 2))}),
        Case((INPUT, DEEP, np.exp(log_softmax(RNG.normal(size=(5, 4, 2))))), SUM),
        Case((np.zeros((0, 3)), LAYER, np.zeros(0, int)), SUM),
    ],
    "multi_margin_loss": [
        Case((X, LABELS), {"p": 2, "margin": 0.7}),
        *(Case((X, LABELS), {"reduction": r}) for r in REDUCTIONS),
        Case((X, LABELS, 2, 1.5), NONE),
        Case((X, LABELS), {"margin": -1.0}),
        Case((np.array([[1.0, 0, 2], [1, 1, 1], [0, -INF, INF]]), np.array([0, 1, 0])), NONE),
        Case((np.array([[1, NAN, INF]]), np.array([0]), 2), NONE),
        Case((ROW, LABEL)),
        Case((ROW, LABEL), NONE),
        Case((ROW, LABEL[None]), NONE),
        Case(NOTHING, NONE),
    ],
    "multilabel_margin_loss": [
        Case(
            (
                X,
                np.array(
                    [[0, 2, -1, 1], [3, 3, 1, -1], [-1, 0, 1, 2], [0, 1, 2, 3], [1, -1, -1, -1]]
                ),
            )
        ),
        Case((X, RNG.integers(-1, 4, (5, 4))), SUM),
        Case((X, RNG.integers(-1, 4, (5, 4))), NONE),
        Case((np.array([[1.0, 0, 2], [1, 1, 1]]), np.array([[0, -1, 0], [1, 2, -1]])), NONE),
        Case((np.array([[1, NAN, INF]]), np.array([[0, -1, 0]])), NONE),
        Case((ROW, np.array([0, 3, -1, 1]))),
        Case((ROW, np.array([0, 3, -1, 1])), NONE),
        Case((NOTHING[0], NOTHING[0].astype(int)), NONE),
    ],
    "multilabel_soft_margin_loss": [
        Case((X, np.round(SHARE), WEIGHT)),
        *(Case((X, SHARE), {"reduction": r}) for r in REDUCTIONS),
        Case((X, np.round(SHARE).astype(int)), SUM),
        Case((LOGITS[4], SHARES[4]), NONE),
        Case((ROW, SHARE[0], WEIGHT), NONE),
        Case((X, SHARE[0])),
        Case((X, SHARE), {"weight": RNG.uniform(0.5, 2, (5, 1)), **NONE}),
        Case(
            (
                np.array([[INF], [-INF], [INF], [-INF], [800]]),
                np.array([[0], [0], [1], [1], [1.0]]),
            ),
            NONE,
        ),
        Case((np.ones((2, 0)), np.ones((2, 0))), NONE),
        Case((NOTHING[0], NOTHING[0])),
    ],
}

WEIGHTED: dict[str, list[Case]] = {
    "cross_entropy": [
        Case((LOGITS[rank], target), {"weight": WEIGHT, "reduction": r, "label_smoothing": s})
        for rank, target in ((2, SOME), (4, IMAGE), (2, ALL), (3, NUMBERS[3]))
        for r in REDUCTIONS
        for s in (0.0, 0.1)
    ],
    "nll_loss": [
        *(
            Case((LOGITS[rank], target), {"weight": WEIGHT, "reduction": r})
            for rank, target in ((2, SOME), (4, IMAGE), (2, ALL), (3, NUMBERS[3]))
            for r in REDUCTIONS
        ),
        *(Case((ROW, LABEL), {"weight": WEIGHT, "reduction": r}) for r in REDUCTIONS),
        Case(
            (np.array([[-INF, 0, 0, 0], [0, 1, 2, 3]]), np.array([0, 1])),
            {"weight": np.arange(4.0)},
        ),
    ],
    "linear_cross_entropy": [
        Case((INPUT, LAYER, SOME), {"weight": WEIGHT, "reduction": r}) for r in REDUCTIONS
    ],
    "multi_margin_loss": [
        Case((X, LABELS), {"weight": WEIGHT, "p": p, "reduction": r})
        for p in (1, 2)
        for r in REDUCTIONS
    ],
}

WARNED: dict[str, list[Case]] = {
    "cross_entropy": [Case((X, LABELS, None, False)), Case((X, LABELS), {"reduce": False})],
    "nll_loss": [Case((LOGS, LABELS, None, False)), Case((LOGS, LABELS), {"reduce": False})],
    "multi_margin_loss": [
        Case((X, LABELS, 1, 1.0, None, False)),
        Case((X, LABELS), {"reduce": False}),
    ],
    "multilabel_margin_loss": [
        Case((ROW, np.arange(4), False)),
        Case((X, np.zeros((5, 4), int)), {"reduce": False}),
    ],
    "multilabel_soft_margin_loss": [
        Case((X, SHARE, None, False)),
        Case((X, SHARE), {"reduce": False}),
    ],
}

EXACT: dict[str, list[Case]] = {
    "multi_margin_loss": [Case((np.array(0.7), np.array(0)), NONE)],
    "multilabel_margin_loss": [Case((np.array(0.7), np.array(0)), NONE)],
}

OUT = np.array([0, 4, 1, 1, 1])
ERRORS: dict[str, list[Case]] = {
    "cross_entropy": [
        Case((X, OUT)),
        Case((X, -OUT)),
        Case((X, LABELS[:3])),
        Case((LOGITS[4], NUMBERS[4][:, :2])),
        Case((X, LABELS.astype(float))),
        Case((X.astype(int), LABELS)),
        Case((X, SHARE.astype(int))),
        Case((X, LABELS, WEIGHT[:3])),
        Case((X, SHARE), {"ignore_index": 1}),
        Case((X, LABELS), {"label_smoothing": 1.5}),
        Case((X, LABELS), {"reduction": "avg"}),
        Case((np.array(1.0), np.array(0))),
    ],
    "nll_loss": [
        Case((LOGS, OUT)),
        Case((LOGS, LABELS[:3])),
        Case((LOGITS[3], NUMBERS[3][:, :1])),
        Case((LOGS, SHARE)),
        Case((LOGS, LABELS.astype(float))),
        Case((LOGS, LABELS, WEIGHT[:3])),
        Case((LOGS, LABELS), {"reduction": "avg"}),
        Case((np.array(1.0), np.array(0))),
    ],
    "linear_cross_entropy": [
        Case((INPUT, LAYER[:, :2], LABELS)),
        Case((INPUT[None], LAYER, LABELS[None])),
        Case((INPUT, LAYER[0], LABELS)),
        Case((INPUT[0], DEEP, LABEL)),
        Case((INPUT, LAYER, LABELS), {"linear_bias": BIAS[:3]}),
        Case((INPUT, LAYER, SHARE), {"ignore_index": -100}),
        Case((INPUT, LAYER, OUT)),
        Case((INPUT, LAYER, LABELS), {"reduction": "avg"}),
    ],
    "multi_margin_loss": [
        Case((X, OUT)),
        Case((X, LABELS[:3])),
        Case((LOGITS[3], LABELS)),
        Case((X, LABELS), {"p": 3}),
        Case((X, LABELS), {"weight": WEIGHT[:3]}),
        Case((X, LABELS), {"reduction": "avg"}),
    ],
    "multilabel_margin_loss": [
        Case((X, LABELS)),
        Case((X, np.full((5, 4), 4))),
        Case((X, np.full((5, 4), -2))),
        Case((LOGITS[3], NUMBERS[3])),
        Case((X, np.zeros((5, 4), int)), {"reduction": "avg"}),
    ],
    "multilabel_soft_margin_loss": [
        Case((X, SHARE[:, :3])),
        Case((X, SHARE), {"weight": WEIGHT[:3]}),
        Case((np.array(1.0), np.array(1.0))),
        Case((X, SHARE), {"reduction": "avg"}),
    ],
}


def smoothed(x: jax.Array, y: jax.Array, label_smoothing: float) -> jax.Array:
    """The pure form, classes last."""
    kept = y != -100
    labels = jax.nn.one_hot(jnp.where(kept, y, 0), x.shape[1])
    targets = optax.smooth_labels(labels, label_smoothing)
    return jnp.mean(optax.softmax_cross_entropy(jnp.moveaxis(x, 1, -1), targets), where=kept)


def picked(x: jax.Array, y: jax.Array, **_: Any) -> jax.Array:
    """The log-probabilities of the labels, which are all counted."""
    return -jnp.mean(jnp.take_along_axis(x, y[:, None], axis=1))


PORTS: dict[str, Port] = {
    "cross_entropy": Port(
        "kept = y != -100; labels = jax.nn.one_hot(jnp.where(kept, y, 0), C); "
        "jnp.mean(optax.softmax_cross_entropy(jnp.moveaxis(x, 1, -1), "
        "optax.smooth_labels(labels, 0.1)), where=kept)",
        smoothed,
        "jnp.mean(optax.softmax_cross_entropy_with_integer_labels(jnp.moveaxis(x, 1, -1), y))",
        lambda x, y, *_, **__: jnp.mean(
            optax.softmax_cross_entropy_with_integer_labels(
                jnp.moveaxis(x, 1, -1) if x.ndim > 1 else x, y.astype(int)
            )
        ),
        "the classes are axis 1; -100 is ignored; the weighted mean is divided by the weights",
    ),
    "nll_loss": Port(
        "kept = y != -100; picked = jnp.take_along_axis(x, jnp.where(kept, y, 0)[:, None], 1); "
        "-jnp.mean(picked[:, 0], where=kept)",
        lambda x, y: (
            -jnp.mean(
                jnp.take_along_axis(x, jnp.where(y != -100, y, 0)[:, None], 1)[:, 0],
                where=y != -100,
            )
        ),
        "-jnp.mean(jnp.take_along_axis(x, y[:, None], 1))",
        picked,
        "-100 is ignored, and counts in no mean",
    ),
    "linear_cross_entropy": Port(
        "cross_entropy's, of x @ w.T + b",
        lambda x, w, y, linear_bias, label_smoothing: smoothed(
            x @ w.T + linear_bias, y, label_smoothing
        ),
        why="PyTorch's weight is (C, in)",
    ),
    "multi_margin_loss": Port(
        None,
        None,
        "optax.losses.multiclass_hinge_loss(x, y)",
        lambda x, y, *_, **__: jnp.mean(optax.losses.multiclass_hinge_loss(x, y)),
        "PyTorch sums up what lacks over all classes, and divides by their number",
    ),
    "multilabel_margin_loss": Port(None, None, why="JAX and optax have none"),
    "multilabel_soft_margin_loss": Port(
        "jnp.mean(w * optax.sigmoid_binary_cross_entropy(x, y))",
        lambda x, y, w: jnp.mean(w * optax.sigmoid_binary_cross_entropy(x, y)),
        "jnp.mean(jnp.sum(optax.sigmoid_binary_cross_entropy(x, y), -1))",
        lambda x, y, *_, **__: jnp.mean(jnp.sum(optax.sigmoid_binary_cross_entropy(x, y), axis=-1)),
        "over the classes it is a mean too",
    ),
}
