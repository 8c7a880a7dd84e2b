"""PyTorch's CPU random stream in NumPy, bit for bit, with PyTorch not installed.

The words are NumPy's own (torch_engine.py); what is PyTorch's is how words become numbers, and that
is written out here, down to where it rounds (torch_rounding.py). docs/random.md says what is drawn
when.

The numbers are those of PyTorch 2.13 on an x86 processor with AVX2. Two kinds of draws depend on
the machine: `randn` of 16 values or more is vectorised differently elsewhere (2e-6 apart in
float32), and PyTorch with MKL on an Intel processor draws `bernoulli_`, dropout masks and
`exponential_` from another generator. Not here: CUDA's generator, other distributions.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twinstep.errors import InputError, check_arguments
from twinstep.problems.torch_engine import TorchEngine, is_integer
from twinstep.problems.torch_multinomial import by_order, by_sums, checked
from twinstep.problems.torch_rounding import (
    LARGEST,
    STORED,
    FloatArray,
    box_muller,
    computed_in,
    fma,
    libm,
    rounded,
)

_LARGE_PERMUTATION = (2**32 - 1) // 20  # from here on PyTorch shuffles by another algorithm
_COMPLEX = {"complex64": "float32", "complex128": "float64"}
"""{complex dtype: that of its parts}"""
_INT64 = -(2**63), 2**63 - 1
# Beyond these the sum below might not be rounded as PyTorch's.
_MEANS = "-2**100 to 2**100", lambda value: -(2.0**100) <= value <= 2.0**100
_STDS = "0, or 2**-100 to 2**100", lambda value: value == 0 or 2.0**-100 <= value <= 2.0**100


class TorchGenerator(TorchEngine):
    """A generator in the state that `torch.manual_seed(seed)` leaves PyTorch's CPU generator in.

    What it draws in "bfloat16", which NumPy has not, comes as float32 that bfloat16 can hold.

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
        >>> state = generator.get_state()  # torch.get_rng_state()
        >>> last = generator.rand(1)
        >>> generator.set_state(state)
        >>> bool(generator.rand(1) == last)
        True

    Source: https://docs.pytorch.org/docs/stable/generated/torch.manual_seed.html
    """

    def rand(self, *shape: int, dtype: str = "float32") -> NDArray[Any]:
        """Uniform numbers on [0, 1), as `torch.rand(*shape)` draws them.

        Args:
            shape: The sizes of the array.
            dtype: "float32", "float64", "float16", "bfloat16", "complex64" or "complex128".

        Returns:
            An array of that shape and dtype.

        Raises:
            InputError: For another dtype or a negative size.

        Source: ATen/core/TransformationHelper.h.
        """
        return self.uniform(shape, 0.0, 1.0, dtype)

    def uniform(
        self, shape: Sequence[int], low: float, high: float, dtype: str = "float32"
    ) -> NDArray[Any]:
        """Uniform numbers on [low, high), as `torch.empty(shape).uniform_(low, high)` draws them.

        Args:
            shape: The sizes of the array.
            low, high: The bounds; of real and imaginary part where the dtype is complex.
            dtype: "float32", "float64", "float16", "bfloat16", "complex64" or "complex128".

        Returns:
            An array of that shape and dtype.

        Raises:
            InputError: For another dtype, a negative size, or bounds that PyTorch refuses (not
                finite, out of order, too far apart); in float64 also where their distance is
                not 0 and not in 2**-900 to 2**990.

        Source: ATen/native/DistributionTemplates.h, uniform_impl_.
        """
        if dtype in _COMPLEX:
            return _paired(self.uniform((_count((*shape, 2)),), low, high, _COMPLEX[dtype]), shape)
        count, limit, wide = _count(shape, dtype), LARGEST[dtype], computed_in(dtype)
        check_arguments(
            "TorchGenerator",
            bounds=((low, high), f"a range of {dtype} numbers", lambda pair: (
                -limit <= pair[0] <= pair[1] <= limit and pair[1] - pair[0] <= limit
            )),
        )  # fmt: skip
        bottom, top = np.array([low, high], wide)  # rounded before their distance is formed
        span = top - bottom
        if dtype == "float64" and span != 0 and not 2.0**-900 <= span <= 2.0**990:
            raise InputError(f"high - low is {span}, too small or large to be rounded exactly")
        values = rounded(fma(self._uniforms(count, wide), span, bottom), dtype)
        first, last = rounded(np.array([low, high]), dtype)
        values[values == last] = first  # where rounding reached high, which is excluded
        return values.reshape(shape)

    def randn(self, *shape: int, dtype: str = "float32") -> NDArray[Any]:
        """Standard normal numbers, as `torch.randn(*shape)` draws them.

        Args:
            shape: The sizes of the array.
            dtype: "float32", "float64", "float16", "bfloat16", "complex64" or "complex128".

        Returns:
            An array of that shape and dtype.

        Raises:
            InputError: For another dtype or a negative size.

        Source: ATen/native/cpu/DistributionTemplates.h, normal_kernel.
        """
        return self.normal(shape, 0.0, 1.0, dtype)

    def normal(
        self, shape: Sequence[int], mean: float, std: float, dtype: str = "float32"
    ) -> NDArray[Any]:
        """Normal numbers, as `torch.empty(shape).normal_(mean, std)` draws them.

        Fewer than 16 values are made in pairs: a second one left over waits for the next such
        draw, whatever is drawn between. From 16 on they are made in blocks. A complex value
        counts as two.

        Args:
            shape: The sizes of the array.
            mean: Their mean; of real and imaginary part where the dtype is complex.
            std: Their standard deviation, 0 or more.
            dtype: "float32", "float64", "float16", "bfloat16", "complex64" or "complex128".

        Returns:
            An array of that shape and dtype.

        Raises:
            InputError: For another dtype, a negative size, and a mean or std beyond 2**100, or a
                std other than 0 below 2**-100.

        Source: ATen/native/cpu/DistributionTemplates.h, normal_kernel.
        """
        check_arguments("TorchGenerator", mean=(mean, *_MEANS), std=(std, *_STDS))
        if dtype in _COMPLEX:  # each part has half of the variance
            count, part = _count((*shape, 2)), _COMPLEX[dtype]
            return _paired(self._normals(count, mean, std / math.sqrt(2), part), shape)
        return self._normals(_count(shape, dtype), mean, std, dtype).reshape(shape)

    def exponential(
        self, shape: Sequence[int], lambd: float = 1.0, dtype: str = "float32"
    ) -> FloatArray:
        """Exponential numbers, as `torch.empty(shape).exponential_(lambd)` draws them.

        Args:
            shape: The sizes of the array.
            lambd: The rate, more than 0.
            dtype: "float32", "float64", "float16" or "bfloat16".

        Returns:
            An array of that shape and dtype.

        Raises:
            InputError: For another lambd or dtype, or a negative size.

        Source: ATen/core/TransformationHelper.h, exponential.
        """
        count = _count(shape, dtype)
        positive = (lambd, "a number more than 0", lambda value: value > 0)
        check_arguments("TorchGenerator", lambd=positive)
        logarithm = libm(math.log1p, -self._uniforms(count, "float64"))
        return rounded(-1 / lambd * logarithm, dtype).reshape(shape)

    def bernoulli(self, shape: Sequence[int], p: float, dtype: str = "float32") -> FloatArray:
        """Ones with probability p, else zeros, as `torch.empty(shape).bernoulli_(p)` draws them.

        `torch.nn.functional.dropout(x, q)` keeps what `bernoulli(x.shape, 1 - q)` marks, whatever
        the dtype of x.

        Args:
            shape: The sizes of the array.
            p: The probability of a 1, in 0 to 1.
            dtype: "float32", "float64", "float16" or "bfloat16".

        Returns:
            An array of that shape and dtype.

        Raises:
            InputError: For another p or dtype, or a negative size.

        Source: ATen/native/cpu/DistributionKernels.cpp.
        """
        count = _count(shape, dtype)
        check_arguments("TorchGenerator", p=(p, "0 to 1", lambda value: 0 <= value <= 1))
        # Always compared in float64, whatever the dtype of the result.
        return (self._uniforms(count, "float64") < p).astype(STORED[dtype]).reshape(shape)

    def randint(self, low: int, high: int, shape: Sequence[int]) -> NDArray[np.int64]:
        """Integers from low to high - 1, as `torch.randint(low, high, shape)` draws them.

        So does `torch.Tensor.random_(low, high)`, of any integer dtype.

        Args:
            low: The lowest, -2**63 or more.
            high: One more than the highest, 2**63 - 1 or less.
            shape: The sizes of the array.

        Returns:
            An array of that shape, int64.

        Raises:
            InputError: For no integers, bounds out of range or order, or a negative size.

        Source: ATen/core/DistributionsHelper.h, uniform_int_from_to_distribution.
        """
        check_arguments(
            "TorchGenerator",
            low=(low, "an integer of int64", lambda value: is_integer(value, *_INT64)),
            high=(high, f"an integer of int64, more than low, {low}", lambda value: (
                low < value and is_integer(value, *_INT64)
            )),
        )  # fmt: skip
        count, span = _count(shape), int(high) - int(low)
        numbers = self._words(count) if span < 2**28 else self._double_words(count)
        # Both wrap around, as C's do where low is negative.
        values = numbers % np.uint64(span) + np.array(int(low)).astype(np.uint64)
        return values.astype(np.int64).reshape(shape)

    def random_int64(self) -> int:
        """A whole number, as `torch.empty((), dtype=torch.int64).random_().item()` draws it.

        Returns:
            0 to 2**63 - 1.
        """
        return int(self._double_words(1)[0]) & (2**63 - 1)

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
        last = _LARGE_PERMUTATION - 1
        check = (n, f"an integer in 0 to {last}", lambda value: is_integer(value, 0, last))
        check_arguments("TorchGenerator", n=check)
        n = int(n)
        order = list(range(n))
        offsets = self._words(max(n - 1, 0)) % np.arange(n, 1, -1, dtype=np.uint64)
        for i, offset in enumerate(offsets.tolist()):
            order[i], order[i + offset] = order[i + offset], order[i]
        return np.array(order, np.int64)

    def multinomial(
        self, weights: ArrayLike, num_samples: int, replacement: bool = False
    ) -> NDArray[np.int64]:
        """Categories by their weights, as `torch.multinomial(weights, num_samples)` draws them.

        Args:
            weights: (C,) or (N, C) float32 or float64, not negative; each row for itself. Their
                dtype counts: a list is float64, as in `WeightedRandomSampler`.
            num_samples: How many, at least 1.
            replacement: Whether a category may be drawn again.

        Returns:
            (num_samples,) or (N, num_samples) int64.

        Raises:
            InputError: For other weights or dtypes, a row without a positive one, more samples than
                categories without replacement, and where two categories tie, the order of which
                is not reproduced: of those of weight 0 and, rarely, in float32.

        Source: ATen/native/Distributions.cpp and ATen/native/cpu/MultinomialKernel.cpp.
        """
        found = checked(weights, num_samples, replacement)
        rows, num_samples = found.reshape(-1, found.shape[-1]), int(num_samples)
        if replacement and num_samples > 1:
            uniforms = self._uniforms(len(rows) * num_samples, "float64")
            chosen = by_sums(rows, uniforms.reshape(-1, num_samples))
        else:  # one sample is drawn in the same way with and without
            scores = rows / self.exponential(rows.shape, dtype=str(rows.dtype))
            chosen = by_order(scores, num_samples)
        return chosen.reshape(*found.shape[:-1], num_samples)

    def _normals(self, count: int, mean: float, std: float, dtype: str) -> FloatArray:
        if count < 16:
            normals = np.array([self._normal() for _ in range(count)], np.float64)
            return rounded(fma(normals, np.float64(std), np.float64(mean)), dtype)
        whole, wide = count - count % 16, computed_in(dtype)
        # What is over is drawn too, but of narrow numbers, which are made block by block.
        uniforms = self._uniforms(count if dtype == wide else whole, wide)
        values = np.empty(count, wide)
        values[:whole] = box_muller(uniforms[:whole], mean, std)
        if whole < count:  # an incomplete block: the last 16 values are drawn anew
            values[-16:] = box_muller(self._uniforms(16, wide), mean, std)
        return rounded(values, dtype)

    def _normal(self) -> float:
        """One normal by Box-Muller: the cosine is returned, the sine kept for the next call."""
        if self._kept_sine is not None:
            value, self._kept_sine = self._kept_sine, None
            return value
        u1, u2 = self._uniforms(2, "float64").tolist()
        radius, angle = math.sqrt(-2 * math.log1p(-u2)), 2 * math.pi * u1
        self._kept_sine = radius * math.sin(angle)
        return radius * math.cos(angle)


def _count(shape: Sequence[int], dtype: str = "float32") -> int:
    sizes = shape, "sizes of 0 or more", lambda sizes: all(is_integer(n, 0, 2**63) for n in sizes)
    if dtype not in STORED:
        raise InputError(f"dtype is {dtype!r}, expected one of {', '.join(STORED)}")
    check_arguments("TorchGenerator", shape=sizes)
    return math.prod(int(size) for size in shape)


def _paired(parts: FloatArray, shape: Sequence[int]) -> NDArray[Any]:
    """Real and imaginary parts in turn to complex numbers."""
    return parts.view(np.result_type(parts, np.complex64)).reshape(shape)
