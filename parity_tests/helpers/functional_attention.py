"""torch.nn.functional's attention: calls, what is refused, and what JAX and Flax have for it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from helpers.kit_parity import Array, Case, Port

INF, NAN = float("inf"), float("nan")
MAIN = 1e-12  # two matrix products and a softmax between them


def drawn(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def called(*args: Any, **options: Any) -> Case:
    return Case(args, options, MAIN)


def qkv(*batch: int, queries: int = 4, keys: int = 5) -> list[Array]:
    """Queries (..., L, E), keys and values (..., S, E), so many of each."""
    return [
        drawn(*batch, queries, 3),
        drawn(*batch, keys, 3, seed=1),
        drawn(*batch, keys, 3, seed=2),
    ]


TAKES_PART = np.random.default_rng(3).random((4, 5)) < 0.6
TAKES_PART[1] = False
"""A query may look at no key."""
ADDED = np.where(TAKES_PART, drawn(4, 5, seed=4), -INF)
NOT_A_NUMBER = drawn(2, 4, 3)
NOT_A_NUMBER[0, 1, 0] = NAN
SDPA = "scaled_dot_product_attention"
MHA = "multi_head_attention_forward"

E, H, L, S, N = 6, 2, 4, 5, 3
QUERY, KEY, VALUE = drawn(L, N, E), drawn(S, N, E, seed=1), drawn(S, N, E, seed=2)
IN, IN_BIAS = drawn(3 * E, E, seed=3), drawn(3 * E, seed=4)
OUT, OUT_BIAS = drawn(E, E, seed=5), drawn(E, seed=6)
BARRED = ~TAKES_PART
PADDING = np.array([[False] * 5, [False, True, False, True, True], [False] * 4 + [True]])
SEPARATE = {
    "use_separate_proj_weight": True,
    "q_proj_weight": drawn(E, E, seed=7),
    "k_proj_weight": drawn(E, 4, seed=8),
    "v_proj_weight": drawn(E, 5, seed=9),
}
MORE = {"bias_k": drawn(1, 1, E, seed=10), "bias_v": drawn(1, 1, E, seed=11)}


def heads(*inputs: Array, **options: Any) -> Case:
    """A call of multi_head_attention_forward, without dropout unless it is said."""
    query, key, value = inputs or (QUERY, KEY, VALUE)
    names: dict[str, Any] = {
        "embed_dim_to_check": E,
        "num_heads": H,
        "in_proj_weight": IN,
        "in_proj_bias": IN_BIAS,
        "bias_k": None,
        "bias_v": None,
        "add_zero_attn": False,
        "dropout_p": 0.0,
        "out_proj_weight": OUT,
        "out_proj_bias": OUT_BIAS,
    }
    return called(query, key, value, **(names | options))


CASES: dict[str, list[Case]] = {
    SDPA: [
        called(*qkv(2, 3), TAKES_PART, scale=0.7),
        called(*qkv(2, 3)),
        called(*qkv(2), TAKES_PART),
        called(*qkv(), TAKES_PART),
        called(*qkv(2, 3), ADDED),
        called(*qkv(2), ADDED, 0.0, False, scale=-0.5),
        called(*qkv(2), drawn(2, 4, 5)),
        called(*qkv(2, 3), drawn(2, 1, 1, 5) > -0.5),
        called(*qkv(2, 3), is_causal=True),
        called(*qkv(queries=5, keys=3), is_causal=True),
        called(*qkv(2, 2, queries=2), is_causal=True, scale=0.3),
        called(*qkv(), scale=0.0),  # causal and vectorised, PyTorch makes 0 * -inf of it: NaN
        called(drawn(2, 4, 3, 5), drawn(2, 2, 4, 5), drawn(2, 2, 4, 5), enable_gqa=True),
        called(
            drawn(4, 3, 5), drawn(2, 4, 5), drawn(1, 4, 5), is_causal=True, enable_gqa=True
        ),
        called(drawn(3, 1, 2, 4), drawn(2, 5, 4, seed=1), drawn(5, 4, seed=2)),
        called(NOT_A_NUMBER, *qkv(2)[1:], TAKES_PART),
        called(drawn(2, 0, 3), drawn(2, 4, 3), drawn(2, 4, 3)),
        called(drawn(2, 3, 3), drawn(2, 0, 3), drawn(2, 0, 3)),
        called(drawn(2, 0), drawn(3, 0), drawn(3, 2)),
    ],
    MHA: [
        heads(attn_mask=drawn(L, S, seed=12), key_padding_mask=np.where(PADDING, -INF, 0.5)),
        heads(need_weights=False, attn_mask=BARRED),
        heads(attn_mask=BARRED),
        heads(average_attn_weights=False, attn_mask=drawn(N * H, L, S, seed=12)),
        heads(key_padding_mask=PADDING, in_proj_bias=None, out_proj_bias=None),
        heads(key_padding_mask=PADDING, attn_mask=BARRED, need_weights=False),
        heads(QUERY, QUERY, QUERY, is_causal=True, attn_mask=np.triu(np.ones((L, L)), 1) > 0),
        heads(
            QUERY, QUERY, QUERY, is_causal=True, attn_mask=np.zeros((L, L)), need_weights=False
        ),
        heads(is_causal=True, attn_mask=np.zeros((L, S)), need_weights=False, **MORE),
        heads(add_zero_attn=True, attn_mask=BARRED, key_padding_mask=PADDING, **MORE),
        heads(add_zero_attn=True, need_weights=False, training=False, dropout_p=0.5),
        heads(QUERY, drawn(S, N, 4, seed=1), drawn(S, N, 5, seed=2), in_proj_weight=None,
              **SEPARATE),
        heads(QUERY, drawn(S, N, 4, seed=1), drawn(S, N, 5, seed=2), in_proj_weight=None,
              in_proj_bias=None, need_weights=False, **SEPARATE),
        heads(
            static_k=drawn(N * H, 7, E // H, seed=13), static_v=drawn(N * H, 7, E // H, seed=14)
        ),
        heads(QUERY[:, 0], KEY[:, 0], VALUE[:, 0], key_padding_mask=PADDING[1]),
        heads(QUERY[:, 0], KEY[:, 0], VALUE[:, 0], attn_mask=drawn(H, L, S), need_weights=False),
        heads(QUERY[:, 0], KEY[:, 0], VALUE[:, 0], average_attn_weights=False),
    ],
}  # fmt: skip

Q, K, V = qkv(2)
ERRORS: dict[str, list[Case]] = {
    SDPA: [
        called(*qkv(2, 3), None, -0.5),
        called(Q, K, V, TAKES_PART, is_causal=True),
        called(drawn(3), drawn(3), drawn(3)),
        called(Q, K, np.float32(V)),
        called(Q, K, V, TAKES_PART.astype(int)),
        called(Q, drawn(2, 5, 4), V),
        called(Q, K, drawn(2, 4, 3)),
        called(Q, drawn(3, 5, 3), drawn(3, 5, 3)),
        called(Q, K, V, TAKES_PART[:, :4]),
        called(Q[0], K[0], V[0], drawn(3, 4, 5)),
        called(drawn(1, 4, 2, 2), drawn(1, 3, 2, 2), drawn(1, 3, 2, 2), enable_gqa=True),
        called(drawn(1, 4, 2, 2), drawn(1, 2, 2, 2), drawn(1, 2, 2, 2)),
        called(Q[0], K[0], V[0], enable_gqa=True),
        called(Q, K, V, None, 1.5),
    ],
    MHA: [
        heads(dropout_p=1.5),
        heads(QUERY[0, 0], KEY, VALUE),
        heads(QUERY[:, 0], KEY, VALUE),
        heads(key_padding_mask=PADDING[0]),
        heads(key_padding_mask=PADDING[:, :4]),
        heads(key_padding_mask=PADDING.astype(int)),
        heads(attn_mask=BARRED[0]),
        heads(attn_mask=BARRED[:, :4]),
        heads(attn_mask=np.zeros((N, L, S))),
        heads(attn_mask=BARRED.astype(int)),
        heads(is_causal=True),
        heads(embed_dim_to_check=5),
        heads(num_heads=4),
        heads(QUERY, KEY, VALUE[:4]),
        heads(in_proj_weight=None),
        heads(bias_k=MORE["bias_k"]),
        heads(bias_v=MORE["bias_v"]),
        heads(static_k=drawn(N * H, 5, 3), static_v=drawn(N * H, 5, 3), **MORE),
        heads(static_k=drawn(N, 5, 3)),
        heads(static_v=drawn(N * H, 5, 2)),
        heads(use_separate_proj_weight=True),
        heads(QUERY, KEY, VALUE, **SEPARATE),
    ],
}


def _dot_product_attention(
    query: Any, key: Any, value: Any, mask: Any = None, *_: Any, is_causal: bool = False,
    scale: float | None = None, **__: Any,
) -> Any:  # fmt: skip
    """JAX's, the heads behind."""
    q, k, v = (jnp.swapaxes(array, -3, -2) for array in (query, key, value))
    bias = None if mask is None or mask.dtype == bool else mask[None, None]
    mask = None if mask is None or bias is not None else mask[None, None]
    found = jax.nn.dot_product_attention(q, k, v, bias, mask, scale=scale, is_causal=is_causal)
    return jnp.swapaxes(found, -3, -2)


def _flipped_mask(*args: Any, **options: Any) -> Any:
    """With a mask of True for keys that take part, as Flax has it."""
    from twinstep.jax.nn.functional import multi_head_attention_forward

    mask = options.get("attn_mask")
    if mask is not None and mask.dtype == bool:
        options["attn_mask"] = ~mask
    return multi_head_attention_forward(*args, **options)


PORTS: dict[str, Port] = {
    SDPA: Port(
        None,
        None,
        "jax.nn.dot_product_attention(q, k, v, mask=mask), heads behind",
        _dot_product_attention,
        "JAX's softmax is of float32 in float64 too, and its mean over all keys where none takes "
        "part, which PyTorch makes 0",
    ),
    MHA: Port(
        None,
        None,
        "nnx.MultiHeadAttention(H, E, rngs=rngs)(query, key, value, mask=attn_mask)",
        _flipped_mask,
        "Flax's mask is True for keys that take part, this one for keys that are barred; its "
        "softmax is of float32 in float64 too",
    ),
}
