"""PyTorch's CPU random stream in NumPy, bit for bit, with PyTorch not installed.

`torch.manual_seed(s)` seeds the same Mersenne Twister as `numpy.random.RandomState(s)`, whose
stream NumPy promises never to change. The 32-bit words are therefore free; what is PyTorch's own
is how words become numbers, and that is written out here, down to where it rounds.

The numbers are those of PyTorch 2.13 on an x86 processor with AVX2. Two draws depend on the
machine: float32 `randn` of 16 values or more is vectorised differently elsewhere (2e-6 apart), and
PyTorch with MKL on an Intel processor draws `bernoulli_` and dropout masks from another generator.
Not here: CUDA's generator, other dtypes, other distributions.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from twinstep.errors import InputError

FloatArray = NDArray[np.floating[Any]]

_LARGE_PERMUTATION = (2**32 - 1) // 20  # from here on PyTorch shuffles by another algorithm

# Coefficients of the Cephes library's logf, sinf and cosf, highest power first.
_LOG = np.array([
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
    -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
], np.float32)  # fmt: skip
_LN2_LOW, _LN2_HIGH = np.array([-2.12194440e-4, 0.693359375], np.float32)
_SIN = np.array([-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1], np.float32)
_COS = np.array([2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2], np.float32)
_QUARTER_PI = np.array([0.78515625, 2.4187564849853516e-4, 3.774894977445941e-8], np.float32)


class TorchGenerator:
    """A generator in the state that `torch.manual_seed(seed)` leaves PyTorch's CPU generator in.

    Args:
        seed: -2**63 to 2**64 - 1, of which the low 32 bits count.

    Raises:
        InputError: For any other seed.

    Example:
        >>> import twinstep
        >>> generator = twinstep.TorchGenerator(0)  # torch.manual_seed(0)
        >>> generator.rand(2)  # torch.rand(2)
        array([0.4962566, 0.7682218], dtype=float32)
        >>> generator.randperm(5)  # torch.randperm(5)
        array([3, 1, 0, 4, 2])

    Source: https://docs.pytorch.org/docs/stable/generated/torch.manual_seed.html and
    ATen/core/MT19937RNGEngine.h.
    """

    def __init__(self, seed: int) -> None:
        if not -(2**63) <= seed < 2**64:
            raise InputError(f"seed is {seed}, PyTorch takes -2**63 to 2**64 - 1")
        self._twister = np.random.RandomState(seed & 0xFFFFFFFF)
        self._kept_sine: float | None = None

    def copy(self) -> Self:
        """An independent generator in the same state.

        Returns:
            A generator that draws the same numbers; the kept sine of `randn` is copied too.
        """
        return copy.deepcopy(self)

    def rand(self, *shape: int, dtype: str = "float32") -> FloatArray:
        """Uniform numbers on [0, 1), as `torch.rand(*shape)` draws them.

        Args:
            shape: The sizes of the array.
            dtype: "float32" or "float64".

        Returns:
            An array of that shape and dtype.

        Raises:
            InputError: For another dtype or a negative size.

        Source: ATen/core/TransformationHelper.h.
        """
        return self._uniforms(_count(shape, dtype), dtype).reshape(shape)

    def uniform(
        self, shape: Sequence[int], low: float, high: float, dtype: str = "float32"
    ) -> FloatArray:
        """Uniform numbers on [low, high), as `torch.empty(shape).uniform_(low, high)` draws them.

        Args:
            shape: The sizes of the array.
            low, high: The bounds.
            dtype: "float32" or "float64".

        Returns:
            An array of that shape and dtype.

        Raises:
            InputError: For another dtype, a negative size, or bounds that PyTorch refuses (not
                finite, out of order, too far apart); in float64 also where their distance is
                not 0 and not in 2**-900 to 2**990.

        Source: ATen/native/DistributionTemplates.h, uniform_impl_.
        """
        count, limit = _count(shape, dtype), float(np.finfo(dtype).max)
        if not (-limit <= low <= high <= limit and high - low <= limit):
            raise InputError(f"no {dtype} range from low = {low} to high = {high}")
        bottom, top = np.array([low, high], dtype)  # rounded before their distance is formed
        span = top - bottom
        if dtype == "float64" and span != 0 and not 2.0**-900 <= span <= 2.0**990:
            raise InputError(f"high - low is {span}, too small or large to be rounded exactly")
        values = _fma(self._uniforms(count, dtype), span, bottom)
        values[values == top] = bottom  # where rounding reached high, which is excluded
        return values.reshape(shape)

    def randn(self, *shape: int, dtype: str = "float32") -> FloatArray:
        """Standard normal numbers, as `torch.randn(*shape)` draws them.

        Fewer than 16 values are made in pairs: a second one left over waits for the next such
        draw, whatever is drawn between. From 16 on they are made in blocks.

        Args:
            shape: The sizes of the array.
            dtype: "float32" or "float64".

        Returns:
            An array of that shape and dtype.

        Raises:
            InputError: For another dtype or a negative size.

        Source: ATen/native/cpu/DistributionTemplates.h, normal_kernel.
        """
        count = _count(shape, dtype)
        if count < 16:
            return np.array([self._normal() for _ in range(count)], dtype).reshape(shape)
        uniforms, whole = self._uniforms(count, dtype), count - count % 16
        values = np.empty(count, dtype)
        values[:whole] = _box_muller(uniforms[:whole])
        if whole < count:  # an incomplete block: the last 16 values are drawn anew
            values[-16:] = _box_muller(self._uniforms(16, dtype))
        return values.reshape(shape)

    def randperm(self, n: int) -> NDArray[np.int64]:
        """A permutation of 0 to n - 1, as `torch.randperm(n)` draws it.

        Args:
            n: How many numbers; less than (2**32 - 1) // 20.

        Returns:
            (n,) int64.

        Raises:
            InputError: For n out of range.

        Source: ATen/native/TensorFactories.cpp, randperm_cpu.
        """
        if not 0 <= n < _LARGE_PERMUTATION:
            raise InputError(f"n is {n}, not in 0 to {_LARGE_PERMUTATION - 1}")
        order = list(range(n))
        offsets = self._words(max(n - 1, 0)) % np.arange(n, 1, -1, dtype=np.uint64)
        for i, offset in enumerate(offsets.tolist()):
            order[i], order[i + offset] = order[i + offset], order[i]
        return np.array(order, np.int64)

    def bernoulli(self, shape: Sequence[int], p: float, dtype: str = "float32") -> FloatArray:
        """Ones with probability p, else zeros, as `torch.empty(shape).bernoulli_(p)` draws them.

        `torch.nn.functional.dropout(x, q)` keeps what `bernoulli(x.shape, 1 - q)` marks.

        Args:
            shape: The sizes of the array.
            p: The probability of a 1, in 0 to 1.
            dtype: "float32" or "float64".

        Returns:
            An array of that shape and dtype.

        Raises:
            InputError: For another p or dtype, or a negative size.

        Source: ATen/native/cpu/DistributionKernels.cpp.
        """
        count = _count(shape, dtype)
        if not 0 <= p <= 1:
            raise InputError(f"p is {p}, not in 0 to 1")
        # Always compared in float64, whatever the dtype of the result.
        return (self._uniforms(count, "float64") < p).astype(dtype).reshape(shape)

    def random_int64(self) -> int:
        """A whole number, as `torch.empty((), dtype=torch.int64).random_().item()` draws it.

        Returns:
            0 to 2**63 - 1.
        """
        high, low = self._words(2).tolist()
        return int(high << 32 | low) & (2**63 - 1)

    def shuffled_epoch(self, n: int) -> NDArray[np.int64]:
        """The order in which one pass of `DataLoader(dataset, shuffle=True)` reads n samples.

        Args:
            n: How many samples there are, at least 1.

        Returns:
            (n,) int64 sample numbers, the same whatever the batch size.

        Raises:
            InputError: For n out of range.

        Source: torch/utils/data/dataloader.py and sampler.py.
        """
        if n < 1:
            raise InputError(f"n is {n}, a shuffled epoch needs 1 sample or more")
        self.random_int64()  # the loader's base seed, for its worker processes
        return TorchGenerator(self.random_int64()).randperm(n)

    def _words(self, count: int) -> NDArray[np.uint64]:
        return self._twister.randint(0, 2**32, count, np.uint32).astype(np.uint64)

    def _uniforms(self, count: int, dtype: str) -> FloatArray:
        """(count,) multiples of 2**-24 from a word each, in float64 of 2**-53 from two."""
        if dtype == "float32":
            return (self._words(count) & (2**24 - 1)).astype(dtype) * np.float32(2.0**-24)
        words = self._words(2 * count)
        return ((words[::2] << 32 | words[1::2]) & (2**53 - 1)).astype(dtype) * 2.0**-53

    def _normal(self) -> float:
        """One normal by Box-Muller: the cosine is returned, the sine kept for the next call."""
        if self._kept_sine is not None:
            value, self._kept_sine = self._kept_sine, None
            return value
        u1, u2 = self._uniforms(2, "float64").tolist()
        radius, angle = math.sqrt(-2 * math.log1p(-u2)), 2 * math.pi * u1
        self._kept_sine = radius * math.sin(angle)
        return radius * math.cos(angle)


def _count(shape: Sequence[int], dtype: str) -> int:
    if dtype not in ("float32", "float64"):
        raise InputError(f"dtype is {dtype!r}, not 'float32' or 'float64'")
    if any(size < 0 for size in shape):
        raise InputError(f"shape {tuple(shape)} has a negative size")
    return math.prod(shape)


def _box_muller(uniforms: FloatArray) -> FloatArray:
    """(16 B,) uniforms to normals, by B blocks: 8 radii, 8 angles to 8 cosines, 8 sines."""
    blocks = uniforms.reshape(-1, 2, 8)
    u1, u2 = 1 - blocks[:, 0], blocks[:, 1]  # (B, 8) each; u1 is never 0
    angle = uniforms.dtype.type(2 * math.pi) * u2
    if uniforms.dtype == np.float32:
        logarithm, cosine, sine = _log32(u1), _sin32(angle, ahead=2), _sin32(angle)
    else:
        logarithm = _libm(math.log, u1)
        cosine, sine = _libm(math.cos, angle), _libm(math.sin, angle)
    radius = np.sqrt(-2 * logarithm)
    # Adding the mean, 0, turns -0.0 into 0.0.
    return np.stack([radius * cosine, radius * sine], axis=1).ravel() + 0


def _libm(function: Callable[[float], float], x: FloatArray) -> FloatArray:
    # The C library's, as in PyTorch; NumPy's vectorised log may be an ulp off.
    return np.fromiter(map(function, x.ravel().tolist()), x.dtype, x.size).reshape(x.shape)


def _log32(x: FloatArray) -> FloatArray:
    """Natural logarithm in float32, rounded as ATen/native/cpu/avx_mathfun.h does."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < np.float32(math.sqrt(0.5))
    x = (mantissa - 1) + np.where(small, mantissa, np.float32(0))  # sqrt(1/2) - 1 to sqrt(2) - 1
    e = (exponent - small).astype(np.float32)
    square = x * x
    tail = _fma(_horner(x, _LOG) * x, square, e * _LN2_LOW)
    return _fma(e, _LN2_HIGH, x + _fma(square, np.float32(-0.5), tail))


