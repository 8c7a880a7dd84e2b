"""The NumPy generator is held against PyTorch itself: same seed, same calls, same bits.

Every test plays calls of helpers/torch_draws.py on both sides and compares what comes out. At the
end the faults that these tests are there to find are planted, and each must be found.
"""

import platform
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers import torch_draws
from helpers.differences import TRAITS, traits
from helpers.synthetic_traces import refused
from helpers.torch_draws import (
    CALLS,
    DTYPES,
    FUSED,
    NUMBERS,
    REAL,
    assert_same,
    difference,
    parting,
    some_calls,
)

from twinstep.problems import torch_init
from twinstep.problems.torch_random import TorchGenerator
from twinstep.problems.torch_rounding import FloatArray, fma

pytestmark = pytest.mark.skipif(
    platform.machine() in ("x86_64", "AMD64") and not FUSED,
    reason="without AVX2 PyTorch rounds the product of uniform_ before the sum",
)
needs_serial_bernoulli = pytest.mark.skipif(
    TRAITS[-1] not in traits(), reason="bernoulli_ uses MKL's own generator on this processor"
)
OF_MKL = "bernoulli", "dropout mask", "exponential", "multinomial"
WITHOUT_MASKS = [name for name in CALLS if name not in OF_MKL]


@pytest.mark.parametrize("name", WITHOUT_MASKS)
def test_every_call_alone(name: str) -> None:
    for seed in range(200):
        assert_same(seed, *some_calls(seed, [name], 1))


def test_any_interleaving_of_all_calls() -> None:
    for seed in range(500):
        assert_same(seed, *some_calls(seed, WITHOUT_MASKS, 12))


@needs_serial_bernoulli
@pytest.mark.parametrize("name", OF_MKL)
def test_what_mkl_may_draw_alone_and_between_other_calls(name: str) -> None:
    for seed in range(200):
        assert_same(seed, *some_calls(seed, [name], 2))
        assert_same(seed, *some_calls(seed, [*CALLS, name, name], 10))


@pytest.mark.parametrize("dtype", NUMBERS)
def test_every_number_of_normals_up_to_70(dtype: str) -> None:
    for count in range(71):
        assert_same(count, ("randn", ((count,), dtype)), ("randn", ((3,), dtype)))


@pytest.mark.parametrize("seed", [1753191, 2934939])
def test_a_normal_of_radius_zero(seed: int) -> None:
    """Seeds found by search, one of whose first 8 uniforms is 0: the normals are 0.0, not -0.0."""
    assert (TorchGenerator(seed).randn(16) == 0).sum() == 2
    assert_same(seed, ("randn", ((16,), "float32")))


