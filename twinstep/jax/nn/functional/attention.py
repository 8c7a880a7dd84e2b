"""torch.nn.functional's attention.

Letters: N samples, H heads, L queries, S keys, E embedding's size.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn.functional.dropouts import dropped
from twinstep.jax.nn.functional.linear_maps import linear
from twinstep.jax.nn.functional.taking_in import floats, value_of, wide

__all__ = ["multi_head_attention_forward", "scaled_dot_product_attention"]


def scaled_dot_product_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    attn_mask: jax.Array | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
    generator: Any = None,
    dropout_key: Any = None,
) -> jax.Array:
    """softmax(scale Q K^T + mask) V; jax.nn.dot_product_attention has heads behind, and float32.

    A query that may look at no key gets 0, and no gradient.

    Args:
        query: (..., L, E), (..., H, L, E) with enable_gqa.
        key, value: (..., S, E) and (..., S, V).
        attn_mask: What is repeated to (..., L, S): True for keys that take part; or floats, which
            are added.
        dropout_p: With which probability each weight is made 0; in evaluation too, as in PyTorch.
        is_causal: Whether query i sees keys 0 to i alone; not with a mask.
        scale: None: 1 / sqrt(E).
        enable_gqa: Whether keys and values have fewer heads, each for H / heads queries' ones.
        generator: What draws for dropout: a layer's, a Generator or a TorchGenerator; None: the
            default one.
        dropout_key: A key of JAX's in its place.

    Returns:
        The values' means, (..., L, V).

    Raises:
        InputError: For shapes that do not fit, a mask beside is_causal, no probability, no floats,
            two dtypes; for a generator see `dropout`.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import scaled_dot_product_attention
        >>> q, k, v = jnp.ones((1, 2)), jnp.ones((2, 2)), jnp.array([[1.0], [3.0]])
        >>> scaled_dot_product_attention(q, k, v).tolist()
        [[2.0]]
        >>> scaled_dot_product_attention(q, k, v, jnp.array([True, False])).tolist()
        [[1.0]]

    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html
    """
    name = "scaled_dot_product_attention"
    q, k, v = floats(name, query=query, key=key, value=value)
    dtype, mask = q.dtype, value_of(attn_mask)
    if min(q.ndim, k.ndim, v.ndim) < 2:
        raise _misfit(name, q, k, v)
    if is_causal and mask is not None:
        raise InputError(f"{name}: is_causal is True, expected False with an attn_mask")
    if enable_gqa:
        k, v = (_repeated(name, q, array) for array in (k, v))
    try:
        batch = jnp.broadcast_shapes(*(array.shape[:-2] for array in (q, k, v)))
    except ValueError:
        raise _misfit(name, q, k, v) from None
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise _misfit(name, q, k, v)
    shape = (*batch, q.shape[-2], k.shape[-2])
    if is_causal:
        mask = jnp.tril(jnp.ones(shape[-2:], bool))
    if mask is not None:
        _check_mask(name, mask, shape, dtype)
    q, k, v = wide(q), wide(k), wide(v)
    each = 1 / math.sqrt(max(q.shape[-1], 1)) if scale is None else scale
    scores = jnp.matmul(q * each, jnp.swapaxes(k, -1, -2))
    if mask is not None and mask.dtype == bool:
        mask = jnp.where(mask, 0, -jnp.inf)  # added, as in PyTorch: NaN stays NaN
    if mask is not None:
        scores = scores + mask
    share = _safe_softmax(scores)
    share = _dropped(name, share, dropout_p, generator, dropout_key)
    return jnp.matmul(share, v).astype(dtype)


def multi_head_attention_forward(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: jax.Array | None,
    in_proj_bias: jax.Array | None,
    bias_k: jax.Array | None,
    bias_v: jax.Array | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: jax.Array,
    out_proj_bias: jax.Array | None,
    training: bool = True,
    key_padding_mask: jax.Array | None = None,
    need_weights: bool = True,
    attn_mask: jax.Array | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: jax.Array | None = None,
    k_proj_weight: jax.Array | None = None,
    v_proj_weight: jax.Array | None = None,
    static_k: jax.Array | None = None,
    static_v: jax.Array | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
    *,
    generator: Any = None,
    dropout_key: Any = None,
) -> tuple[jax.Array, jax.Array | None]:
    """Attention of several heads between projections; True in a mask bars a key, not so in Flax.

    A query that may look at no key gives NaN with need_weights, else the output's bias.

    Args:
        query: (L, N, E), or (L, E).
        key, value: (S, N, E), or (S, E); with use_separate_proj_weight of sizes of their own.
        embed_dim_to_check: E.
        num_heads: H, by which E is divided.
        in_proj_weight, in_proj_bias: Of queries, keys and values, (3 E, E) and (3 E,).
        bias_k, bias_v: A key and a value more, (1, 1, E).
        add_zero_attn: Whether a key and a value of 0 are added.
        dropout_p: With which probability each weight is made 0 in training.
        out_proj_weight, out_proj_bias: (E, E) and (E,).
        training: Whether dropout is.
        key_padding_mask: Keys that are barred, (N, S) or (S,): True, or floats that are added.
        need_weights: Whether the weights are given too.
        attn_mask: What is barred, (L, S) or (N H, L, S): True, or floats that are added.
        use_separate_proj_weight: Whether the next three are taken for in_proj_weight.
        q_proj_weight, k_proj_weight, v_proj_weight: (E, E), (E, key's), (E, value's).
        static_k, static_v: Keys and values in place of the projected ones, (N H, S, E / H).
        average_attn_weights: Whether the weights are the heads' mean.
        is_causal: That attn_mask is the causal one; without weights and padding it is made.
        generator, dropout_key: See `scaled_dot_product_attention`.

    Returns:
        The outputs, of the query's shape; and the weights, (N, L, S), (N, H, L, S) if not
        averaged, without N as the query; or None.

    Raises:
        InputError: For shapes that do not fit, is_causal without attn_mask, no probability.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import multi_head_attention_forward
        >>> x, eye = jnp.array([[1.0, 0.0], [1.0, 2.0]]), jnp.eye(2)
        >>> outputs, weights = multi_head_attention_forward(
        ...     x, x, x, 2, 1, jnp.tile(eye, (3, 1)), None, None, None, False, 0.0, eye, None,
        ...     attn_mask=jnp.array([[False, True], [True, False]]),
        ... )
        >>> weights.tolist()
        [[1.0, 0.0], [0.0, 1.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MultiheadAttention.html
    """
    name = "multi_head_attention_forward"
    query, key, value = floats(name, query=query, key=key, value=value)
    batched = query.ndim == 3
    masks = {"key_padding_mask": value_of(key_padding_mask), "attn_mask": value_of(attn_mask)}
    _check_heads(name, query, key, value, embed_dim_to_check, num_heads, masks)
    if is_causal and attn_mask is None:
        raise InputError(f"{name}: attn_mask is None, expected the causal one with is_causal")
    padding, mask = (_added(name, k, m, query.dtype) for k, m in masks.items())
    if not batched:
        query, key, value = (array[:, None] for array in (query, key, value))
        padding = None if padding is None else padding[None]
    length, samples, size = query.shape
    if (key.shape[1], value.shape[1]) != (samples, samples):
        raise InputError(
            f"{name}: query, key, value are of shapes {query.shape}, {key.shape}, {value.shape}, "
            "expected as many samples of each, axis 1"
        )
    if causal := is_causal and padding is None and not need_weights:
        mask = None
    if use_separate_proj_weight:
        weights: Any = [q_proj_weight, k_proj_weight, v_proj_weight]
        if key.shape[:2] != value.shape[:2] or any(w is None for w in weights):
            raise InputError(
                f"{name}: key is of shape {key.shape} and value of {value.shape}, expected (S, N, "
                "...) of both, and all of q_proj_weight, k_proj_weight and v_proj_weight"
            )
    else:
        _check_shape(name, "value", value, key.shape)
        _check_shape(name, "in_proj_weight", in_proj_weight, (3 * size, size))
        weights = jnp.split(value_of(in_proj_weight), 3)
    biases: Any = [None] * 3 if in_proj_bias is None else jnp.split(value_of(in_proj_bias), 3)
    for w, b, array in zip(weights, biases, (query, key, value), strict=True):
        _check_shape(name, "a projection's weight", w, (size, array.shape[2]))
        _check_shape(name, "a projection's bias", b, (size,), none=True)
    q, k, v = map(linear, (query, key, value), weights, biases)
    if (bias_k is None) != (bias_v is None):
        raise InputError(f"{name}: bias_k or bias_v is None, expected both or none")
    if bias_k is not None:
        if static_k is not None or static_v is not None:
            raise InputError(f"{name}: static_k or static_v is given, expected None with bias_k")
        k, v = (
            jnp.concatenate([array, jnp.tile(value_of(bias), (1, samples, 1))])
            for array, bias in ((k, bias_k), (v, bias_v))
        )
    heads, each = samples * num_heads, size // num_heads
    q, k, v = (a.reshape(len(a), heads, each).swapaxes(0, 1) for a in (q, k, v))  # (N H, ., E / H)
    for argument, static in {"static_k": static_k, "static_v": static_v}.items():
        if static is not None:
            _check_shape(name, argument, static, (heads, jnp.shape(static)[1], each))
    k = k if static_k is None else value_of(static_k)
    v = v if static_v is None else value_of(static_v)
    if add_zero_attn:
        k, v = (jnp.pad(array, ((0, 0), (0, 1), (0, 0))) for array in (k, v))
    keys, more = k.shape[1], (bias_k is not None) + add_zero_attn
    if mask is not None:
        mask = mask[None] if mask.ndim == 2 else mask
        shapes = [(n, length, keys - more) for n in (1, heads)]
        if mask.shape not in shapes:
            raise InputError(f"{name}: attn_mask is of shape {mask.shape}, expected {shapes}")
        mask = jnp.pad(mask, ((0, 0), (0, 0), (0, more)))
    if padding is not None:
        _check_shape(name, "key_padding_mask", padding, (samples, keys - more))
        padding = jnp.repeat(jnp.pad(padding, ((0, 0), (0, more))), num_heads, 0)[:, None]
        mask = padding if mask is None else mask + padding
    if causal:
        barred = jnp.tril(jnp.ones((length, keys), bool))
        mask = jnp.where(barred, 0, -jnp.inf).astype(q.dtype)[None]
    scores = jnp.matmul(q * math.sqrt(1 / each), k.swapaxes(1, 2))
    scores = scores if mask is None else scores + mask
    share = jax.nn.softmax(scores) if need_weights else _safe_softmax(scores)  # (N H, L, S)
    share = _dropped(name, share, dropout_p if training else 0, generator, dropout_key)
    joined = jnp.matmul(share, v).swapaxes(0, 1).reshape(length, samples, size)
    out = linear(joined, out_proj_weight, out_proj_bias)
    out = out if batched else out[:, 0]
    if not need_weights:
        return out, None
    share = share.reshape(samples, num_heads, length, keys)
    share = jnp.mean(share, 1) if average_attn_weights else share
    return out, share if batched else share[0]


def _safe_softmax(scores: jax.Array) -> jax.Array:
    """Along the last axis; 0 where all are -inf, and no gradient."""
    barred = jnp.all(scores == -jnp.inf, -1, keepdims=True)
    if not scores.size:
        return scores
    return jnp.where(barred, 0, jax.nn.softmax(jnp.where(barred, 0, scores)))


def _dropped(name: str, share: jax.Array, p: float, generator: Any, key: Any) -> jax.Array:
    return dropped(name, share, share.shape, p, True, generator, key, argument="dropout_p")


def _repeated(name: str, query: jax.Array, array: jax.Array) -> jax.Array:
    """Keys or values, each for its group of the queries' heads."""
    if min(query.ndim, array.ndim) < 3 or query.shape[-3] % max(array.shape[-3], 1):
        raise InputError(
            f"{name}: query is of shape {query.shape} and key or value of {array.shape}, expected "
            "heads by whose number the query's is divided"
        )
    return jnp.repeat(array, query.shape[-3] // array.shape[-3], -3)


def _misfit(name: str, *arrays: jax.Array) -> InputError:
    shapes = ", ".join(str(array.shape) for array in arrays)
    return InputError(
        f"{name}: query, key, value are of shapes {shapes}, expected (..., L, E), (..., S, E), "
        "(..., S, V)"
    )


def _check_mask(name: str, mask: jax.Array, shape: tuple[int, ...], dtype: Any) -> None:
    if mask.dtype not in (bool, jnp.float32, dtype):
        raise InputError(f"{name}: attn_mask is {mask.dtype}, expected bool or {dtype}")
    behind = shape[len(shape) - mask.ndim :]
    fits = mask.ndim <= len(shape) and all(
        n in (1, m) for n, m in zip(mask.shape, behind, strict=True)
    )
    if not fits:
        raise InputError(
            f"{name}: attn_mask is of shape {mask.shape}, expected one that is repeated to {shape}"
        )


def _check_shape(name: str, argument: str, array: Any, shape: Any, none: bool = False) -> None:
    if array is None and none:
        return
    given = None if array is None else jnp.shape(value_of(array))
    if given != tuple(shape):
        raise InputError(f"{name}: {argument} is of shape {given}, expected {tuple(shape)}")


def _check_heads(
    name: str,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    size: int,
    num_heads: int,
    masks: dict[str, Any],
) -> None:
    axes = query.ndim
    if axes not in (2, 3) or key.ndim != axes or value.ndim != axes:
        raise InputError(
            f"{name}: query, key, value are of shapes {query.shape}, {key.shape}, {value.shape}, "
            "expected (L, N, E), (S, N, E), (S, N, E), or all without N"
        )
    check_arguments(
        name,
        embed_dim_to_check=(size, f"query's {query.shape[-1]}", lambda v: v == query.shape[-1]),
        num_heads=(num_heads, f"a divisor of {size}", lambda v: size % v == 0),
    )
    for (argument, mask), fine in zip(masks.items(), ((axes - 1,), (2, 3)), strict=True):
        if mask is not None and mask.ndim not in fine:
            raise InputError(
                f"{name}: {argument} is of shape {mask.shape}, expected {fine[0]} axes beside a "
                f"query of shape {query.shape}"
            )


def _added(name: str, argument: str, mask: jax.Array | None, dtype: Any) -> jax.Array | None:
    """A mask as what is added to the scores: -inf for True."""
    if mask is None or jnp.issubdtype(mask.dtype, jnp.floating):
        return mask
    if mask.dtype != bool:
        raise InputError(f"{name}: {argument} is {mask.dtype}, expected bool or floats")
    return jnp.where(mask, -jnp.inf, 0).astype(dtype)
