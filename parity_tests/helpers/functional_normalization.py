"""torch.nn.functional's norms: calls of each, what is refused, and what Flax has for it.

Running statistics, which get no gradient and are written, are in test_functional_in_place.py.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from helpers.kit_parity import Array, Case, Port

INF, NAN = float("inf"), float("nan")


def drawn(*shape: int, seed: int = 0, mean: float = 0.0) -> Array:
    return np.random.default_rng(seed).normal(mean, 2, shape)


def positive(*shape: int, seed: int = 9) -> Array:
    return np.random.default_rng(seed).uniform(0.5, 2, shape)


INTEGERS = np.arange(12).reshape(2, 3, 2)
NULLS = np.array([[3.0, 0.0, -4.0], [0.0, 0.0, 0.0], [1e-13, 0.0, 0.0], [2.0, -2.0, 2.0]])
COMPLEX = np.array([[1 + 2j, -0.5j, 0j], [0j, 0j, 0j]])
FLOAT32 = np.ones(3, np.float32)  # beside float64

CASES: dict[str, list[Case]] = {
    "layer_norm": [
        Case([drawn(2, 3, 4), [3, 4], drawn(3, 4, seed=1), drawn(3, 4, seed=2), 0.1]),
        Case([drawn(2, 3, 4), [4]]),
        Case([drawn(2, 3, 4), (4,), drawn(4, seed=1)]),
        Case([drawn(2, 4), (4,)], {"bias": drawn(4, seed=1)}),
        Case([drawn(5, mean=1000), [5]]),
        Case([np.full((2, 4), 3.0), [4]]),
        Case([np.array([[1.0, INF], [NAN, 1.0], [1.0, 2.0]]), [2]]),
        Case([np.zeros((0, 3)), [3], drawn(3)]),
        Case([np.zeros((3, 0)), [0]]),
    ],
    "rms_norm": [
        Case([drawn(2, 3, 4), [3, 4], drawn(3, 4, seed=1), 0.1]),
        Case([drawn(2, 3, 4), [4]]),
        Case([drawn(4) * 1e-7, (4,), drawn(4, seed=1)]),
        Case([np.zeros((2, 4)), [4]]),
        Case([drawn(2, 4), [4]], {"eps": 0.0}),
        Case([np.zeros((0, 3)), [3]]),
        Case([np.zeros((3, 0)), [0]]),
    ],
    "group_norm": [
        Case([drawn(2, 4, 3, 2), 2, drawn(4, seed=1), drawn(4, seed=2), 0.1]),
        Case([drawn(2, 4), 2]),
        Case([drawn(2, 4, 3), 4]),
        Case([drawn(2, 4, 3), 1, drawn(4, seed=1)]),
        Case([drawn(3, 4, 1, 2, 2), 2, drawn(4, seed=1)]),
        Case([drawn(2, 3), 3]),
        Case([drawn(2, 6, 5, mean=1000), 3]),
        Case([np.zeros((0, 4, 3)), 2, drawn(4)]),
    ],
    "batch_norm": [
        Case([drawn(4, 3, 2), None, None, drawn(3, seed=1), drawn(3, seed=2), True], {"eps": 0.1}),
        Case([drawn(4, 3), None, None], {"training": True}),
        Case([drawn(4, 3), None, None], {"training": True, "bias": drawn(3, seed=1)}),
        Case([drawn(40, 3, mean=1000), None, None], {"training": True}),
        Case([np.ones((4, 3)), None, None], {"training": True}),
        Case([np.zeros((0, 3)), None, None], {"training": True, "weight": drawn(3)}),
    ],
    "instance_norm": [
        Case([drawn(2, 3, 4), None, None, drawn(3, seed=1), drawn(3, seed=2), True], {"eps": 0.1}),
        Case([drawn(2, 3, 4, 2)]),
        Case([drawn(2, 3, 2, 2, 2)], {"weight": drawn(3, seed=1)}),
        Case([drawn(1, 2, 50, mean=1000)]),
        Case([drawn(2, 3, 4)], {"eps": 0.0}),
        Case([np.zeros((0, 3, 4))]),
    ],
    "local_response_norm": [
        Case([drawn(2, 5, 4), 3], {"alpha": 0.5, "beta": 0.6, "k": 2.0}),
        Case([drawn(2, 5, 4), 4, 0.1]),
        Case([drawn(1, 5, 2, 3), 2]),
        Case([drawn(1, 2, 2, 3, 2), 9, 1.0]),
        Case([drawn(2, 3, 2), 1, 1.0]),
        Case([np.zeros((2, 3, 2)), 2]),
        Case([np.zeros((0, 3, 2)), 2]),
    ],
    "normalize": [
        Case([NULLS]),
        *(Case([NULLS, p]) for p in (0, 0.5, 1, 1.5, 2.0, 3.0, INF, -INF)),
        Case([drawn(2, 3), -1.5]),
        Case([drawn(2, 3), -1]),
        Case([drawn(2, 3, 4), 3.0, (0, 2)]),
        Case([drawn(2, 3, 4), 2.0, -1]),
        Case([drawn(2, 3, 4), 2.0, [1, 2]]),
        Case([drawn(3), 2.0, 0]),
        Case([np.array(-2.0), 2.0, 0]),
        Case([drawn(2, 3), 2.0, None]),
        Case([drawn(2, 3), 1.0, ()]),
        Case([drawn(2, 3)], {"eps": 5.0}),
        Case([np.zeros((2, 0))]),
        Case([np.zeros((0, 2)), INF]),
        Case([np.array([[INF, 1.0], [NAN, 1.0]])]),
        Case([np.array([[NAN, 1.0, 2.0]]), INF]),
        Case([COMPLEX]),
        Case([COMPLEX, 1]),
    ],
}

_ONE = drawn(1, 3)
ERRORS: dict[str, list[Case]] = {
    "layer_norm": [
        Case([drawn(2, 3), 3]),
        Case([drawn(2, 3), [2]]),
        Case([drawn(2, 3), []]),
        Case([drawn(2, 3), [3], drawn(2)]),
        Case([drawn(2, 3), [3], None, drawn(1, 3)]),
        Case([drawn(2, 3), [3], FLOAT32]),
        Case([INTEGERS, [2]]),
    ],
    "rms_norm": [
        Case([drawn(2, 3), 3]),
        Case([drawn(2, 3), [2]]),
        Case([drawn(2, 3), []]),
        Case([drawn(2, 3), [3], drawn(2)]),
        Case([INTEGERS, [2]]),
    ],
    "group_norm": [
        Case([drawn(4), 2]),
        Case([drawn(2, 3), 2]),
        Case([drawn(2, 3), -1]),
        Case([_ONE, 3]),
        Case([drawn(2, 3), 1, drawn(2)]),
        Case([drawn(2, 3), 1, None, drawn(1, 3)]),
        Case([drawn(2, 3), 1, FLOAT32]),
        Case([INTEGERS, 1]),
    ],
    "batch_norm": [
        Case([drawn(2, 3), None, None]),
        Case([drawn(2, 3), drawn(3), None]),
        Case([drawn(2, 3), drawn(3), None], {"training": True}),
        Case([drawn(3), None, None], {"training": True}),
        Case([_ONE, None, None], {"training": True}),
        Case([drawn(2, 3), drawn(2), positive(2)]),
        Case([drawn(2, 3), drawn(3), positive(3), drawn(2)]),
        Case([drawn(2, 3), drawn(3), positive(3), None, drawn(2)]),
        Case([drawn(2, 3), None, None], {"training": True, "eps": 0.0}),
        Case([drawn(2, 3), drawn(3), positive(3)], {"eps": -1.0}),
        Case([drawn(2, 3), drawn(3), positive(3)], {"momentum": None}),
        Case([drawn(2, 3), FLOAT32, FLOAT32]),
        Case([drawn(2, 3), None, None, FLOAT32], {"training": True}),
        Case([INTEGERS, None, None], {"training": True}),
        Case([drawn(2, 3) + 0j, None, None], {"training": True}),
    ],
    "instance_norm": [
        Case([drawn(2, 3)]),
        Case([drawn(2, 3, 1)]),
        Case([drawn(3)]),
        Case([drawn(2, 3, 4)], {"use_input_stats": False}),
        Case([drawn(2, 3, 4), drawn(3)]),
        Case([drawn(2, 3, 4), drawn(2), positive(2)], {"use_input_stats": False}),
        Case([drawn(2, 3, 4)], {"weight": drawn(2)}),
        Case([INTEGERS]),
    ],
    "local_response_norm": [Case([drawn(2, 3), 2]), Case([drawn(2, 3, 4), 0])],
    "normalize": [
        Case([drawn(3)]),
        Case([np.array(1.0)]),
        Case([drawn(2, 3), 2.0, (0, 0)]),
        Case([np.zeros((2, 0)), INF]),
        Case([INTEGERS]),
        Case([drawn(2, 3), "nuc"]),
    ],
}


def _flax(layer: Any, x: Any, weight: Any = None, bias: Any = None) -> Any:
    """A layer of Flax's called, the channels last."""
    if weight is not None:
        layer.scale[...] = weight
    if bias is not None:
        layer.bias[...] = bias
    return jnp.moveaxis(layer(jnp.moveaxis(x, 1, -1)), -1, 1)


