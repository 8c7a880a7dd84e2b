"""torch.nn.functional's activations: calls of each, what is refused, and what JAX has for it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from helpers.kit_parity import Array, Case, Port

INF, NAN = float("inf"), float("nan")
EDGES = np.array([0.0, INF, -INF, 1.0, -1.0, 3.0, -3.0, 6.0, 0.5, -0.5, 20.0, 21.0])
"""Kinks and infinities."""
LARGE = np.array([-800.0, 800.0, -88.0, 88.0, -40.0, 1e-3, -1e-9])
ODD = np.concatenate([EDGES, LARGE])
NAN_ALONE = np.full(3, NAN)  # of more, vectorised, PyTorch's derivative is another
EMPTY, NUMBER = np.zeros((2, 0)), np.array(-1.5)
KINKS = np.array([[0.0, -1.0, 1.0, 3.0], [-3.0, 6.0, 2.0, -0.5]])
INTEGERS = np.array([-3, 0, 2, 9], np.int32)
BOOLS = np.array([True, False])
COMPLEX = np.array([1 + 2j, -0.5j, 0.25 + 0j])


def drawn(*shape: int, seed: int = 0, scale: float = 2.0) -> Array:
    return np.random.default_rng(seed).normal(0, scale, shape)


def curve(*options: dict[str, Any]) -> list[Case]:
    """Cases of an activation: at kinks, with each of its options, and everywhere it is odd."""
    first, *others = options or ({},)
    return [
        Case([KINKS], first),
        *(Case([KINKS], option) for option in others),
        *(Case([ODD], option) for option in options or ({},)),
        Case([NAN_ALONE], first),
        Case([drawn(2, 3, 4)], first),
        Case([NUMBER], first),
        Case([EMPTY], first),
    ]


IN_PLACE: tuple[dict[str, Any], ...] = ({}, {"inplace": False})

CASES: dict[str, list[Case]] = {
    "relu": [*curve(*IN_PLACE), Case([INTEGERS])],
    "relu6": [*curve(*IN_PLACE), Case([INTEGERS])],
    "hardtanh": [
        *curve({}, {"min_val": -3.0, "max_val": 6}, {"min_val": 1.0, "max_val": 1.0}),
        Case([INTEGERS, -0.5, 2.5]),
    ],
    "hardsigmoid": curve(*IN_PLACE),
    "hardswish": curve(*IN_PLACE),
    "leaky_relu": curve({"negative_slope": 0.2}, {}, {"negative_slope": -0.5}),
    "prelu": [
        Case([np.array([[[0.0, -1.0], [INF, -2.0], [3.0, -0.5]]]), np.array([0.25, -0.5, 0.0])]),
        Case([drawn(2, 3, 4, 5), drawn(3, seed=1)]),
        Case([drawn(2, 3), drawn(3, seed=1)]),
        Case([drawn(2, 3, 4), np.array(0.25)]),
        Case([drawn(2, 3), np.array([0.25])]),
        Case([drawn(5), np.array([0.25])]),
        Case([NUMBER, np.array([0.25])]),
        Case([NUMBER, np.array(0.25)]),
        Case([EDGES, np.array([0.25])]),
        Case([np.zeros((0, 3, 2)), drawn(3)]),
    ],
    "threshold": [
        Case([KINKS, 1.0, 20.0]),
        Case([EDGES, -1.0, 0.0]),
        Case([NAN_ALONE, 0.5, 0.5]),
        Case([NUMBER, 0.5, -0.5, False]),
        Case([EMPTY, 0.5, -0.5]),
        Case([INTEGERS, 1.5, 2.7]),
    ],
    "softshrink": curve({}, {"lambd": 1.0}, {"lambd": 0.0}),
    "hardshrink": curve({}, {"lambd": 1.0}, {"lambd": 0.0}, {"lambd": -0.5}),
    "elu": curve({"alpha": 0.5}, {}, {"alpha": -2.0}),
    "selu": curve(*IN_PLACE),
    "celu": curve({"alpha": 2.0}, {}, {"alpha": 0.5}, {"alpha": -20.0}),
    "gelu": curve({}, {"approximate": "tanh"}),
    "silu": curve(*IN_PLACE),
    "mish": curve(*IN_PLACE),
    "softplus": curve(
        {"beta": 2, "threshold": 5},
        {},
        {"beta": -2.0},
        {"beta": 0.5, "threshold": 1000},
        {"beta": 0},
    ),
    "softsign": [*curve(), Case([COMPLEX])],
    "tanhshrink": [*curve(), Case([COMPLEX])],
    "logsigmoid": curve(),
    "sigmoid": [*curve(), Case([COMPLEX])],
    "tanh": [*curve(), Case([COMPLEX])],
    "glu": [
        Case([drawn(2, 4, 3), 1]),
        Case([drawn(3, 4)]),
        Case([drawn(2)]),
        Case([drawn(6, 3), -2]),
        Case([np.array([1.0, 0.0, INF, 800.0, 2.0, 0.0, -INF, INF, 1.0, -800.0])]),
        Case([np.zeros((0, 4))]),
        Case([np.zeros((3, 0))]),
    ],
}
CASES["gelu"][2] = Case([ODD[ODD != INF]])  # in float32, vectorised, PyTorch's of inf is NaN
_ROWS = np.array(
    [
        [1.0, 2.0, -INF],
        [-INF, -INF, -INF],
        [INF, 0.0, 1.0],
        [NAN, 0.0, 1.0],
        [-800.0, 0.0, 800.0],
        [5.0, 5.0, 5.0],
    ]
)
for _name in ("softmax", "log_softmax", "softmin"):
    CASES[_name] = [
        Case([drawn(2, 3, 4), 1]),
        Case([_ROWS, -1]),
        Case([-_ROWS.T, 0]),
        Case([drawn(5), 0]),
        Case([NUMBER, 0]),
        Case([NUMBER, -1]),
        Case([np.zeros((0, 3)), 0]),
        Case([np.zeros((3, 0)), 0]),
        Case([drawn(2, 1, 3, 2), 1, 2, None]),
        Case([drawn(4, 3), -2], {"_stacklevel": 5}),
    ]

_FLOATS_ONLY = [
    "hardsigmoid",
    "hardswish",
    "leaky_relu",
    "softshrink",
    "hardshrink",
    "elu",
    "selu",
    "celu",
    "gelu",
    "mish",
    "softplus",
    "logsigmoid",
    "glu",
    "silu",
]
ERRORS: dict[str, list[Case]] = {
    "relu": [Case([BOOLS]), Case([COMPLEX])],
    "relu6": [Case([BOOLS]), Case([COMPLEX])],
    "hardtanh": [
        Case([KINKS, 1.0, -1.0]),
        Case([BOOLS]),
        Case([COMPLEX]),
        Case([np.array([1, 3], np.uint8)]),
    ],
    "threshold": [Case([BOOLS, 0.5, 1.0]), Case([COMPLEX, 0.5, 1.0])],
    "prelu": [
        Case([drawn(2, 3), drawn(2)]),
        Case([drawn(2, 3), drawn(3, 1)]),
        Case([drawn(3), drawn(3)]),
        Case([NUMBER, drawn(3)]),
        Case([drawn(2, 3), np.float32(drawn(3))]),
        Case([INTEGERS, INTEGERS[:1]]),
    ],
    "softsign": [Case([BOOLS])],
    "tanhshrink": [Case([BOOLS])],
    "softmax": [Case([INTEGERS, 0]), Case([drawn(2), 1]), Case([NUMBER, 1]), Case([COMPLEX, 0])],
    "log_softmax": [Case([INTEGERS, 0]), Case([drawn(2, 3), -3])],
    "softmin": [Case([INTEGERS, 0]), Case([drawn(2), 1]), Case([BOOLS, 0])],
    **{name: [Case([INTEGERS]), Case([BOOLS])] for name in _FLOATS_ONLY},
}
ERRORS["softshrink"] += [Case([KINKS, -1.0]), Case([KINKS, NAN])]
ERRORS["celu"] += [Case([KINKS, 0.0]), Case([COMPLEX])]
ERRORS["gelu"] += [Case([KINKS], {"approximate": "sigmoid"})]
ERRORS["glu"] += [Case([drawn(3)]), Case([NUMBER]), Case([drawn(2, 4), 2])]


def _prelu(x: Any, weight: Any, at_0: Any = jnp.greater) -> Any:
    weight = weight.reshape(-1, *[1] * max(x.ndim - 2, 0))
    return jnp.where(at_0(x, 0), x, weight * x)


PORTS: dict[str, Port] = {
    "relu": Port(
        "jax.nn.relu(x)",
        jax.nn.relu,
        "jnp.maximum(x, 0)",
        lambda x, inplace=False: jnp.maximum(x, 0),
        "at 0 the derivative is 0; jnp.maximum's is 0.5",
    ),
    "relu6": Port(
        "jax.nn.relu6(x)",
        jax.nn.relu6,
        "jnp.clip(x, 0, 6)",
        lambda x, inplace=False: jnp.clip(x, 0, 6),
        "at 0 and 6 the derivative is 0; jnp.clip's is 0.5",
    ),
    "hardtanh": Port(
        None,
        None,
        "jax.nn.hard_tanh(x)",
        lambda x, min_val=-1, max_val=1: jax.nn.hard_tanh(x),
        "at -1 and 1 the derivative is 0; jax.nn.hard_tanh's is 1",
    ),
    "hardsigmoid": Port(
        None,
        None,
        "jax.nn.hard_sigmoid(x)",
        lambda x, inplace=False: jax.nn.hard_sigmoid(x),
        "PyTorch's derivative is the 1/6 of float32, in float64 too: 5e-9 off",
    ),
    "hardswish": Port(
        "jax.nn.hard_silu(x)",
        jax.nn.hard_silu,
        "x * jnp.clip(x + 3, 0, 6) / 6",
        lambda x, inplace=False: x * jnp.clip(x + 3, 0, 6) / 6,
        "at -3 the derivative is 0; jnp.clip's of 0.5 makes it -0.25",
    ),
    "leaky_relu": Port(
        "jnp.where(x > 0, x, negative_slope * x)",
        lambda x, negative_slope=0.01: jnp.where(x > 0, x, negative_slope * x),
        "jax.nn.leaky_relu(x, negative_slope)",
        lambda x, negative_slope=0.01, inplace=False: jax.nn.leaky_relu(x, negative_slope),
        "at 0 the derivative is the slope; jax.nn.leaky_relu's is 1",
    ),
    "prelu": Port(
        None,
        None,
        "nnx.PReLU()(x)",
        lambda x, weight: _prelu(x, weight, jnp.greater_equal),
        "at 0 the derivative is the weight, in Flax 1; and Flax has one weight for all channels",
    ),
    "threshold": Port(
        "jnp.where(x <= threshold, value, x)",
        lambda x, threshold, value, inplace=False: jnp.where(x <= threshold, value, x),
        "jnp.maximum(x, threshold)",
        lambda x, threshold, value, inplace=False: jnp.maximum(x, threshold),
        "the value stands up to the threshold, the threshold itself included",
    ),
    "softshrink": Port(
        "jnp.where(jnp.abs(x) > lambd, x - jnp.sign(x) * lambd, 0)",
        lambda x, lambd=0.5: jnp.where(jnp.abs(x) > lambd, x - jnp.sign(x) * lambd, 0),
        "jnp.sign(x) * jnp.maximum(jnp.abs(x) - lambd, 0)",
        lambda x, lambd=0.5: jnp.sign(x) * jnp.maximum(jnp.abs(x) - lambd, 0),
        "at -lambda and lambda the derivative is 0; jnp.maximum's is 0.5; NaN stays NaN in PyTorch",
    ),
    "hardshrink": Port(
        "jnp.where(jnp.abs(x) <= lambd, 0, x)",
        lambda x, lambd=0.5: jnp.where(jnp.abs(x) <= lambd, 0, x),
        "jnp.where(jnp.abs(x) >= lambd, x, 0)",
        lambda x, lambd=0.5: jnp.where(jnp.abs(x) >= lambd, x, 0),
        "at -lambda and lambda it is 0",
    ),
    "elu": Port(
        "jax.nn.elu(x, alpha)",
        jax.nn.elu,
        "jnp.where(x > 0, x, alpha * (jnp.exp(x) - 1))",
        lambda x, alpha=1.0: jnp.where(x > 0, x, alpha * (jnp.exp(x) - 1)),
        "where exp(x) overflows, the gradient of what was not taken is NaN",
    ),
    "selu": Port("jax.nn.selu(x)", jax.nn.selu),
    "celu": Port(
        "jax.nn.celu(x, alpha)",
        jax.nn.celu,
        "jax.nn.elu(x, alpha)",
        jax.nn.elu,
        "x is divided by alpha before exp, so that the derivative at 0 is 1",
    ),
    "gelu": Port(
        "jax.nn.gelu(x, approximate=False)",
        lambda x: jax.nn.gelu(x, approximate=False),
        "jax.nn.gelu(x)",
        lambda x, approximate="none": jax.nn.gelu(x),
        "JAX's default is the approximation with tanh: up to 5e-4 off",
    ),
    "silu": Port(
        "jax.nn.silu(x)",
        jax.nn.silu,
        "x / (1 + jnp.exp(-x))",
        lambda x, inplace=False: x / (1 + jnp.exp(-x)),
        "where exp(-x) overflows, the gradient is NaN",
    ),
    "mish": Port(
        "jax.nn.mish(x)",
        jax.nn.mish,
        "x * jnp.tanh(jnp.log(1 + jnp.exp(x)))",
        lambda x, inplace=False: x * jnp.tanh(jnp.log(1 + jnp.exp(x))),
        "where exp(x) overflows, the gradient is NaN",
    ),
    "softplus": Port(
        "jnp.where(beta * x > threshold, x, jax.nn.softplus(beta * x) / beta)",
        lambda x, beta=1, threshold=20: jnp.where(
            beta * x > threshold, x, jax.nn.softplus(beta * x) / beta
        ),
        "jax.nn.softplus(x)",
        lambda x, beta=1, threshold=20: jax.nn.softplus(x),
        "above a threshold of 20 PyTorch's is x itself: 2e-9 off; JAX's has no beta",
    ),
    "softsign": Port("jax.nn.soft_sign(x)", jax.nn.soft_sign),
    "tanhshrink": Port("x - jnp.tanh(x)", lambda x: x - jnp.tanh(x)),
    "logsigmoid": Port(
        "jax.nn.log_sigmoid(x)",
        jax.nn.log_sigmoid,
        "jnp.log(jax.nn.sigmoid(x))",
        lambda x: jnp.log(jax.nn.sigmoid(x)),
        "the sigmoid is 0 far below 0, its logarithm -inf",
    ),
    "sigmoid": Port(
        "jax.nn.sigmoid(x)",
        jax.nn.sigmoid,
        "1 / (1 + jnp.exp(-x))",
        lambda x: 1 / (1 + jnp.exp(-x)),
        "where exp(-x) overflows, the gradient is NaN",
    ),
    "tanh": Port("jnp.tanh(x)", jnp.tanh),
    "glu": Port(
        "jax.nn.glu(x, dim)",
        lambda x, dim=-1: jax.nn.glu(x, dim),
        "jax.nn.silu(a) * b",
        lambda x, dim=-1: jax.nn.silu(jnp.split(x, 2, dim)[0]) * jnp.split(x, 2, dim)[1],
        "the second half is the gate, and its sigmoid alone: the other is SwiGLU",
    ),
    "softmax": Port(
        "jax.nn.softmax(x, dim)",
        jax.nn.softmax,
        "jax.nn.softmax(x)",
        lambda x, *_, **__: jax.nn.softmax(x),
        "JAX's default is the last axis; PyTorch's without dim is 0 of 0, 1 or 3 axes, else 1",
    ),
    "log_softmax": Port(
        "jax.nn.log_softmax(x, dim)",
        jax.nn.log_softmax,
        "jnp.log(jax.nn.softmax(x, dim))",
        lambda x, dim, *_, **__: jnp.log(jax.nn.softmax(x, dim)),
        "the softmax may be 0, its logarithm -inf",
    ),
    "softmin": Port(
        "jax.nn.softmax(-x, dim)",
        lambda x, dim: jax.nn.softmax(-x, dim),
        "1 - jax.nn.softmax(x, dim)",
        lambda x, dim, *_, **__: 1 - jax.nn.softmax(x, dim),
        "it is the softmax of -x, not what is left of x's",
    ),
}
