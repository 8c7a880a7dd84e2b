"""The first losses against torch.nn.functional's in every dtype, and on odd numbers.

Those of all losses are in test_functional.py, and in test_loss_calls.py what it cannot compare.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from helpers.synthetic_traces import refused
from torch.nn import functional

from twinstep.jax.nn import functional as kit

pytestmark = [pytest.mark.slow, pytest.mark.quick_to_compile, pytest.mark.usefixtures("x64")]

REDUCTIONS = ("mean", "sum", "none")
DTYPES = ("float64", "float32", "bfloat16", "float16")
NAN, INF = float("nan"), float("inf")


def numbers(array: Any) -> np.ndarray:
    """In a dtype of NumPy's, with the same bits' meaning."""
    if isinstance(array, torch.Tensor):
        return array.detach().to(torch.complex128 if array.is_complex() else torch.float64).numpy()
    return np.asarray(array, complex if jnp.iscomplexobj(array) else float)


def both(array: np.ndarray, dtype: str | None = None) -> tuple[torch.Tensor, jax.Array]:
    """A tensor that asks for its gradient where it may, and an array of the same numbers."""
    if dtype is None or not np.issubdtype(array.dtype, np.inexact):
        return torch.tensor(array), jnp.asarray(array)
    tensor = torch.tensor(array).to(getattr(torch, dtype))
    return tensor.requires_grad_(), jnp.asarray(numbers(tensor), dtype)


def off(
    ours: Callable[..., Any],
    theirs: Callable[..., Any],
    arrays: tuple[np.ndarray, np.ndarray],
    dtype: str,
    weight: np.ndarray | None,
    **words: Any,
) -> float:
    """How far value and gradient are from PyTorch's, in eps of the largest number that goes in.

    Of n entries a sum rounds log2(n) times; inf for a NaN that only one of the two has.
    """
    (tensor, array), (target, target_jax) = (both(given, dtype) for given in arrays)
    target = target.detach()
    weighted = (None, None) if weight is None else both(weight, dtype)
    w = weighted[0] if weighted[0] is None else weighted[0].detach()
    value = theirs(tensor, target, weight=w, **words)
    weighting = np.random.RandomState(3).uniform(0.5, 2.0, value.shape)
    weighting_torch, weighting_jax = both(weighting, dtype)
    (value * weighting_torch.detach()).sum().backward()

    def of(x: jax.Array) -> Any:
        loss = ours(x, target_jax, weight=weighted[1], **words)
        return jnp.sum(loss * weighting_jax), loss

    grad, loss = jax.jit(jax.grad(of, has_aux=True))(array)
    assert loss.dtype == grad.dtype == array.dtype
    assert loss.shape == value.shape
    eps = float(jnp.finfo(dtype).eps)
    worst = 0.0
    for here, there in ((loss, value), (grad, tensor.grad)):
        a, b = numbers(here), numbers(there)
        finite = np.isfinite(b)
        if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
            return INF
        size = max(np.max(np.abs(b[finite]), initial=0.0), 1e-30)
        worst = max(worst, float(np.max(np.abs(a[finite] - b[finite]), initial=0.0) / size / eps))
    return worst


# ----------------------------------------------------------------------------------- entry by entry

PAIRS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "mse_loss": (kit.mse_loss, functional.mse_loss, {}),
    "l1_loss": (kit.l1_loss, functional.l1_loss, {}),
    "huber_loss": (kit.huber_loss, functional.huber_loss, {}),
    "huber_loss, 0.3": (kit.huber_loss, functional.huber_loss, {"delta": 0.3}),
}


def entries(shape: tuple[int, ...], odd: bool) -> tuple[np.ndarray, np.ndarray]:
    """Outputs and targets, a fifth of which tie; odd: NaN, infinities and -0 among them."""
    draws = np.random.RandomState(sum(shape))
    output, target = draws.randn(2, *shape)
    target = np.where(draws.rand(*shape) < 0.2, output, target)
    if odd:
        output.flat[:5], target.flat[:5] = [NAN, INF, -INF, -0.0, 1.0], [0.0, 0.0, 1.0, 0.0, NAN]
        output.flat[5:8], target.flat[5:8] = [INF, 0.3, -1.0], [INF, 0.0, 0.0]
    return output, target


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", PAIRS)
def test_a_regression_loss(name: str, reduction: str, weighted: bool, dtype: str) -> None:
    ours, theirs, words = PAIRS[name]
    for shape, odd in (((3, 5), False), ((40,), False), ((), False), ((3, 5), True)):
        pair = entries(shape, odd and bool(shape))
        weight = np.random.RandomState(1).uniform(0.1, 3.0, shape) if weighted else None
        assert off(ours, theirs, pair, dtype, weight, reduction=reduction, **words) <= 16, shape


def test_l1_of_complex_numbers() -> None:
    """JAX's gradient is the conjugate of PyTorch's."""
    draws = np.random.RandomState(0).randn(4, 6)
    z, target = draws[0] + 1j * draws[1], draws[2] + 1j * draws[3]
    z[0] = target[0]
    tensor = torch.tensor(z, requires_grad=True)
    value = functional.l1_loss(tensor, torch.tensor(target))
    value.backward()
    ours, grad = jax.value_and_grad(kit.l1_loss)(jnp.asarray(z), jnp.asarray(target))
    np.testing.assert_allclose(ours, numbers(value), rtol=1e-15)
    assert tensor.grad is not None
    np.testing.assert_allclose(grad.conj(), tensor.grad.numpy(), rtol=1e-14)


# ---------------------------------------------------------------------------------- cross entropy

SHAPES: list[tuple[int, ...]] = [(5,), (1, 4), (33, 7), (3, 3, 3), (2, 5, 4), (4, 4, 4, 2)]
ODD_ROWS = [[INF, 0, 1], [-INF, 0, 1], [NAN, 0, 1], [-INF, -INF, -INF], [INF, INF, 0], [0, -INF, 1]]


def classes(shape: tuple[int, ...], kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and class numbers (some of them ignored) or probabilities."""
    draws = np.random.RandomState(len(shape))
    logits = 3 * draws.randn(*shape)
    if kind == "probabilities":
        share = np.exp(draws.randn(*shape))
        return logits, share / share.sum(min(len(shape) - 1, 1), keepdims=True)
    size = shape[min(len(shape) - 1, 1)]
    target = draws.randint(0, size, shape[:1][: len(shape) - 1] + shape[2:])
    if kind == "some ignored":
        target = np.where(draws.rand(*target.shape) < 0.4, -100, target)
    return logits, target