def _layer_norm(x: Any, shape: Any, weight: Any = None, bias: Any = None, eps: Any = 1e-6) -> Any:
    axes = tuple(range(-len(shape), 0))
    y = jax.nn.standardize(x, axes, epsilon=eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _rms_norm(x: Any, shape: Any, weight: Any = None, eps: Any = 1e-6) -> Any:
    axes = tuple(range(-len(shape), 0))
    y = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axes, keepdims=True) + eps)
    return y if weight is None else y * weight


def _group_norm(x: Any, groups: int, weight: Any = None, bias: Any = None, eps: Any = 1e-6) -> Any:
    layer = nnx.GroupNorm(
        x.shape[1], groups, epsilon=eps, use_fast_variance=False, param_dtype=x.dtype,
        rngs=nnx.Rngs(0),
    )  # fmt: skip
    return _flax(layer, x, weight, bias)


def _instance_norm(
    x: Any, mean: Any = None, var: Any = None, weight: Any = None, bias: Any = None,
    use_input_stats: bool = True, momentum: float = 0.1, eps: Any = 1e-6,
) -> Any:  # fmt: skip
    return _group_norm(x, x.shape[1], weight, bias, eps)


def _batch_norm(
    x: Any, mean: Any, var: Any, weight: Any = None, bias: Any = None, training: bool = False,
    momentum: float = 0.1, eps: float = 1e-5, ddof: int = 0,
) -> Any:  # fmt: skip
    axes = (0, *range(2, x.ndim))
    if training:
        mean, var = jnp.mean(x, axes), jnp.var(x, axes, ddof=ddof)

    def along(v: Any) -> Any:
        return v.reshape(-1, *[1] * (x.ndim - 2))

    y = (x - along(mean)) * jax.lax.rsqrt(along(var) + eps)
    y = y if weight is None else y * along(weight)
    return y if bias is None else y + along(bias)


