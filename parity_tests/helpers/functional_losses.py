"""torch.nn.functional's losses entry by entry: calls of each, what is refused, what JAX has for it.

WEIGHTED has those whose weights PyTorch does not derive, WARNED those of which it warns, EXACT
those that cannot be moved by an eps: without an axis, integers, probabilities of 1;
nn/test_loss_calls.py runs them.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from helpers.kit_parity import Case, Port

RNG = np.random.default_rng(11)
NAN, INF = np.nan, np.inf

X, Y = RNG.normal(size=(2, 3, 4))
TIED = np.where(RNG.random((3, 4)) < 0.4, X, Y)
WEIGHT = RNG.uniform(0.2, 2, (3, 4))
P, Q = RNG.uniform(0.05, 0.95, (2, 3, 4))
LOGS = np.log(P)
COUNTS = RNG.integers(0, 6, (3, 4)).astype(float)
VAR = RNG.uniform(0.3, 2, (3, 4))
EMPTY = np.zeros((0, 3))
ODD = np.array([0.0, 0.5, -0.5, INF, -INF, NAN, 2.0, -2.0])
NONE = {"reduction": "none"}
SUM = {"reduction": "sum"}
SCALAR, OTHER = np.array(0.7), np.array(0.3)

CASES: dict[str, list[Case]] = {
    "mse_loss": [
        Case((X, Y), {"weight": WEIGHT}),
        Case((X, Y)),
        Case((X, TIED), SUM),
        Case((X, TIED), NONE),
        Case((X, Y), {"weight": WEIGHT, **SUM}),
        Case((X, Y), {"weight": WEIGHT, **NONE}),
        Case((X, Y, None, None, "sum")),
        Case((ODD, np.zeros(8)), NONE),
        Case((EMPTY, EMPTY)),
        Case((EMPTY, EMPTY), SUM),
        Case((EMPTY, EMPTY), NONE),
    ],
    "l1_loss": [
        Case((X, TIED)),
        Case((X, TIED), SUM),
        Case((X, TIED), NONE),
        Case((X, TIED), {"weight": WEIGHT}),
        Case((X, TIED), {"weight": WEIGHT, **SUM}),
        Case((X, TIED), {"weight": WEIGHT, **NONE}),
        Case((ODD, np.zeros(8)), NONE),
        Case((X + 1j * Y, TIED + 1j * Y)),
        Case((EMPTY, EMPTY)),
    ],
    "huber_loss": [
        Case((X, TIED), {"delta": 0.4, "weight": WEIGHT}),
        Case((X, TIED)),
        Case((X, TIED, "sum", 0.3)),
        Case((3 * X, TIED), {"delta": 0.3, **NONE}),
        Case((3 * X, TIED), {"weight": WEIGHT, **SUM}),
        Case((ODD, np.zeros(8)), {"delta": 0.5, **NONE}),
        Case((EMPTY, EMPTY)),
    ],
    "smooth_l1_loss": [
        Case((X, TIED), {"beta": 0.4}),
        Case((X, TIED)),
        Case((X, TIED), {"beta": 0.0}),
        Case((3 * X, TIED), SUM),
        Case((3 * X, TIED), {"beta": 0.5, **NONE}),
        Case((ODD, np.zeros(8)), {"beta": 0.5, **NONE}),
        Case((EMPTY, EMPTY)),
    ],
    "binary_cross_entropy": [
        Case((np.array([0, 0, 0.3, 1e-20, 1 - 1e-12]), np.array([0, 0.5, 0.7, 0.3, 0.4])), NONE),
        Case((P, Q)),
        Case((P, Q), SUM),
        Case((P[:, :1], Q[:, :1])),
        Case((EMPTY, EMPTY)),
        Case((EMPTY, EMPTY), NONE),
    ],
    "binary_cross_entropy_with_logits": [
        Case((np.array([[40.0, -40, 0.5], [800, -800, 0]]), P[:2, :3])),
        Case((X, Q), SUM),
        Case((X, np.round(Q)), NONE),
        Case((np.array([INF, -INF, INF, NAN, 3]), np.array([0.0, 0, 1, 1, 1])), NONE),
        Case((X, 2 * Y)),
        Case((EMPTY, EMPTY)),
    ],
    "kl_div": [
        Case((LOGS, np.where(Q < 0.3, 0, Q)), {"reduction": "batchmean"}),
        Case((LOGS, Q), SUM),
        Case((LOGS, Q), NONE),
        Case((LOGS, np.log(Q)), {"log_target": True, **SUM}),
        Case((LOGS, np.log(Q)), {"log_target": True, **NONE}),
        Case((LOGS, Q[:1]), {"reduction": "batchmean"}),
        Case((LOGS[0], Q), {"reduction": "batchmean"}),
        Case((np.array([0, -INF, -1, -1, -INF]), np.array([0, 0, 1, -1, 0.5])), NONE),
        Case(
            (np.array([0, -INF, -1, -1]), np.array([-INF, -INF, 0, 0.5])),
            {"log_target": True, **NONE},
        ),
        Case((EMPTY, EMPTY), SUM),
        Case((EMPTY, EMPTY), {"reduction": "batchmean"}),
    ],
    "poisson_nll_loss": [
        Case((P, COUNTS), {"log_input": False, "full": True}),
        Case((X, COUNTS)),
        Case((X, COUNTS), SUM),
        Case((X, COUNTS), {"full": True, **NONE}),
        Case((P, COUNTS, False, False, None, 0.1)),
        Case((np.array([0, 0, 2, -1, INF]), np.array([0, 1, 2, 1, 2.0]), False), NONE),
        Case((np.array([0, 1, 2, 3, INF]), np.array([0, 1, 2, -1, 2.0]), True, True), NONE),
        Case((X, COUNTS[:1])),
        Case((EMPTY, EMPTY)),
    ],
    "gaussian_nll_loss": [
        Case((X, Y, np.where(VAR < 1, 0, VAR)), {"eps": 1e-3}),
        Case((X, Y, VAR)),
        Case((X, Y, VAR), {"full": True, **SUM}),
        Case((X, Y, VAR[:, 0], True, 0.5), NONE),
        Case((X, Y, VAR[:, :1])),
        Case((X, Y, VAR[:1])),
        Case((X, Y, 0.7)),
        Case((X, Y, 0.0)),
        Case((X, Y[:1], VAR)),
        Case(
            (np.array([0, 1.0, 2, 3]), np.array([1, 1.0, 2, 1]), np.array([0, 1e-8, INF, NAN])),
            NONE,
        ),
        Case((EMPTY, EMPTY, EMPTY)),
    ],
}

LEGACY: list[dict[str, Any]] = [
    {"size_average": True},
    {"size_average": False},
    {"size_average": False, "reduce": True},
    {"reduce": False},
    {"reduce": True, "reduction": "none"},
]
WIDE, NARROW = RNG.normal(size=(3, 1)), RNG.normal(size=3)

WARNED: dict[str, list[Case]] = {
    "mse_loss": [
        Case((WIDE, NARROW)),
        Case((NARROW, WIDE), SUM),
        Case((X, X[:1]), {"weight": WEIGHT}),
        *(Case((X, Y), legacy) for legacy in LEGACY),
    ],
    "l1_loss": [
        Case((WIDE, NARROW)),
        Case((X, X[:1]), {"weight": WEIGHT}),
        Case((X, Y, False)),
        *(Case((X, Y), legacy) for legacy in LEGACY),
    ],
    "huber_loss": [Case((WIDE, NARROW), NONE), Case((X, X[:1]), {"weight": WEIGHT})],
    "smooth_l1_loss": [
        Case((WIDE, NARROW), NONE),
        Case((WIDE, NARROW), {"beta": 0.0}),
        Case((X, Y, None, False)),
    ],
    "binary_cross_entropy": [Case((P, Q, None, False)), Case((P, Q), {"reduce": False})],
    "binary_cross_entropy_with_logits": [
        Case((X, Q, None, False)),
        Case((X, Q), {"reduce": False}),
    ],
    "kl_div": [
        Case((LOGS, Q)),
        Case((LOGS, np.log(Q)), {"log_target": True}),
        Case((LOGS, Q), {"size_average": False}),
        Case((LOGS, Q), {"size_average": False, "reduction": "batchmean"}),
        Case((LOGS, Q, None, False)),
        Case((EMPTY, EMPTY)),
    ],
    "poisson_nll_loss": [
        Case((X, COUNTS, True, False, False)),
        Case((X, COUNTS), {"reduce": False}),
    ],
}

EXACT: dict[str, list[Case]] = {
    "mse_loss": [Case((SCALAR, OTHER)), Case((SCALAR, OTHER), NONE)],
    "l1_loss": [
        Case((SCALAR, OTHER)),
        Case((SCALAR, SCALAR), NONE),
        Case((np.array([3, -4]), np.array([1, 1])), NONE),
    ],
    "huber_loss": [Case((SCALAR, OTHER), {"delta": 0.1})],
    "smooth_l1_loss": [Case((SCALAR, OTHER), {"beta": 0.1})],
    "binary_cross_entropy": [
        Case((SCALAR, OTHER)),
        Case((np.array([0, 1, 0, 1, 0.3, 1e-20]), np.array([0, 1, 1, 0, 0.7, 1])), NONE),
        Case((P, np.round(Q))),
    ],
    "binary_cross_entropy_with_logits": [Case((SCALAR, OTHER))],
    "kl_div": [
        Case((np.array(-0.7), OTHER), {"reduction": r}) for r in ("batchmean", "sum", "none")
    ],
    "poisson_nll_loss": [Case((SCALAR, np.array(2.0)), {"full": True})],
    "gaussian_nll_loss": [Case((SCALAR, OTHER, np.array(0.5)))],
}

WEIGHTED: dict[str, list[Case]] = {
    "binary_cross_entropy": [
        Case((P, Q), {"weight": weight, "reduction": reduction})
        for weight in (WEIGHT, WEIGHT[0], WEIGHT[:, :1])
        for reduction in ("mean", "sum", "none")
    ],
    "binary_cross_entropy_with_logits": [
        Case((X, Q), {"weight": weight, "pos_weight": positive, "reduction": reduction})
        for weight, positive in ((WEIGHT, None), (None, WEIGHT[0]), (WEIGHT[:, :1], WEIGHT[1]))
        for reduction in ("mean", "sum", "none")
    ],
}

SHORT = X[:, :3]
ERRORS: dict[str, list[Case]] = {
    "mse_loss": [
        Case((X, Y), {"reduction": "avg"}),
        Case((X, Y), {"weight": WEIGHT[0]}),
        Case((X + 1j, Y)),
    ],
    "l1_loss": [Case((X, Y), {"reduction": "avg"}), Case((X, Y), {"weight": WEIGHT[0]})],
    "huber_loss": [
        Case((X, Y), {"reduction": "avg"}),
        Case((X, Y), {"delta": 0.0}),
        Case((X, Y), {"weight": WEIGHT[0]}),
    ],
    "smooth_l1_loss": [
        Case((X, Y), {"reduction": "avg"}),
        Case((X, Y), {"beta": -1.0}),
        Case((X + 1j, Y)),
    ],
    "binary_cross_entropy": [
        Case((P, Q[:1])),
        Case((P + 1, Q)),
        Case((P * NAN, Q)),
        Case((P, Q - 1)),
        Case((P, np.ones((3, 4), int))),
        Case((P, Q), {"weight": np.ones((2, 3, 4))}),
        Case((P, Q), {"weight": np.ones(3)}),
        Case((P, Q), {"reduction": "batchmean"}),
    ],
    "binary_cross_entropy_with_logits": [
        Case((X, Q[:1])),
        Case((X, np.ones((3, 4), int))),
        Case((X, Q), {"weight": np.ones((2, 3, 4))}),
        Case((X, Q), {"pos_weight": np.ones(3)}),
        Case((X, Q), {"reduction": "avg"}),
    ],
    "kl_div": [Case((LOGS, Q), {"reduction": "avg"}), Case((LOGS, SHORT), SUM)],
    "poisson_nll_loss": [Case((X, COUNTS), {"reduction": "avg"}), Case((X, SHORT))],
    "gaussian_nll_loss": [
        Case((X, Y, -VAR)),
        Case((X, Y, -1.0)),
        Case((X, Y, 1)),
        Case((X, Y, VAR[0])),
        Case((X, Y, VAR[None])),
        Case((X, Y, VAR), {"reduction": "avg"}),
        Case((X, SHORT, VAR)),
    ],
}


def clipped_bce(p: jax.Array, y: jax.Array, reduction: str = "mean") -> jax.Array:
    """As it is ported: with an epsilon."""
    p = jnp.clip(p, 1e-7, 1 - 1e-7)
    each = -(y * jnp.log(p) + (1 - y) * jnp.log(1 - p))
    return each if reduction == "none" else jnp.mean(each)


PORTS: dict[str, Port] = {
    "mse_loss": Port(
        "jnp.sum(w * optax.squared_error(x, y)) / jnp.sum(w)",
        lambda x, y, weight: jnp.sum(weight * optax.squared_error(x, y)) / jnp.sum(weight),
        "jnp.mean(optax.l2_loss(x, y))",
        lambda x, y, *_, **__: jnp.mean(optax.l2_loss(x, y)),
        "optax.l2_loss has a factor 1/2; the weighted mean is divided by the weights' sum",
    ),
    "l1_loss": Port(
        None,
        None,
        "jnp.mean(jnp.abs(x - y))",
        lambda x, y, *_, **__: jnp.mean(jnp.abs(x - y)),
        "the gradient at an exact tie: 0 in PyTorch, 1 of jnp.abs",
    ),
    "huber_loss": Port(
        "jnp.mean(w * optax.huber_loss(x, y, delta=delta))",
        lambda x, y, delta, weight: jnp.mean(weight * optax.huber_loss(x, y, delta=delta)),
        "jnp.sum(w * optax.huber_loss(x, y, delta=delta)) / jnp.sum(w)",
        lambda x, y, delta=1.0, weight=1.0, **_: (
            jnp.sum(weight * optax.huber_loss(x, y, delta=delta)) / jnp.sum(weight)
        ),
        "its weighted mean is over the entries, where that of mse_loss is over the weights",
    ),
    "smooth_l1_loss": Port(
        "jnp.mean(optax.huber_loss(x, y, delta=beta)) / beta",
        lambda x, y, beta: jnp.mean(optax.huber_loss(x, y, delta=beta)) / beta,
        "jnp.mean(optax.huber_loss(x, y, delta=beta))",
        lambda x, y, *_, beta=1.0, **__: jnp.mean(optax.huber_loss(x, y, delta=beta)),
        "beta divides the square, and so all of Huber's loss",
    ),
    "binary_cross_entropy": Port(
        None,
        None,
        "p = jnp.clip(p, 1e-7, 1 - 1e-7); -(y * jnp.log(p) + (1 - y) * jnp.log(1 - p))",
        clipped_bce,
        "PyTorch clamps the logarithms at -100, and its gradient at 0 and 1 is about 1e12",
    ),
    "binary_cross_entropy_with_logits": Port(
        "jnp.mean(optax.sigmoid_binary_cross_entropy(x, y))",
        lambda x, y: jnp.mean(optax.sigmoid_binary_cross_entropy(x, y)),
        "p = jax.nn.sigmoid(x); jnp.mean(-(y * jnp.log(p) + (1 - y) * jnp.log(1 - p)))",
        lambda x, y, reduction="mean": clipped_bce(jax.nn.sigmoid(x), y, reduction),
        "large logits: the sigmoid is 0 or 1 there, and its logarithm is lost",
    ),
    "kl_div": Port(
        None,
        None,
        "jnp.mean(optax.losses.kl_divergence(log_p, q))",
        lambda x, y, **_: jnp.mean(optax.losses.kl_divergence(x, y)),
        "that is batchmean; PyTorch's mean divides by the classes too; the target's gradient at 0",
    ),
    "poisson_nll_loss": Port(
        None,
        None,
        "jnp.mean(jnp.exp(x) - y * x)",
        lambda x, y, *_, **__: jnp.mean(jnp.exp(x) - y * x),
        "input has logarithms unless log_input=False; full adds Stirling's term above 1 alone",
    ),
    "gaussian_nll_loss": Port(
        None,
        None,
        "v = jnp.maximum(v, eps); jnp.mean(0.5 * (jnp.log(v) + (x - y) ** 2 / v))",
        lambda x, y, v, full=False, eps=1e-6, **_: jnp.mean(
            0.5 * (jnp.log(jnp.maximum(v, eps)) + (x - y) ** 2 / jnp.maximum(v, eps))
        ),
        "a variance below eps keeps its gradient in PyTorch, jnp.maximum has none for it",
    ),
}
