"""What PyTorch's functions write in place, and what their tables of calls cannot say."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from helpers.kit_parity import Case, differences

from twinstep import InputError
from twinstep.jax.nn import functional as kit

F = torch.nn.functional
RNG = np.random.default_rng(0)
X = RNG.normal(1, 2, (4, 3, 5))
MEAN, VAR = RNG.normal(size=3), RNG.uniform(0.5, 2, 3)
TABLE = RNG.normal(size=(6, 3))
NUMBERS = np.array([[1, 4, 1], [0, 1, 5]])


def theirs_of(name: str, training: bool) -> Any:
    def called(x: Any, mean: Any, var: Any, *args: Any, **options: Any) -> Any:
        mean, var = mean.detach().clone(), var.detach().clone()
        out = getattr(F, name)(x, mean, var, *args, **options)
        return (out, mean, var) if training else out

    return called


def ours_of(name: str) -> Any:
    def called(x: Any, mean: Any, var: Any, *args: Any, **options: Any) -> Any:
        mean, var = nnx.BatchStat(mean), nnx.BatchStat(var)
        out = getattr(kit, name)(x, mean, var, *args, **options)
        return out, jax.lax.stop_gradient(mean[...]), jax.lax.stop_gradient(var[...])

    return called


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("batch_norm", Case([X, MEAN, VAR, VAR, MEAN, True, 0.3, 0.1])),
        ("batch_norm", Case([X[:, :, 0], MEAN, VAR], {"training": True})),
        ("batch_norm", Case([X[:0], MEAN, VAR], {"training": True})),
        ("instance_norm", Case([X, MEAN, VAR, VAR, MEAN, True, 0.3, 0.1])),
        ("instance_norm", Case([X[..., None], MEAN, VAR])),
    ],
)
def test_running_statistics_are_written(name: str, case: Case) -> None:
    for dtype in ("float64", "float32"):
        assert differences(ours_of(name), theirs_of(name, True), case, dtype) == []


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("batch_norm", Case([X, MEAN, VAR, VAR, MEAN], {"eps": 0.1})),
        ("batch_norm", Case([X[:, :, 0], MEAN, VAR])),
        ("batch_norm", Case([X[:1, :, 0], MEAN, np.array([0.0, -1.0, 1.0])])),
        ("batch_norm", Case([X[:0], MEAN, VAR])),
        ("instance_norm", Case([X, MEAN, VAR, VAR, MEAN, False], {"eps": 0.1})),
        ("instance_norm", Case([X[:, :, 0], MEAN, VAR], {"use_input_stats": False})),
    ],
)
def test_running_statistics_are_read_and_get_no_gradient(name: str, case: Case) -> None:
    for dtype in ("float64", "float32"):
        assert differences(getattr(kit, name), theirs_of(name, False), case, dtype) == []


def test_statistics_outlive_a_compiled_call() -> None:
    mean, var = nnx.BatchStat(jnp.zeros(3)), nnx.BatchStat(jnp.ones(3))
    theirs = torch.zeros(3), torch.ones(3)
    step = nnx.jit(lambda x, mean, var: kit.batch_norm(x, mean, var, training=True))
    for _ in range(2):
        step(jnp.asarray(X, jnp.float32), mean, var)
        F.batch_norm(torch.tensor(X, dtype=torch.float32), *theirs, training=True)
    np.testing.assert_allclose(mean[...], theirs[0], rtol=1e-5)  # float32, two steps
    np.testing.assert_allclose(var[...], theirs[1], rtol=1e-5)


@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
def test_an_array_that_would_be_written_is_refused(name: str) -> None:
    options = {"training": True} if name == "batch_norm" else {}
    with pytest.raises(
        InputError, match=f"^{name}: running_mean is a .*, expected an nnx.Variable"
    ):
        getattr(kit, name)(jnp.asarray(X), jnp.asarray(MEAN), jnp.asarray(VAR), **options)
    for call in (kit.embedding, kit.embedding_bag):
        with pytest.raises(InputError, match=f"^{call.__name__}: with max_norm: weight is a "):
            call(jnp.asarray(NUMBERS), jnp.asarray(TABLE), max_norm=1.0)


@pytest.mark.parametrize("name", ["embedding", "embedding_bag"])
@pytest.mark.parametrize(
    "options",
    [
        {"max_norm": 1.0},
        {"max_norm": 0.5, "norm_type": 1.0, "padding_idx": 1},
        {"max_norm": 1.0, "norm_type": float("inf"), "scale_grad_by_freq": True},
    ],
)
def test_rows_that_are_too_long_are_shortened(name: str, options: dict[str, Any]) -> None:
    def ours(numbers: Any, table: Any) -> Any:
        table = nnx.Param(table)
        out = getattr(kit, name)(numbers, table, **options)
        return out, jax.lax.stop_gradient(table[...])

    def theirs(numbers: Any, table: Any) -> Any:
        return getattr(F, name)(numbers, table, **options), table.detach()

    for dtype in ("float64", "float32"):
        assert differences(ours, theirs, Case([NUMBERS, TABLE]), dtype) == []


def test_a_shortened_table_is_trained() -> None:
    """The gradient of a Param is that of what was written into it."""
    table = nnx.Param(jnp.full((3, 2), 3.0))
    found = nnx.grad(lambda table: kit.embedding(jnp.array([0, 0]), table, max_norm=1.0).sum())
    assert found(table)[...].tolist() == [[2.0, 2.0], [0.0, 0.0], [0.0, 0.0]]


def test_what_a_compiled_look_up_does_not_know_is_nan() -> None:
    numbers, table = jnp.array([[0, 7], [-1, 1]]), jnp.ones((3, 2))
    rows = jax.jit(kit.embedding)(numbers, table)
    assert jnp.isnan(rows).all(-1).tolist() == [[False, True], [True, False]]
    for mode in ("sum", "mean", "max"):
        bags = jax.jit(lambda n, t, mode=mode: kit.embedding_bag(n, t, mode=mode))
        odd = jnp.array([[0, 7], [-1, 1], [1, 1]])
        assert jnp.isnan(bags(odd, table)).all(-1).tolist() == [True, True, False]
        offset = jax.jit(lambda n, t, o, mode=mode: kit.embedding_bag(n, t, o, mode=mode))
        assert jnp.isnan(offset(numbers[0] * 0, table, jnp.array([1, 2]))).all()
    hot = jax.jit(lambda n: kit.one_hot(n, 3))(numbers)
    assert hot.sum(-1).tolist() == [[1, 0], [0, 1]]
    assert kit.one_hot(numbers * 0 + 1).tolist() == [[[0, 1]] * 2] * 2
    with pytest.raises(InputError, match="num_classes"):
        jax.jit(kit.one_hot)(numbers)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmin"])
@pytest.mark.parametrize("ndim", [0, 1, 2, 3, 4])
def test_the_axis_that_is_not_given_is_pytorchs(name: str, ndim: int) -> None:
    x = np.random.default_rng(1).normal(size=(2, 3, 4, 5)[:ndim])
    warned = f"Implicit dimension choice for {name} has been deprecated"
    with pytest.warns(UserWarning, match=warned):
        wanted = getattr(F, name)(torch.tensor(x, dtype=torch.float32))
    with pytest.warns(UserWarning, match=warned) as caught:
        found = getattr(kit, name)(jnp.asarray(x, jnp.float32))
    assert caught[0].filename == __file__
    np.testing.assert_allclose(found, wanted, rtol=2e-6)  # float32


def test_a_softmax_is_computed_in_the_dtype_that_is_named() -> None:
    x = np.array([1, 2, 5])
    wanted = F.softmax(torch.tensor(x), 0, dtype=torch.float32)
    found = kit.softmax(jnp.asarray(x), 0, dtype=jnp.float32)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, wanted, rtol=2e-6)
    assert kit.softmin(jnp.asarray(x), 0, dtype=jnp.bfloat16).dtype == jnp.bfloat16


_PLAIN = "relu gelu silu elu selu mish softplus sigmoid tanh hardswish glu"
SHORT: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in _PLAIN.split()),
    *((name, {"dim": -1}) for name in ("softmax", "log_softmax", "normalize")),
    *((name, {"normalized_shape": [6]}) for name in ("layer_norm", "rms_norm")),
    ("group_norm", {"num_groups": 2}),
]


@pytest.mark.parametrize(("name", "options"), SHORT, ids=[name for name, _ in SHORT])
def test_short_floats_are_computed_in_float32(name: str, options: dict[str, Any]) -> None:
    """Within a unit of bfloat16's and float16's last place."""
    x = np.random.default_rng(2).normal(0, 2, (4, 6)).astype(np.float32)
    pairs = (jnp.bfloat16, torch.bfloat16, 2**-8), (jnp.float16, torch.half, 2**-11)
    for ours, theirs, unit in pairs:
        wanted = getattr(F, name)(torch.tensor(x).to(theirs), **options)
        found = getattr(kit, name)(jnp.asarray(x).astype(ours), **options)
        assert found.dtype == ours
        np.testing.assert_allclose(
            np.asarray(found, np.float32), wanted.float(), rtol=2 * unit, atol=1e-6
        )