def _normalize(x: Any, p: float = 2, dim: Any = 1, eps: float = 1e-12) -> Any:
    return x / jnp.maximum(jnp.linalg.norm(x, p, dim, keepdims=True), eps)


PORTS: dict[str, Port] = {
    "layer_norm": Port(
        "jax.nn.standardize(x, axes, epsilon=eps) * weight + bias",
        _layer_norm,
        "nnx.LayerNorm(features, rngs=rngs)(x)",
        lambda x, shape, weight=None, bias=None, eps=0: _layer_norm(x, shape, weight, bias, 1e-6),
        "Flax's epsilon is 1e-6, PyTorch's 1e-5; its use_fast_variance=True loses digits where the "
        "mean is large",
    ),
    "rms_norm": Port(
        "x * jax.lax.rsqrt(jnp.mean(x**2, axes, keepdims=True) + eps) * weight",
        _rms_norm,
        "nnx.RMSNorm(features, rngs=rngs)(x)",
        lambda x, shape, weight=None, eps=None: _rms_norm(x, shape, weight),
        "Flax's epsilon is 1e-6; PyTorch's without eps is the dtype's machine epsilon",
    ),
    "group_norm": Port(
        "nnx.GroupNorm(C, groups, epsilon=1e-5, use_fast_variance=False, rngs=rngs)(x), "
        "channels last",
        _group_norm,
        "nnx.GroupNorm(C, groups, rngs=rngs)(x)",
        lambda x, groups, weight=None, bias=None, eps=0: _group_norm(x, groups, weight, bias),
        "Flax's epsilon is 1e-6, PyTorch's 1e-5",
    ),
    "batch_norm": Port(
        "(x - mean) * jax.lax.rsqrt(var + eps) * weight + bias, mean and var of the batch with "
        "training",
        _batch_norm,
        "the same with jnp.var(x, axes, ddof=1)",
        functools.partial(_batch_norm, ddof=1),
        "the batch's variance is divided by N, what is added to the running one by N - 1: in Flax "
        "both are divided by N, and its momentum is 1 - PyTorch's",
    ),
    "instance_norm": Port(
        "nnx.GroupNorm(C, C, epsilon=1e-5, use_fast_variance=False, rngs=rngs)(x), channels last",
        _instance_norm,
        "nnx.InstanceNorm(C, rngs=rngs)(x)",
        lambda x, mean=None, var=None, weight=None, bias=None, use_input_stats=True, eps=0: (
            _instance_norm(x, weight=weight, bias=bias)
        ),
        "Flax's epsilon is 1e-6, PyTorch's 1e-5; PyTorch's layer has no weight unless affine=True",
    ),
    "local_response_norm": Port(
        None,
        None,
        "x / (k + alpha * channel_sum(x**2)) ** beta",
        lambda x, size, alpha=1e-4, beta=0.75, k=1.0: (
            x
            / (
                k
                + alpha
                * sum(
                    jnp.pad(x**2, [(0, 0), (size // 2, (size - 1) // 2)] + [(0, 0)] * (x.ndim - 2))[
                        :, i : i + x.shape[1]
                    ]
                    for i in range(size)
                )
            )
            ** beta
        ),
        "alpha multiplies the mean over the channels near, as size squares always, not their sum "
        "as in the paper",
    ),
    "normalize": Port(
        "optax.safe_norm: x / optax.safe_norm(x, 1e-12, axis=1, keepdims=True)",
        lambda x: x / optax.safe_norm(x, 1e-12, axis=1, keepdims=True),
        "x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12)",
        _normalize,
        "the gradient of a null vector's norm is NaN in JAX, 0 in PyTorch",
    ),
}
