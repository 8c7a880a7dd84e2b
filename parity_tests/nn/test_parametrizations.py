"""Weight norm, spectral norm, orthogonal matrices: PyTorch's parametrizations, naive ports of them
that are caught, trainings.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from helpers.computed_weights import F64, Made, differences, numbers, trained_apart
from helpers.kit_parity import Case
from helpers.kit_parity import differences as differences_of

from twinstep.jax.nn.utils import norms, orthogonality, parametrizations
from twinstep.jax.nn.utils.matrix_exp import matrix_exp

pytestmark = [pytest.mark.quick_to_compile, pytest.mark.usefixtures("x64")]

LINEAR = "Linear", (3, 5), (2, 3)
WIDE = "Linear", (5, 3), (2, 5)
SQUARE = "Linear", (4, 4), (2, 4)
CONV = "Conv2d", (4, 6, 2), (1, 4, 3, 3)
TURNED = "ConvTranspose1d", (4, 6, 3), (1, 4, 3)
LSTM = "LSTM", (3, 4), (3, 2, 3)
ATTENTION = "MultiheadAttention", (4, 2), (3, 2, 4)
WEIGHT, SPECTRAL, ORTHOGONAL = (
    f"parametrizations.{name}" for name in ("weight_norm", "spectral_norm", "orthogonal")
)
MADE = {
    "weight": Made(*LINEAR, WEIGHT),
    "weight-conv-1": Made(*CONV, WEIGHT, options={"dim": 1}),
    "weight-conv-none": Made(*CONV, WEIGHT, options={"dim": None}),
    "weight-conv-last": Made(*CONV, WEIGHT, options={"dim": 3}),
    "weight-linear-2": Made(*LINEAR, WEIGHT, options={"dim": -2}),
    "weight-bias": Made(*LINEAR, WEIGHT, "bias"),
    "weight-lstm": Made(*LSTM, WEIGHT, "weight_hh_l0"),
    "spectral": Made(*LINEAR, SPECTRAL),
    "spectral-eps": Made(*LINEAR, SPECTRAL, options={"eps": 2.0}),
    "spectral-conv": Made(*CONV, SPECTRAL, options={"n_power_iterations": 3, "dim": -3}),
    "spectral-turned": Made(*TURNED, SPECTRAL),
    "spectral-bias": Made(*LINEAR, SPECTRAL, "bias"),
    "spectral-lstm": Made(*LSTM, SPECTRAL, "weight_hh_l0"),
    "spectral-cell": Made("LSTMCell", (3, 4), (2, 3), SPECTRAL, "weight_ih"),
    "spectral-attention": Made(*ATTENTION, SPECTRAL, "in_proj_weight"),
    "orthogonal": Made(*LINEAR, ORTHOGONAL),
    "orthogonal-wide": Made(*WIDE, ORTHOGONAL),
    "orthogonal-square": Made(*SQUARE, ORTHOGONAL),
    "orthogonal-cayley": Made(*WIDE, ORTHOGONAL, options={"orthogonal_map": "cayley"}),
    "orthogonal-exp": Made(
        *LINEAR, ORTHOGONAL,
        options={"orthogonal_map": "matrix_exp", "use_trivialization": False},
    ),
    "orthogonal-householder": Made(*WIDE, ORTHOGONAL, options={"use_trivialization": False}),
}  # fmt: skip
QUICK = {"weight", "weight-conv-none", "weight-lstm", "spectral", "spectral-conv", "orthogonal"}
"""Of MADE, what make test compiles; test-slow has all, and all without jit."""


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in MADE]
)
def test_it_is_pytorchs(name: str) -> None:
    assert differences(MADE[name]) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_it_is_pytorchs_eagerly(name: str) -> None:
    assert differences(MADE[name], jit=False) == []


# ------------------------------------------------------------------------------- naive ports


def norm_over_all(v: Any, g: Any, dim: Any) -> Any:
    return v * (g / jnp.linalg.norm(v))


def norm_along(v: Any, g: Any, dim: Any) -> Any:
    """The norm along the axis, where PyTorch's is of the slices that it numbers."""
    return v * (g / jnp.linalg.norm(v, axis=dim, keepdims=True))


def through_vectors(matrix: Any, u: Any, v: Any, steps: int, eps: float, **_: Any) -> Any:
    """Derived through the vectors."""
    for _step in range(steps):
        u = norms.unit(matrix @ v, eps)
        v = norms.unit(matrix.T @ u, eps)
    return u, v


def never_stepped(matrix: Any, u: Any, v: Any, steps: int, eps: float, **_: Any) -> Any:
    return (u, v) if steps == 1 else POWER(matrix, u, v, steps, eps, left_first=True)