@pytest.mark.parametrize("dtype", NUMBERS)
def test_large_draws(dtype: str) -> None:
    """Long enough for rare roundings: a float32 product ties in the sum about once in 2**29."""
    for seed in range(2):
        assert_same(seed, ("rand", ((300, 333), dtype)))
        assert_same(seed, ("uniform", ((100_003,), -1 / 3, 0.7, dtype)))
        assert_same(seed, ("randn", ((250, 403), dtype)))
        assert_same(seed, ("normal", ((250, 403), 1 / 3, 0.7, dtype)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_layers_and_a_large_permutation(dtype: str) -> None:
    for seed in range(2):
        assert_same(seed, ("linear", (784, 128, True, dtype)))
        assert_same(seed, ("recurrent", (28, 128, 4, dtype)))
    assert_same(5, ("randperm", (60_000,)))


@needs_serial_bernoulli
@pytest.mark.parametrize("dtype", REAL)
def test_large_exponentials(dtype: str) -> None:
    """Long enough for values that the dtype cannot hold, and for zeros of float16."""
    for lambd in (1.0, 1e-6, 1e6):
        assert_same(3, ("exponential", ((100_003,), lambd, dtype)))


@pytest.mark.parametrize(("dtype", "bits"), [("float32", 25), ("float64", 54)])
def test_the_fused_multiply_add_rounds_once(dtype: str, bits: int) -> None:
    """Odd products one bit too long are ties, which a tiny third term decides: too rare to meet."""
    pick = random.Random(0)
    odd = [2 * pick.randrange(2 ** (bits // 2 - 2), 2 ** (bits // 2)) + 1 for _ in range(1000)]
    pairs = [(a, b) for a, b in zip(odd, odd[::-1], strict=True) if (a * b).bit_length() == bits]
    pairs += [(-a, b) for a, b in pairs]
    assert len(pairs) > 100
    a, b = np.array(pairs, dtype).T
    for sign in (1, -1):
        c = np.array(sign * 2.0**-60, dtype)
        exact = [a * b + sign for a, b in pairs]
        assert fma(a, b, c).tolist() == exact
        assert (a.astype(float) * b + c).astype(dtype).tolist() != exact


def test_bounds_of_any_size() -> None:
    pick = random.Random(0)
    for seed in range(300):
        dtype = torch_draws.a_dtype(pick)
        decades = 30 if dtype == "float32" else 250
        low = pick.uniform(-1, 1) * 10.0 ** pick.randint(-decades, decades)
        high = low + pick.random() * 10.0 ** pick.randint(-decades, decades)
        assert_same(seed, ("uniform", ((40,), low, high, dtype)))
    # so near that rounding often reaches the upper bound
    near = [(5.0, 5.00001), (1.0, 1.0 + 2.0**-50), (-1.0001, -1.0), (-0.0, 0.0), (7.0, 7.0)]
    for low, high in near:
        for dtype in DTYPES:
            assert_same(0, ("uniform", ((5000,), low, high, dtype)))


@pytest.mark.parametrize(
    "seed", [0, 1, 42, 2**31, 2**32 - 1, 2**32, 2**32 + 7, 2**63, 2**64 - 1, -1, -5, -(2**63)]
)
def test_every_seed_that_torch_takes(seed: int) -> None:
    assert_same(seed, ("rand", ((5,), "float32")), ("randn", ((5,), "float64")))
    torch.manual_seed(seed)
    assert TorchGenerator(seed).initial_seed() == torch.initial_seed()


@pytest.mark.parametrize("integer", [*np.typecodes["AllInteger"], "0-d array"])
def test_every_integer_of_numpy_is_taken(integer: str) -> None:
    number: Any = np.array(5) if integer == "0-d array" else np.dtype(integer).type(5)
    ours, plain = TorchGenerator(number), TorchGenerator(5)
    for call in (
        lambda g, n: g.rand(n, dtype="float64"),
        lambda g, n: g.randint(n - n, n, (n,)),
        lambda g, n: g.randperm(n),
        lambda g, n: g.multinomial(np.ones((60, 9)), n, True),
        lambda g, n: g.randn(*[n] * 5),
        lambda g, n: g.manual_seed(n).initial_seed(),
    ):
        assert np.array_equal(call(ours, number), call(plain, 5))


def test_a_generator_that_is_seeded_anew_has_kept_nothing() -> None:
    generator = TorchGenerator(3)
    generator.randn(3)
    assert generator.manual_seed(4).randn(3).tolist() == TorchGenerator(4).randn(3).tolist()


def test_a_state_goes_to_pytorch_and_comes_back() -> None:
    generator = TorchGenerator(-3)
    for count in (0, 3, 5, 623, 700):  # the sine of a pair is kept twice
        generator.randn(count)
        generator.rand(count)
        torch.set_rng_state(torch.tensor(generator.get_state()))
        drawn = torch.randn(5).numpy(), torch.rand(3).numpy()
        other = TorchGenerator(0)
        other.set_state(generator.get_state().tobytes())
        for one in (generator.copy(), other):
            assert [a.tobytes() for a in (one.randn(5), one.rand(3))] == [
                a.tobytes() for a in drawn
            ]


def changed(place: int, value: int) -> np.ndarray:
    """A state with another byte."""
    state = TorchGenerator(0).get_state()
    state[place] = value
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (b"", "state is uint8 of shape (0,)"),
        (TorchGenerator(0).get_state()[:-1], "state is uint8 of shape (5055,)"),
        (TorchGenerator(0).get_state().astype(int), "state is int64 of shape (5056,)"),
        (changed(8, 7), "left 7 and next 0"),
        (changed(12, 0), "left 1 and next 0"),
        (changed(16, 1), "left 1 and next 1"),
        (changed(24 + 4, 1), "left 1 and next 0"),
        (np.random.RandomState(0), "expected the 5056 uint8"),
    ],
)
def test_what_is_no_state_is_refused(state: Any, message: str) -> None:
    refused(lambda: TorchGenerator(0).set_state(state), message)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_document_with_a_shuffled_loader(dtype: str) -> None:
    """Model, data, three epochs, another model, two more epochs."""
    model, head = ("recurrent", (28, 16, 1, dtype)), ("linear", (16, 10, True, dtype))
    data, epochs = ("randn", ((37, 4), dtype)), [("loader", (37, 8, n)) for n in (4, 3)]
    for seed in range(10):
        assert_same(seed, model, data, epochs[0], head, epochs[1])


def test_a_copy_goes_on_alone_from_the_same_state() -> None:
    generator = TorchGenerator(3)
    generator.randn(3)  # the sine of the second pair is kept
    twin = generator.copy()
    mine = [generator.randn(4).tolist(), generator.rand(4).tolist()]
    assert [twin.randn(4).tolist(), twin.rand(4).tolist()] == mine
    assert mine != [generator.randn(4).tolist(), generator.rand(4).tolist()]


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1])
def test_a_seed_that_torch_refuses_is_refused(seed: int) -> None:
    with pytest.raises((ValueError, RuntimeError)):
        torch.manual_seed(seed)
    refused(lambda: TorchGenerator(seed), f"seed is {seed}")


@pytest.mark.parametrize("seed", [5.0, 5.5, True, np.True_, "5", None, np.float32(5), [5]])
def test_a_seed_that_is_no_integer_is_refused(seed: Any) -> None:
    refused(lambda: TorchGenerator(seed), f"seed is {seed!r}, expected an integer in -2**63")


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (1.0, 0.0, "float32"),
        (float("nan"), 0.0, "float32"),
        (0.0, float("inf"), "float64"),
        (-3e38, 3e38, "float32"),
        (0.0, 1e39, "float32"),
        (-1e308, 1e308, "float64"),
        (0.0, 65505.0, "float16"),
        (0.0, 3.39e38, "bfloat16"),
        (1.0, 0.0, "complex64"),
    ],
)
def test_bounds_that_torch_refuses_are_refused(low: float, high: float, dtype: str) -> None:
    with pytest.raises(RuntimeError):
        torch.empty(3, dtype=NUMBERS[dtype]).uniform_(low, high)
    refused(lambda: TorchGenerator(0).uniform((3,), low, high, dtype), f"bounds is ({low}, {high})")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: g.rand(2, dtype="int64"), "dtype is 'int64'"),
        (lambda g: g.exponential((2,), dtype="complex64"), "dtype is 'complex64'"),
        (lambda g: g.randn(2, -1), "shape is (2, -1)"),
        (lambda g: g.rand(2.0), "shape is (2.0,)"),
        (lambda g: g.rand((2, 3)), "shape is ((2, 3),)"),
        (lambda g: g.uniform((3,), "0", "1"), "bounds is ('0', '1')"),
        (lambda g: g.normal((3,), 0.0, -1.0), "std is -1.0"),
        (lambda g: g.normal((3,), 0.0, 1e-300), "std is 1e-300"),
        (lambda g: g.normal((3,), float("nan"), 1.0), "mean is nan"),
        (lambda g: g.exponential((3,), 0.0), "lambd is 0.0"),
        (lambda g: g.randint(3, 3, (2,)), "high is 3"),
        (lambda g: g.randint(0, 2**63, (2,)), f"high is {2**63}"),
        (lambda g: g.randint(0.0, 5, (2,)), "low is 0.0"),
        (lambda g: g.multinomial([1, 2], 2), "weights are int64"),
        (lambda g: g.multinomial(np.ones((2, 2, 2)), 2), "shape (2, 2, 2)"),
        (lambda g: g.multinomial(np.ones(0), 1, True), "shape (0,)"),
        (lambda g: g.multinomial(np.ones(3), 4), "num_samples is 4"),
        (lambda g: g.multinomial(np.ones(3), 0, True), "num_samples is 0"),
        (lambda g: g.multinomial([1.0, -1.0], 1), "weights have a negative entry"),
        (lambda g: g.multinomial([1.0, float("inf")], 1), "a sum that is 0 or not finite"),
        (lambda g: g.multinomial([1.0, float("nan")], 1), "a sum that is 0 or not finite"),
        (lambda g: g.multinomial(np.full(9, 3e38, np.float32), 2, True), "a sum that is 0 or not"),
        (lambda g: g.multinomial([[1.0, 1.0], [0.0, 0.0]], 2, True), "a sum that is 0 or not"),
        (lambda g: g.multinomial([0.0, 1.0, 0.0], 2), "two categories tie"),
        (lambda g: g.uniform((3,), 0.0, 1e-300, "float64"), "high - low is 1e-300"),
        (lambda g: g.randperm(-1), "n is -1"),
        (lambda g: g.randperm(2**28), f"n is {2**28}"),
        (lambda g: g.randperm(5.0), "n is 5.0"),
        (lambda g: g.bernoulli((3,), 1.5), "p is 1.5"),
        (lambda g: g.bernoulli((3,), float("nan")), "p is nan"),
        (lambda g: torch_init.linear(g, -1, 2), "shape is (2, -1)"),
        (lambda g: torch_init.embedding(g, -1, 2), "shape is (-1, 2)"),
        (lambda g: torch_init.recurrent(g, 3, 3, gates=2), "gates is 2"),
        (lambda g: torch_init.recurrent(g, 3, 0, gates=1), "hidden_size 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    call: Callable[[TorchGenerator], object], message: str
) -> None:
    refused(lambda: call(TorchGenerator(0)), message)