KINDS = ("class numbers", "some ignored", "probabilities")


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("kind", KINDS)
def test_cross_entropy(kind: str, weighted: bool, smoothing: float) -> None:
    """Every shape in every reduction, the dtypes in turn."""
    given = zip(itertools.product(SHAPES, REDUCTIONS), itertools.cycle(DTYPES), strict=False)
    for (shape, reduction), dtype in given:
        pair = classes(shape, kind)
        size = shape[min(len(shape) - 1, 1)]
        weight = np.random.RandomState(2).uniform(0.2, 3.0, size) if weighted else None
        words = {"reduction": reduction, "label_smoothing": smoothing}
        found = off(kit.cross_entropy, functional.cross_entropy, pair, dtype, weight, **words)
        assert found <= 32, (shape, reduction, dtype)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_cross_entropy_of_rows_with_infinities(reduction: str, smoothing: float) -> None:
    for row, label in itertools.product(ODD_ROWS, range(3)):
        pair = np.array([row, [0.5, 1.0, 2.0]]), np.array([label, 1])
        words = {"reduction": reduction, "label_smoothing": smoothing}
        assert (
            off(kit.cross_entropy, functional.cross_entropy, pair, "float64", None, **words) <= 16
        )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_another_ignore_index_all_ignored_and_none_there(reduction: str) -> None:
    logits = np.random.RandomState(0).randn(4, 3)
    for target, index in (([0, 1, 2, 1], 1), ([2, 2, 2, 2], 2), ([0, 255, 2, 255], 255)):
        words = {"reduction": reduction, "ignore_index": index}
        for weight in (None, np.array([1.0, 2.0, 0.5])):
            pair = logits, np.array(target)
            found = off(
                kit.cross_entropy, functional.cross_entropy, pair, "float64", weight, **words
            )
            assert found <= 16
    nothing = np.zeros((0, 3)), np.zeros(0, int)
    words = {"reduction": reduction}
    assert off(kit.cross_entropy, functional.cross_entropy, nothing, "float64", None, **words) <= 16


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_plain_loss_is_optaxs_to_the_bit(dtype: str) -> None:
    """What every training that was recorded has: a mean of N is a product with 1 / N there."""

    def plain(logits: jax.Array, labels: jax.Array) -> jax.Array:
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

    for n, seed in itertools.product((1, 3, 7, 10, 32, 49, 100, 1000), range(2)):
        draws = np.random.RandomState(seed)
        logits, labels = jnp.asarray(3 * draws.randn(n, 10), dtype), draws.randint(0, 10, n)
        ours, theirs = (
            jax.jit(jax.value_and_grad(loss))(logits, jnp.asarray(labels))
            for loss in (kit.cross_entropy, plain)
        )
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("label", [3, -1, -99, 1000])
def test_a_class_that_there_is_not(label: int) -> None:
    """PyTorch raises; a compiled step knows no value, and says NaN, whatever the index means."""
    logits, labels = jnp.asarray(np.random.RandomState(0).randn(4, 3)), jnp.array([0, label, 2, 1])
    with pytest.raises(IndexError):
        functional.cross_entropy(torch.zeros(4, 3), torch.tensor(np.asarray(labels)))
    refused(lambda: kit.cross_entropy(logits, labels), f"target has {label}", "0 to 2")
    for smoothing in (0.0, 0.1):
        for reduction in REDUCTIONS:

            def loss(x: jax.Array, y: jax.Array, r: str = reduction, s: float = smoothing) -> Any:
                each = kit.cross_entropy(x, y, reduction=r, label_smoothing=s)
                return jnp.sum(each), each

            grad, each = jax.jit(jax.grad(loss, has_aux=True))(logits, labels)
            assert np.isnan(grad).all(1).tolist() == [False, True, False, False]
            right = [False, True, False, False] if reduction == "none" else True
            assert np.isnan(each).tolist() == right


