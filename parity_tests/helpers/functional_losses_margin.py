"""torch.nn.functional's losses of a margin and its distances: calls, refusals, what JAX has.

WARNED and EXACT as in functional_losses.py.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from helpers.kit_parity import Case, Port

RNG = np.random.default_rng(12)
NAN, INF = np.nan, np.inf

X, Y, Z = RNG.normal(size=(3, 4, 5))
SIGNS = np.where(RNG.random((4, 5)) < 0.5, 1, -1)
ROWS = np.array([1, -1, 1, -1])
NONE = {"reduction": "none"}
SUM = {"reduction": "sum"}
EMPTY = np.zeros((0, 5))
SCALAR, ONE = np.array(0.7), np.array(1)
ZEROS = np.zeros((3, 5))
GRID = np.array([[0, 0, 0], [0, 0, 0], [1, -2, 0], [2, 2, -2.0]])
NORMS = [0, 0.5, 1, 1.5, 2, 3.0, INF]
EQUAL = np.array([[0, 0, 0], [1, -2, 0], [2, 2, -2.0]])


def squared(a: Any, b: Any) -> Any:
    """A distance in both frameworks."""
    return ((a - b) ** 2).sum(-1)


CASES: dict[str, list[Case]] = {
    "soft_margin_loss": [
        Case((3 * X, SIGNS), NONE),
        Case((X, SIGNS)),
        Case((X, SIGNS), SUM),
        Case((X, SIGNS[:1])),
        Case((np.array([0, 1000, -1000, INF, -INF, 40, NAN]), np.ones(7, int)), NONE),
        Case((EMPTY, np.zeros((0, 5), int))),
    ],
    "margin_ranking_loss": [
        Case((np.array([1, 1, 2, 1.5]), np.array([1, 2, 1.0, 1]), ROWS, 0.5), NONE),
        Case((X, Y, SIGNS)),
        Case((X, Y, SIGNS.astype(float), 0.3), SUM),
        Case((X[:, :1], Y[:1], SIGNS)),
        Case((np.array([NAN, INF, -INF]), np.ones(3), np.ones(3, int)), NONE),
        Case((EMPTY, EMPTY, EMPTY)),
    ],
    "hinge_embedding_loss": [
        Case((np.array([1, 1, 2, 0.5, 0.5, 3]), np.array([1, -1, -1, -1, 0, 2])), NONE),
        Case((X, SIGNS)),
        Case((X, SIGNS.astype(float), 0.4), SUM),
        Case((X[:, :1], SIGNS[:1])),
        Case((np.array([NAN, INF, -INF, -INF]), np.array([-1, -1, -1, 1])), NONE),
        Case((EMPTY, EMPTY)),
    ],
    "cosine_embedding_loss": [
        Case((np.concatenate([X, ZEROS[:1]]), np.ones((5, 5)), np.array([1, -1, 0, -1, 1]), 0.1)),
        Case((X, Y, ROWS)),
        Case((X, Y, ROWS.astype(float)), SUM),
        Case((X, Y, ROWS, -0.3), NONE),
        Case((X, Y[:1], ROWS)),
        Case((X, Y, ROWS[:1]), NONE),
        Case((X[0], Y[0], ONE)),
        Case((X[0], Y[0], np.array(-1)), NONE),
        Case((EMPTY, EMPTY, np.zeros(0, int))),
    ],
    "triplet_margin_loss": [
        Case((X, Y, Z, 1.5, 1.5, 1e-3, True)),
        Case((X, Y, Z)),
        Case((X, Y, Z), {"p": 1, **SUM}),
        Case((X, Y, Z), {"p": INF, "margin": 0.5, **NONE}),
        Case((X, Y, Y), {"swap": True, **NONE}),
        Case((ZEROS, ZEROS, ZEROS), {"eps": 0.0, "swap": True, **NONE}),
        Case((X[0], Y[0], Z[0])),
        Case((X, Y[:1], Z)),
        Case((X + 9, Y + 9, 50 * Z), NONE),
        Case((EMPTY, EMPTY, EMPTY)),
    ],
    "triplet_margin_with_distance_loss": [
        Case((X, Y, Z), {"distance_function": squared, "swap": True, "margin": 4.0}),
        Case((X, Y, Z)),
        Case((X, Y, Z), {"swap": True, **SUM}),
        Case((X, Y, Z), {"distance_function": squared, **NONE}),
        Case((X[0], Y[0], Z[0])),
    ],
    "pairwise_distance": [
        Case((X, Y, 1.5, 0.1)),
        Case((X, Y)),
        Case((X, X), {"eps": 0.0}),
        Case((X, Y), {"keepdim": True}),
        Case((X, Y[0])),
        Case((X[0], Y[0])),
        Case((X[0], Y[0]), {"keepdim": True}),
        Case((X[None], Y)),
        *(Case((EQUAL, np.zeros((3, 3)), p, 0.0)) for p in (*NORMS, -1.0, -2.0, -INF)),
        Case((np.zeros((2, 0)), np.zeros((2, 0)))),
        Case((EMPTY, EMPTY)),
    ],
    "cosine_similarity": [
        Case((np.concatenate([X, ZEROS[:1]]), np.ones((5, 5))), {"eps": 1e-3}),
        Case((X, Y)),
        Case((X, Y, 0)),
        Case((X, Y), {"dim": -1, "eps": 3.0}),
        Case((X[:, :1], Y, 0)),
        Case((X[None], Y, 2)),
        Case((X[0], Y[0], 0)),
        Case((np.array([[0, 0], [1e-9, 0], [1, 2]]), np.array([[1, 2], [1, 2], [0, 0.0]]))),
        Case((X, np.ones((4, 5), int))),
        Case((EMPTY, EMPTY)),
    ],
    "pdist": [
        Case((GRID, INF)),
        *(Case((GRID, p)) for p in NORMS),
        Case((X,)),
        Case((RNG.normal(size=(6, 9)), 0.7)),
        Case((RNG.normal(size=(6, 9)), 2.5)),
        Case((X[:1],)),
        Case((np.zeros((3, 0)),)),
    ],
}

WARNED: dict[str, list[Case]] = {
    "soft_margin_loss": [Case((X, SIGNS, False)), Case((X, SIGNS), {"reduce": False})],
    "margin_ranking_loss": [
        Case((X, Y, SIGNS, 0.1, False)),
        Case((X, Y, SIGNS), {"reduce": False}),
    ],
    "hinge_embedding_loss": [Case((X, SIGNS, 1.0, False)), Case((X, SIGNS), {"reduce": False})],
    "cosine_embedding_loss": [
        Case((X, Y, ROWS, 0.1, False)),
        Case((X, Y, ROWS), {"reduce": False}),
    ],
    "triplet_margin_loss": [
        Case((X, Y, Z, 1.0, 2, 1e-6, False, False)),
        Case((X, Y, Z), {"reduce": False}),
    ],
}

EXACT: dict[str, list[Case]] = {
    "soft_margin_loss": [Case((SCALAR, ONE))],
    "margin_ranking_loss": [Case((SCALAR, np.array(0.9), ONE))],
    "hinge_embedding_loss": [Case((SCALAR, np.array(-1)))],
    "pairwise_distance": [Case((SCALAR, np.array(0.2)))],
    "cosine_similarity": [Case((SCALAR, np.array(0.2), 0))],
    "triplet_margin_loss": [Case((SCALAR, np.array(0.2), np.array(0.9)))],
}

SHORT = X[:, :3]
ERRORS: dict[str, list[Case]] = {
    "soft_margin_loss": [
        Case((X, SHORT)),
        Case((X[0], SIGNS)),
        Case((X, SIGNS), {"reduction": "avg"}),
    ],
    "margin_ranking_loss": [
        Case((X, Y, ROWS)),
        Case((X, SHORT, SIGNS)),
        Case((X, Y, SIGNS), {"reduction": "avg"}),
    ],
    "hinge_embedding_loss": [Case((X, SHORT)), Case((X, SIGNS), {"reduction": "avg"})],
    "cosine_embedding_loss": [
        Case((X, Y, SIGNS)),
        Case((X[0], Y[0], ROWS)),
        Case((X, Y, ONE)),
        Case((X, Y[0], ROWS)),
        Case((X, SHORT, ROWS)),
        Case((X, Y, ROWS[:3])),
        Case((X, Y, ROWS), {"reduction": "avg"}),
    ],
    "triplet_margin_loss": [
        Case((X, Y, Z[0])),
        Case((X, Y, SHORT)),
        Case((X, Y, Z), {"margin": 0.0}),
        Case((X, Y, Z), {"reduction": "avg"}),
    ],
    "triplet_margin_with_distance_loss": [
        Case((X, Y, Z[0])),
        Case((X, Y, SHORT)),
        Case((X, Y, Z), {"margin": -1.0, "distance_function": squared}),
        Case((X, Y, Z), {"reduction": "avg"}),
    ],
    "pairwise_distance": [Case((X, SHORT)), Case((np.zeros((2, 0)), np.zeros((2, 0)), INF))],
    "cosine_similarity": [
        Case((X, SHORT)),
        Case((X, Y, 2)),
        Case((X[0], Y[0])),
        Case((SIGNS, SIGNS)),
    ],
    "pdist": [Case((X[0],)), Case((X[None],)), Case((SIGNS,)), Case((X, -1.0))],
}


def plain_cosine(x: jax.Array, y: jax.Array, dim: int = 1, eps: float = 1e-8) -> jax.Array:
    """As it is ported: an epsilon beside the norms."""
    norms = jnp.linalg.norm(x, axis=dim) * jnp.linalg.norm(y, axis=dim)
    return jnp.sum(x * y, axis=dim) / (norms + eps)


PORTS: dict[str, Port] = {
    "soft_margin_loss": Port(
        "jnp.log1p(jnp.exp(-x * y))",
        lambda x, y, **_: jnp.log1p(jnp.exp(-x * y)),
        "jnp.mean(optax.sigmoid_binary_cross_entropy(x, y))",
        lambda x, y, *_, **__: jnp.mean(optax.sigmoid_binary_cross_entropy(x, y)),
        "targets are 1 and -1; jax.nn.softplus(-x * y) is finite where PyTorch's is not",
    ),
    "margin_ranking_loss": Port(
        None,
        None,
        "jnp.mean(jnp.maximum(-y * (x1 - x2) + margin, 0))",
        lambda x1, x2, y, margin=0, **_: jnp.mean(jnp.maximum(-y * (x1 - x2) + margin, 0)),
        "the gradient at exactly the margin: 1 in PyTorch, 1/2 of jnp.maximum",
    ),
    "hinge_embedding_loss": Port(
        None,
        None,
        "jnp.mean(optax.hinge_loss(x, y))",
        lambda x, y, *_, **__: jnp.mean(optax.hinge_loss(x, y)),
        "optax.hinge_loss is max(0, 1 - x y), another loss",
    ),
    "cosine_embedding_loss": Port(
        None,
        None,
        "c = optax.losses.cosine_similarity(x1, x2); "
        "jnp.mean(jnp.where(y == 1, 1 - c, jnp.maximum(c - margin, 0)))",
        lambda x1, x2, y, margin=0.0, **_: jnp.mean(
            jnp.where(
                y == 1,
                1 - optax.losses.cosine_similarity(x1, x2),
                jnp.maximum(optax.losses.cosine_similarity(x1, x2) - margin, 0),
            )
        ),
        "1e-12 is added to each squared norm; a vector of zeros has a gradient",
    ),
    "triplet_margin_loss": Port(
        None,
        None,
        "jnp.mean(optax.losses.triplet_margin_loss(a, p, n))",
        lambda a, p, n, margin=1.0, norm=2, eps=1e-6, *_, **__: jnp.mean(
            optax.losses.triplet_margin_loss(a, p, n, margin=margin, norm_degree=norm, eps=eps)
        ),
        "eps is added to each difference, in optax to the sum of powers",
    ),
    "triplet_margin_with_distance_loss": Port(
        None,
        None,
        "jnp.mean(jnp.maximum(margin + f(a, p) - f(a, n), 0))",
        lambda a, p, n, distance_function=squared, margin=1.0, **_: jnp.mean(
            jnp.maximum(margin + distance_function(a, p) - distance_function(a, n), 0)
        ),
        "swap: the negative's distance from the positive, where that is smaller",
    ),
    "pairwise_distance": Port(
        "jnp.linalg.norm(x - y + eps, p, axis=-1)",
        lambda x, y, p, eps: jnp.linalg.norm(x - y + eps, p, axis=-1),
        "jnp.linalg.norm(x - y, axis=-1)",
        lambda x, y, *_, **__: jnp.linalg.norm(x - y, axis=-1),
        "1e-6 is added to each difference; the gradient at a norm of 0 is 0, NaN in JAX",
    ),
    "cosine_similarity": Port(
        None,
        None,
        "jnp.sum(x * y, 1) / (jnp.linalg.norm(x, axis=1) * jnp.linalg.norm(y, axis=1) + eps)",
        plain_cosine,
        "each norm is at least eps; nothing is added",
    ),
    "pdist": Port(
        None,
        None,
        "i, j = jnp.triu_indices(len(x), 1); jnp.linalg.norm(x[i] - x[j], p, axis=-1)",
        lambda x, p=2: jnp.linalg.norm(
            x[jnp.triu_indices(len(x), 1)[0]] - x[jnp.triu_indices(len(x), 1)[1]], p, axis=-1
        ),
        "equal rows: the gradient is 0, NaN in JAX; of an infinite norm each tie has all of it",
    ),
}
