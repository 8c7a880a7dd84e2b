"""torch.nn.functional's random functions: calls, what is refused, and what people write."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from helpers.functional_attention import IN, KEY, OUT, QUERY, VALUE, E, H, N, S, drawn, qkv
from helpers.kit_parity import Case, Port

NAN, INF = float("nan"), float("inf")
X2, X3, X4, X5 = drawn(4, 6), drawn(3, 4, 5), drawn(3, 4, 2, 3), drawn(2, 3, 2, 3, 2)
LARGE = drawn(700)  # more words than a twist gives
ODD = np.array([NAN, INF, -INF, 0.0, -1.0, 2.0] * 3)
ON: dict[str, Any] = {"training": True}


def _heads(p: float, **options: Any) -> Case:
    named: dict[str, Any] = {
        "in_proj_bias": None,
        "bias_k": None,
        "bias_v": None,
        "add_zero_attn": False,
    }
    named |= {"add_zero_attn": False, "dropout_p": p, "out_proj_weight": OUT, "out_proj_bias": None}
    args = (QUERY, KEY, VALUE, E, H, IN)
    return Case(args, named | options, 1e-12)


RANDOM: dict[str, list[Case]] = {
    "dropout": [
        Case((X3, 0.3)),
        Case((X3,)),
        Case((LARGE, 0.9)),
        Case((ODD,)),
        Case((np.array(2.0),)),
        Case((X3[:0],)),
        Case((X3, 0.0)),
        Case((X3, 1.0)),
        Case((ODD, 1)),
        Case((X3, 0.5, False)),
        Case((X3 + 1j * X3, 0.0)),
        Case((np.arange(4), 1.0)),
        Case((np.arange(4), 0.5, False)),
    ],
    "dropout1d": [Case((X3, 0.3)), Case((X2,)), Case((X2, 1.0)), Case((X3, 0.3, False))],
    "dropout2d": [Case((X4, 0.3)), Case((X3,)), Case((X2,)), Case((X5,)), Case((X4, 0.3, False))],
    "dropout3d": [Case((X5, 0.3)), Case((X4,)), Case((X3,)), Case((X2,)), Case((X5, 0.3, False))],
    "alpha_dropout": [
        Case((X3, 0.3), ON),
        Case((X3,), ON),
        Case((ODD,), ON),
        Case((X3, 1.0), ON),
        Case((X3,)),
        Case((np.array(2.0),), ON),
    ],
    "feature_alpha_dropout": [
        Case((X3, 0.3), ON),
        Case((X5,), ON),
        Case((X2,), ON),
        Case((X3, 1.0), ON),
        Case((X3,)),
        Case((X2[0],)),
    ],
    "rrelu": [
        Case((X3,), ON),
        Case((X3, -0.5, 2.0), ON),
        Case((ODD,), ON),
        Case((LARGE,), ON),
        Case((X3, 0.25, 0.25 + 1e-7), ON),
        Case((X3,)),
        Case((-np.abs(X3),), ON),
        Case((np.abs(X3),), ON),
        Case((X3[:0],), ON),
        Case((np.array(-2.0),), ON),
    ],
    "gumbel_softmax": [
        Case((X3,)),
        Case((X3, 0.5, True)),
        Case((LARGE[:100], 2.0), {"dim": 0}),
        Case((X3, -1.0, True, 1e-10, 1)),
        Case((np.array(2.0),)),
        Case((np.array(2.0), 1, True)),
        Case((X3[:, :0],), {"dim": 1}),
        Case((X3[:0],), {"hard": True}),
    ],
    "scaled_dot_product_attention": [
        Case((*qkv(2, 3), None, 0.3), main=1e-12),
        Case((*qkv(2, 3), drawn(4, 5) > 0, 0.5), main=1e-12),
        Case((*qkv(2), drawn(2, 4, 5)), {"dropout_p": 0.3}, 1e-12),
        Case(qkv(), {"dropout_p": 0.3}, 1e-12),
        Case((*qkv(2, 3), None, 0.3, True), main=1e-12),
        Case((*qkv(2, 3), None, 1.0), main=1e-12),
        Case((drawn(3, 1, 2, 4), drawn(2, 5, 4), drawn(5, 4), None, 0.3), main=1e-12),
        Case((drawn(2, 4), drawn(5, 4), drawn(3, 5, 4), None, 0.3), main=1e-12),
        Case(
            (drawn(2, 4, 3, 5), drawn(2, 2, 4, 5), drawn(2, 2, 4, 5)),
            {"enable_gqa": True, "dropout_p": 0.3},
            1e-12,
        ),
    ],
    "multi_head_attention_forward": [
        _heads(0.3),
        _heads(0.3, need_weights=False),
        _heads(0.3, average_attn_weights=False, add_zero_attn=True),
        _heads(0.3, need_weights=False, attn_mask=drawn(N * H, len(QUERY), S)),
        _heads(0.3, training=False),
        _heads(1.0),
        _heads(2.0, training=False),
    ],
}  # fmt: skip

_WRONG_P = [Case((X4, p)) for p in (-0.1, 1.5, NAN)] + [Case((X4, 1.5, False))]
_WHOLE = Case((np.arange(24).reshape(2, 3, 2, 2), 0.5, True))
ERRORS: dict[str, list[Case]] = {
    "dropout": [*_WRONG_P, _WHOLE, Case((X3 + 1j, 0.5)), Case((X3 > 0, 0.5)), Case((X3, "much"))],
    "dropout1d": [Case((X2[0],)), Case((X4,)), Case((X3, 2.0)), Case((X4, 0.5, False))],
    "dropout2d": [*_WRONG_P, _WHOLE],
    "dropout3d": [*_WRONG_P, _WHOLE],
    "alpha_dropout": [*_WRONG_P, _WHOLE, Case((X3 + 1j, 0.5, True))],
    "feature_alpha_dropout": [*_WRONG_P, _WHOLE, Case((X2[0],), ON)],
    "rrelu": [
        Case((np.arange(3),), ON),
        Case((X3, 0.5, 0.25), ON),
        Case((X3, 0.5, 0.25)),
        Case((X3, 0.5, INF), ON),
        Case((X3, NAN, 0.5), ON),
    ],
    "gumbel_softmax": [
        Case((np.arange(3),)),
        Case((X3,), {"dim": 3}),
        Case((X3,), {"dim": None}),
        Case((X3[:, :0],), {"dim": 1, "hard": True}),
        Case((X3 + 1j,)),
    ],
}

_OWN = "other numbers from the same seed"
PORTS: dict[str, Port] = {
    "dropout": Port(None, None, "nnx.Dropout(p)(x)", None, _OWN),
    "dropout1d": Port(None, None, "nnx.Dropout(p, broadcast_dims=(2,))(x)", None, _OWN),
    "dropout2d": Port(None, None, "nnx.Dropout(p, broadcast_dims=(2, 3))(x)", None, _OWN),
    "dropout3d": Port(None, None, "nnx.Dropout(p, broadcast_dims=(2, 3, 4))(x)", None, _OWN),
    "alpha_dropout": Port(None, None, "nnx.Dropout(p)(x)", None, "zeros, and another mean"),
    "feature_alpha_dropout": Port(None, None),
    "rrelu": Port(
        None, None, "jax.random.uniform(key, x.shape, ...) * x", None, "a draw for each x"
    ),
    "gumbel_softmax": Port(
        None, None, "softmax((x + jax.random.gumbel(key, x.shape)) / tau)", None, _OWN
    ),
}  # fmt: skip


def _naive_dropout(x: Any, p: float = 0.5, *rest: Any, generator: Any) -> jax.Array:
    """The mask is that of what is dropped."""
    return jnp.where(generator.bernoulli(x.shape, p), 0, x / (1 - p))


def _every_place(x: Any, p: float = 0.5, *rest: Any, generator: Any) -> jax.Array:
    return x * generator.bernoulli(x.shape, 1 - p) / (1 - p)


def _unscaled(x: Any, p: float = 0.5, training: bool = False, *, generator: Any) -> jax.Array:
    return x * generator.bernoulli(x.shape, 1 - p) / (1 - p) if training else x


def _for_each(
    x: Any, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, *, generator: Any
) -> jax.Array:
    return jnp.where(x <= 0, x * generator.uniform(x.shape, lower, upper), x)


def _shared_heads(q: Any, k: Any, v: Any, *rest: Any, generator: Any, **options: Any) -> Any:
    """One mask for all samples and heads."""
    mask = generator.bernoulli((q.shape[-2], k.shape[-2]), 0.7) / 0.7
    return (jax.nn.softmax(q @ jnp.swapaxes(k, -1, -2) / q.shape[-1] ** 0.5) * mask) @ v


NAIVE: dict[str, list[Callable[..., Any]]] = {
    "dropout": [_naive_dropout],
    "dropout1d": [_every_place],
    "dropout2d": [_every_place],
    "alpha_dropout": [_unscaled],
    "rrelu": [_for_each],
    "scaled_dot_product_attention": [_shared_heads],
}
"""Ports that one of the cases shows not to be it."""
