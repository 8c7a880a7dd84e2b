"""torch.nn.functional's linear maps and look-ups: calls, what is refused, and what JAX has.

What max_norm writes into a table is in test_functional_in_place.py.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from helpers.kit_parity import Array, Case, Port

NAN, INF = float("nan"), float("inf")


def drawn(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


FLOAT32 = np.ones((2, 3), np.float32)  # beside float64
TABLE = drawn(6, 3)
NUMBERS = np.array([[1, 4, 1], [0, 1, 5]])
FLAT = np.array([1, 4, 1, 0, 5, 1])
EQUAL = np.ones((6, 2))
ODD = np.array([[0.0], [NAN], [1.0], [2.0], [-INF], [INF]])

CASES: dict[str, list[Case]] = {
    "linear": [
        Case([drawn(4, 2, 3), drawn(5, 3, seed=1), drawn(5, seed=2)]),
        Case([drawn(2, 3), drawn(3, 3, seed=1)]),
        Case([drawn(3), drawn(5, 3, seed=1), drawn(5, seed=2)]),
        Case([drawn(2, 3), drawn(3, seed=1)]),
        Case([drawn(3), drawn(3, seed=1)]),
        Case([drawn(4, 2, 3), drawn(2, 3, seed=1), drawn(2, 2, seed=2)]),
        Case([drawn(2, 3), drawn(5, 3, seed=1), drawn(1, seed=2)]),
        Case([drawn(2, 3), drawn(5, 3, seed=1), np.array(0.5)]),
        Case([drawn(2, 0), drawn(5, 0), drawn(5)]),
        Case([drawn(0, 3), drawn(5, 3)]),
        Case([drawn(2, 3) + 1j * drawn(2, 3, seed=4), drawn(5, 3) * 1j]),
        Case([np.arange(6, dtype=np.int32).reshape(2, 3), np.ones((1, 3), np.int32)]),
    ],
    "bilinear": [
        Case([drawn(4, 2, 3), drawn(4, 2, 5, seed=1), drawn(2, 3, 5, seed=2), drawn(2, seed=3)]),
        Case([drawn(2, 3), drawn(2, 5, seed=1), drawn(4, 3, 5, seed=2)]),
        Case([drawn(3), drawn(5, seed=1), drawn(4, 3, 5, seed=2)]),
        Case([drawn(0, 3), drawn(0, 5), drawn(4, 3, 5)]),
    ],
    "embedding": [
        Case([NUMBERS, TABLE, 1], {"scale_grad_by_freq": True}),
        Case([NUMBERS, TABLE]),
        Case([FLAT, TABLE], {"scale_grad_by_freq": True}),
        Case([NUMBERS, TABLE], {"padding_idx": -1}),
        Case([NUMBERS, TABLE], {"padding_idx": 0}),
        Case([np.array(2), TABLE]),
        Case([np.zeros((2, 0), int), TABLE]),
        Case([FLAT.astype(np.int32), TABLE]),
        Case([NUMBERS, np.where(TABLE > 0, NAN, TABLE), 1]),
    ],
    "embedding_bag": [
        Case(
            [FLAT, TABLE, np.array([0, 2, 2, 5])],
            {"mode": "sum", "per_sample_weights": drawn(6, seed=1), "padding_idx": 1},
        ),
        *(
            Case([NUMBERS, TABLE], {"mode": mode, "padding_idx": padding})
            for mode in ("mean", "sum", "max")
            for padding in (None, 1, -1)
        ),
        *(
            Case([FLAT, TABLE, np.array([0, 2, 2, 5, 6])], {"mode": mode})
            for mode in ("mean", "sum", "max")
        ),
        *(
            Case(
                [FLAT, TABLE, np.array([0, 2, 2, 6])],
                {"mode": mode, "include_last_offset": True, "padding_idx": 4},
            )
            for mode in ("mean", "sum", "max")
        ),
        Case([NUMBERS, TABLE], {"mode": "sum", "scale_grad_by_freq": True}),
        Case([NUMBERS, TABLE], {"mode": "mean", "scale_grad_by_freq": True, "padding_idx": 4}),
        Case(
            [NUMBERS, TABLE],
            {
                "mode": "sum",
                "scale_grad_by_freq": True,
                "per_sample_weights": drawn(2, 3, seed=1),
            },
        ),
        Case([NUMBERS, EQUAL], {"mode": "max"}),
        Case([np.array([[1, 2], [2, 1], [4, 4], [4, 1], [1, 4], [5, 1]]), ODD], {"mode": "max"}),
        Case([np.array([[1, 1], [1, 2]]), TABLE], {"padding_idx": 1}),
        Case([np.array([[1, 1], [1, 2]]), TABLE], {"padding_idx": 1, "mode": "max"}),
        Case([np.zeros(0, int), TABLE, np.array([0, 0])], {"mode": "max"}),
        Case([np.zeros(0, int), TABLE, np.array([0, 0])]),
        Case([np.zeros((0, 2), int), TABLE]),
        Case([FLAT.astype(np.int32), TABLE, np.array([0, 3])]),
    ],
    "one_hot": [
        Case([NUMBERS, 7]),
        Case([np.array(2), 3]),
        Case([np.zeros((2, 0), int), 3]),
    ],
}

ERRORS: dict[str, list[Case]] = {
    "linear": [
        Case([drawn(2, 3), drawn(2, 4)]),
        Case([np.array(1.0), drawn(2, 3)]),
        Case([drawn(2, 3), drawn(2, 3, 4)]),
        Case([drawn(2, 3), drawn(2, 3), drawn(3)]),
        Case([drawn(2, 3), drawn(3), drawn(1)]),
        Case([drawn(2, 3), FLOAT32]),
        Case([drawn(2, 3), drawn(2, 3), FLOAT32[0, :2]]),
    ],
    "bilinear": [
        Case([drawn(2, 3), drawn(3, 4), drawn(5, 3, 4)]),
        Case([drawn(2, 3), drawn(2, 4), drawn(5, 4, 3)]),
        Case([drawn(3), drawn(2, 4), drawn(5, 3, 4)]),
        Case([drawn(2, 3), drawn(2, 4), drawn(5, 3, 4), drawn(4)]),
        Case([drawn(2, 3), FLOAT32, drawn(5, 3, 3)]),
    ],
    "embedding": [
        Case([drawn(2), TABLE]),
        Case([np.array([True]), TABLE]),
        Case([FLAT.astype(np.int16), TABLE]),
        Case([FLAT, drawn(6)]),
        Case([FLAT, drawn(6, 2, 2)]),
        Case([np.array([1, 6]), TABLE]),
        Case([np.array([-1]), TABLE]),
        Case([FLAT, TABLE, 6]),
        Case([FLAT, TABLE, -7]),
    ],
    "embedding_bag": [
        Case([FLAT, TABLE]),
        Case([FLAT, TABLE, np.array([1, 2])]),
        Case([FLAT, TABLE, np.array([0, 7])]),
        Case([FLAT, TABLE, np.array([[0, 1]])]),
        Case([FLAT, TABLE, np.array([0.0])]),
        Case([FLAT, TABLE, np.array([0, 7])], {"include_last_offset": True}),
        Case([FLAT, TABLE, np.zeros(0, int)], {"include_last_offset": True}),
        Case([NUMBERS, TABLE, np.array([0])]),
        Case([NUMBERS[None], TABLE]),
        Case([np.zeros((2, 0), int), TABLE]),
        Case([NUMBERS, TABLE], {"per_sample_weights": drawn(2, 3)}),
        Case([NUMBERS, TABLE], {"per_sample_weights": drawn(6), "mode": "sum"}),
        Case([NUMBERS, TABLE], {"per_sample_weights": FLOAT32, "mode": "sum"}),
        Case([NUMBERS, TABLE], {"mode": "min"}),
        Case([NUMBERS, TABLE], {"mode": "max", "scale_grad_by_freq": True}),
        Case([NUMBERS, TABLE], {"mode": "max", "sparse": True}),
        Case([np.array([[1, 6]]), TABLE]),
        Case([np.array([[1, -1]]), TABLE]),
        Case([NUMBERS, TABLE], {"padding_idx": 6}),
        Case([NUMBERS, TABLE], {"padding_idx": -7}),
        Case([drawn(1, 2), TABLE]),
        Case([NUMBERS, NUMBERS]),
        Case([NUMBERS, drawn(3)]),
    ],
    "one_hot": [
        Case([np.array([-1, 0])]),
        Case([np.array([-1, 0]), 5]),
        Case([np.array([2, 0]), 2]),
        Case([np.array([0]), 0]),
        Case([np.array([0]), -2]),
        Case([np.zeros(0, int)]),
        Case([np.array([1.0])]),
        Case([np.array([True])]),
    ],
}


def _linear(x: Any, weight: Any, bias: Any = 0) -> Any:
    return x @ weight.T + bias


def _bag(numbers: Any, table: Any, offsets: Any = None, mode: str = "mean", **_: Any) -> Any:
    """What takes no notice of options, and divides by the length."""
    if offsets is None:
        return getattr(jnp, mode)(table[numbers], axis=1)
    bag = jnp.searchsorted(offsets, jnp.arange(len(numbers)), side="right") - 1
    return jax.ops.segment_sum(table[numbers], bag, len(offsets))


PORTS: dict[str, Port] = {
    "linear": Port(
        "x @ weight.T + bias",
        _linear,
        "x @ weight + bias",
        lambda x, w, bias=0: x @ (w if w.shape == w.T.shape else w.T) + bias,
        "PyTorch's weight is (out, in), Flax's kernel (in, out): a square one fits either way",
    ),
    "bilinear": Port(
        'jnp.einsum("...i,oij,...j->...o", x, weight, y) + bias',
        lambda x, y, weight, bias=0: jnp.einsum("...i,oij,...j->...o", x, weight, y) + bias,
    ),
    "embedding": Port(
        None,
        None,
        "nnx.Embed(R, D, rngs=rngs)(numbers)",
        lambda numbers, table, *_, **__: table[numbers],
        "Flax has no padding_idx, whose row gets no gradient, no max_norm and no frequencies",
    ),
    "embedding_bag": Port(
        None,
        None,
        "table[numbers].mean(axis=1)",
        _bag,
        "rows of padding_idx are left out, and are not counted by the mean",
    ),
    "one_hot": Port(
        "jax.nn.one_hot(numbers, num_classes, dtype=int)",
        lambda numbers, classes: jax.nn.one_hot(numbers, classes, dtype=int),
        "jax.nn.one_hot(numbers, num_classes)",
        lambda numbers, classes=6: jax.nn.one_hot(numbers, classes),
        "PyTorch's are integers, and a number that is no class's is refused, in JAX a row of 0",
    ),
}