REFUSED: dict[str, Callable[[], Any]] = {
    "input is float64()": lambda: kit.cross_entropy(jnp.asarray(1.0), jnp.asarray(0)),
    "input is int64(2, 3)": lambda: kit.cross_entropy(jnp.ones((2, 3), int), jnp.zeros(2, int)),
    "target int64(3,)": lambda: kit.cross_entropy(jnp.ones((2, 3)), jnp.zeros(3, int)),
    "target int64(2, 3)": lambda: kit.cross_entropy(jnp.ones((2, 3)), jnp.zeros((2, 3), int)),
    "target float64(2,)": lambda: kit.cross_entropy(jnp.ones((2, 3)), jnp.zeros(2)),
    "target bool(2,)": lambda: kit.cross_entropy(jnp.ones((2, 3)), jnp.zeros(2, bool)),
    "target int64(2, 4)": lambda: kit.cross_entropy(jnp.ones((2, 4, 3)), jnp.zeros((2, 4), int)),
    "each of the 3 classes": lambda: kit.cross_entropy(
        jnp.ones((2, 3)), jnp.zeros(2, int), jnp.ones(2)
    ),
    "ignore_index is 1": lambda: kit.cross_entropy(
        jnp.ones((2, 3)), jnp.ones((2, 3)), ignore_index=1
    ),
    "reduction is 'avg'": lambda: kit.cross_entropy(
        jnp.ones((2, 3)), jnp.zeros(2, int), reduction="avg"
    ),
    "label_smoothing is 1.5": lambda: kit.cross_entropy(
        jnp.ones((2, 3)), jnp.zeros(2, int), label_smoothing=1.5
    ),
}


@pytest.mark.parametrize("says", REFUSED)
def test_what_cross_entropy_refuses(says: str) -> None:
    refused(REFUSED[says], "cross_entropy: ", says, "expected")


# ------------------------------------------------------------------------------------------ planted

WRONG: dict[str, Callable[..., Any]] = {
    "the last axis": lambda x, y, **w: kit.cross_entropy(jnp.moveaxis(x, -1, 1), y, **w),
    "ignored ones count": lambda x, y, **w: (
        jnp.sum(kit.cross_entropy(x, y, reduction="sum")) / y.size
    ),
    "not ignored": lambda x, y, **w: kit.cross_entropy(x, jnp.maximum(y, 0), **w),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_cross_entropy_is_noticed(fault: str) -> None:
    def wrong(x: Any, y: Any, weight: Any, **words: Any) -> Any:
        return WRONG[fault](x, y, **words)

    pair = classes((3, 3, 3), "some ignored")
    assert off(wrong, functional.cross_entropy, pair, "float64", None) > 32