# These tests can fail: a fault in any of these places is found.


def unit(generator: Any, shape: Any, dtype: str) -> FloatArray:
    """Uniform numbers on [0, 1) of a generator whose `uniform` is another."""
    return TorchGenerator.uniform(generator, shape, 0.0, 1.0, dtype)


def of_wide(wrong: Callable[..., Any]) -> Callable[..., Any]:
    """A fault of `uniform` in float32 and float64 alone."""

    def uniform(self: Any, shape: Any, low: float, high: float, dtype: str = "float32") -> Any:
        method = wrong if dtype in DTYPES else TorchGenerator.uniform
        return method(self, shape, low, high, dtype)

    return uniform


def rounded_product(self: Any, shape: Any, low: float, high: float, dtype: str) -> Any:
    """The product of `uniform` rounded before the sum."""
    bottom = np.array(low, dtype)
    span = np.array(high, dtype) - bottom
    return np.asarray(unit(self, shape, dtype) * span + bottom)


def span_in_float64(self: Any, shape: Any, low: float, high: float, dtype: str) -> Any:
    """The distance of the bounds rounded once too few."""
    wide = unit(self, shape, dtype).astype(float)
    return np.asarray(wide * (high - low) + low).astype(dtype)


def high_included(self: Any, shape: Any, low: float, high: float, dtype: str) -> Any:
    """Values that rounding brings to the upper bound stay there."""
    values = TorchGenerator.uniform(self, shape, low, high, dtype)
    return np.where(values == low, np.array(high, dtype), values)