def _sin32(x: FloatArray, ahead: int = 0) -> FloatArray:
    """Sine of a positive angle, `ahead` eighths of a turn added (2: cosine), as avx_mathfun.h."""
    eighths = ((x * np.float32(4 / math.pi)).astype(np.int32) + 1) & ~1
    for part in _QUARTER_PI:  # in three parts, so that little is lost
        x = _fma(eighths.astype(np.float32), -part, x)
    square = x * x
    sine = _fma(_horner(square, _SIN) * square, x, x)
    cosine = _fma(_horner(square, _COS) * square, square, np.float32(-0.5) * square) + 1
    turned = eighths + ahead
    value = np.where(turned & 2, cosine, sine)
    return np.where(turned & 4, -value, value)


def _horner(x: FloatArray, coefficients: FloatArray) -> FloatArray:
    value = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = _fma(value, x, coefficient)
    return value


def _fma(a: FloatArray, b: Any, c: Any) -> FloatArray:
    """a * b + c, all in the dtype of a, rounded once (Boldo, Melquiond: Emulation of FMA, 2008)."""
    if a.dtype == np.float32:  # the product is exact in float64
        return _odd_sum(np.multiply(a, b, dtype=np.float64), c).astype(np.float32)
    product = a * b
    (a_high, a_low), (b_high, b_low) = _split(a), _split(b)
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    upper, lowest = _two_sum(c, error)
    total, middle = _two_sum(product, upper)
    return np.asarray(total + _odd_sum(lowest, middle))


def _split(x: Any) -> tuple[Any, Any]:
    """float64 into two halves whose products are exact (Veltkamp, Dekker)."""
    scaled = (2.0**27 + 1) * x
    high = scaled - (scaled - x)
    return high, x - high


def _two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    """The rounded sum and what rounding took from it (Knuth)."""
    total = a + b
    rest = total - a
    return total, (a - (total - rest)) + (b - rest)


def _odd_sum(a: Any, b: Any) -> FloatArray:
    """a + b in float64, last bit 1 where inexact: rounded once more it is as if rounded once."""
    total, error = _two_sum(a, b)
    bits = total.view(np.int64)
    step = np.where((error > 0) == (total > 0), 1, -1)  # away from zero, or towards it
    return np.asarray((bits + step * ((error != 0) & (bits & 1 == 0))).view(np.float64))