def right_first(matrix: Any, u: Any, v: Any, steps: int, eps: float, **_: Any) -> Any:
    return POWER(matrix, u, v, steps, eps, left_first=False)


def eps_added(vector: Any, eps: float) -> Any:
    """As Flax's SpectralNorm: under the root."""
    return vector / jnp.sqrt(jnp.sum(vector**2) + eps)


def signs_trained(x: Any) -> Any:
    """The diagonal kept as the triangle's."""
    return REFLECTED(jnp.tril(x, -1) + jnp.eye(*x.shape))


POWER, REFLECTED = norms.power_steps, orthogonality._reflected
NAIVE: list[tuple[str, Any, str, Callable[..., Any]]] = [
    ("weight", parametrizations, "rescaled", norm_over_all),
    ("weight", parametrizations, "rescaled", norm_along),
    ("spectral", parametrizations, "power_steps", through_vectors),
    ("spectral", parametrizations, "power_steps", never_stepped),
    ("spectral", parametrizations, "power_steps", right_first),
    ("spectral-eps", norms, "unit", eps_added),
    ("orthogonal", orthogonality, "_reflected", signs_trained),
]
TWICE = (norm_along, right_first)
"""What is close to another of them; make test-slow runs these too."""


@pytest.mark.parametrize(
    ("name", "home", "function", "naive"),
    [
        pytest.param(*row, id=row[3].__name__, marks=pytest.mark.slow if row[3] in TWICE else [])
        for row in NAIVE
    ],
)
def test_a_naive_port_is_reported(
    name: str, home: Any, function: str, naive: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home, function, naive)
    assert differences(MADE[name]) != []


# ------------------------------------------------------------------------------- matrix_exp


def square(norm: float, batch: int, dtype: str = "float64") -> Case:
    """Matrices of a 1-norm."""
    a = numbers(batch, 4, 4) if batch else numbers(4, 4)
    return Case([(a * norm / np.abs(a).sum(-2).max(-1)[..., None, None]).astype(dtype)])


NORMS = (0.049, 0.55, 4.0)
SQUARES = {f"{norm}-{batch}": square(norm, batch) for norm in NORMS for batch in (0, 1, 2)}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if "0.049-" in n else pytest.mark.slow) for n in SQUARES]
)
def test_the_exponential_is_pytorchs(name: str) -> None:
    """Also where its polynomial is wrong; the gradients' by the norm of the cotangent too."""
    assert differences_of(matrix_exp, torch.matrix_exp, SQUARES[name], jit=True) == []
    assert differences_of(matrix_exp, torch.matrix_exp, SQUARES[name], "float32", jit=True) == []


def test_the_right_exponential_is_reported() -> None:
    ours = jax.scipy.linalg.expm
    assert differences_of(ours, torch.matrix_exp, SQUARES["0.049-0"], jit=True) != []
    assert differences_of(ours, torch.matrix_exp, SQUARES["0.049-1"], jit=True) != []
    assert differences_of(ours, torch.matrix_exp, SQUARES["0.049-2"], jit=True) == []


# ------------------------------------------------------------------------------- trainings


def convolutions() -> torch.nn.Module:
    norms = torch.nn.utils.parametrizations
    return torch.nn.Sequential(
        norms.weight_norm(torch.nn.Conv1d(2, 4, 3, **F64)),
        torch.nn.Tanh(),
        norms.spectral_norm(torch.nn.Conv1d(4, 3, 3, **F64)),
        torch.nn.Flatten(),
        norms.orthogonal(torch.nn.Linear(6, 4, **F64)),
        norms.orthogonal(torch.nn.Linear(4, 4, **F64)),
    )


def transformer() -> torch.nn.Module:
    norms: Any = torch.nn.utils.parametrizations
    layer = torch.nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True, **F64)
    norms.spectral_norm(layer.self_attn, "in_proj_weight")
    norms.weight_norm(layer.linear1, dim=None)
    norms.weight_norm(layer.linear2, "bias")
    return torch.nn.Sequential(layer, norms.spectral_norm(torch.nn.Linear(4, 2, **F64)))


NETS: dict[str, Any] = {
    "convolutions": (convolutions, (3, 2, 6), (3, 4)),
    "transformer": (transformer, (3, 5, 4), (3, 5, 2)),
}


@pytest.mark.parametrize(
    "net", ["convolutions", pytest.param("transformer", marks=pytest.mark.slow)]
)
def test_trainings_are_pytorchs(net: str) -> None:
    """20 steps, compiled. The arrays are near 1, and rounding adds near 1e-15 a step."""
    make, x, y = NETS[net]
    torch.manual_seed(3)
    assert trained_apart(make(), x, y) <= 1e-12