def forgotten_sine(self: Any, *shape: int, dtype: str = "float32") -> FloatArray:
    """No sine outlives its call."""
    self._kept_sine = None
    return TorchGenerator.randn(self, *shape, dtype=dtype)


def high_bits(self: Any, count: int, dtype: str) -> FloatArray:
    """Float32 uniforms from the high 24 bits of a word, as NumPy's own would be."""
    if dtype == "float64":
        return TorchGenerator._uniforms(self, count, dtype)
    return (self._words(count) >> np.uint64(8)).astype(dtype) * np.float32(2.0**-24)


def tail_not_redrawn(self: Any, *shape: int, dtype: str = "float32") -> FloatArray:
    """The last 16 of an incomplete block made from the uniforms already there."""
    count = int(np.prod(shape))
    if count < 16 or count % 16 == 0:
        return TorchGenerator.randn(self, *shape, dtype=dtype)
    twin = self.copy()
    self.rand(count, dtype=dtype)
    return TorchGenerator.randn(twin, count + 16 - count % 16, dtype=dtype)[:count].reshape(shape)


@pytest.mark.parametrize(
    ("method", "wrong", "name"),
    [
        ("uniform", of_wide(rounded_product), "uniform"),
        ("uniform", of_wide(rounded_product), "linear"),
        ("uniform", of_wide(rounded_product), "recurrent"),
        ("uniform", of_wide(span_in_float64), "uniform"),
        ("uniform", of_wide(high_included), "uniform"),
        ("randn", forgotten_sine, "randn"),
        ("_uniforms", high_bits, "rand"),
        ("randn", tail_not_redrawn, "randn"),
    ],
)
def test_a_planted_fault_is_found(method: str, wrong: Any, name: str) -> None:
    fault = type("Faulty", (TorchGenerator,), {method: wrong})
    interleavings = [some_calls(seed, WITHOUT_MASKS, 12) for seed in range(30)]
    found = [where for i, calls in enumerate(interleavings) if (where := parting(i, calls, fault))]
    assert any(f"('{name}'" in where for where in found), found


def test_the_allowance_lets_no_nan_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_draws, "FUSED", False)
    zeros = np.zeros(16, np.float32)
    assert difference(("randn", ()), zeros + np.float32(1e-7), zeros) is None
    assert difference(("randn", ()), zeros + np.float32(np.nan), zeros) is not None
