"""How PyTorch's random numbers are rounded: its float32 functions, its fused sums, its dtypes.

What goes through PyTorch's vectorised logarithm, sine and cosine, or through one instruction for a
product and a sum, has other last bits than NumPy's own. Here they are PyTorch's.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]

STORED = {"float32": "float32", "float64": "float64", "float16": "float16", "bfloat16": "float32"}
"""{dtype of PyTorch's: NumPy's dtype that holds its values; NumPy has no bfloat16}"""
LARGEST = {name: float(np.finfo(stored).max) for name, stored in STORED.items()}
LARGEST["bfloat16"] = (2 - 2.0**-7) * 2.0**127

# Coefficients of the Cephes library's logf, sinf and cosf, highest power first.
_LOG = np.array([
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
    -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
], np.float32)  # fmt: skip
_LN2_LOW, _LN2_HIGH = np.array([-2.12194440e-4, 0.693359375], np.float32)
_SIN = np.array([-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1], np.float32)
_COS = np.array([2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2], np.float32)
_QUARTER_PI = np.array([0.78515625, 2.4187564849853516e-4, 3.774894977445941e-8], np.float32)


def computed_in(dtype: str) -> str:
    """The dtype in which PyTorch computes what it then rounds to a dtype."""
    return "float64" if dtype == "float64" else "float32"


def rounded(values: FloatArray, dtype: str) -> FloatArray:
    """Values in a dtype of STORED; narrow ones by way of float32, as PyTorch's casts go."""
    with np.errstate(over="ignore"):  # beyond the largest number is inf, as in PyTorch
        if dtype != "bfloat16":
            return values.astype(computed_in(dtype)).astype(STORED[dtype])
        bits = values.astype(np.float32).view(np.uint32)
        bits = bits + np.uint32(0x7FFF) + (bits >> 16 & 1)  # ties to even
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)


def box_muller(uniforms: FloatArray, mean: float, std: float) -> FloatArray:
    """(16 B,) uniforms to normals, by B blocks: 8 radii, 8 angles to 8 cosines, 8 sines."""
    blocks = uniforms.reshape(-1, 2, 8)
    u1, u2 = 1 - blocks[:, 0], blocks[:, 1]  # (B, 8) each; u1 is never 0
    angle = uniforms.dtype.type(2 * math.pi) * u2
    if uniforms.dtype == np.float32:
        logarithm, cosine, sine = _log32(u1), _sin32(angle, ahead=2), _sin32(angle)
    else:
        logarithm = libm(math.log, u1)
        cosine, sine = libm(math.cos, angle), libm(math.sin, angle)
    radius = np.sqrt(-2 * logarithm)
    normals = np.stack([radius * cosine, radius * sine], axis=1).ravel()
    return fma(normals, *np.array([std, mean], uniforms.dtype))


def libm(function: Callable[[float], float], x: FloatArray) -> FloatArray:
    """A function of the C library's, as in PyTorch: NumPy's vectorised ones may be an ulp off."""
    return np.fromiter(map(function, x.ravel().tolist()), x.dtype, x.size).reshape(x.shape)


def _log32(x: FloatArray) -> FloatArray:
    """Natural logarithm in float32, rounded as ATen/native/cpu/avx_mathfun.h does."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < np.float32(math.sqrt(0.5))
    x = (mantissa - 1) + np.where(small, mantissa, np.float32(0))  # sqrt(1/2) - 1 to sqrt(2) - 1
    e = (exponent - small).astype(np.float32)
    square = x * x
    tail = fma(_horner(x, _LOG) * x, square, e * _LN2_LOW)
    return fma(e, _LN2_HIGH, x + fma(square, np.float32(-0.5), tail))


def _sin32(x: FloatArray, ahead: int = 0) -> FloatArray:
    """Sine of a positive angle, `ahead` eighths of a turn added (2: cosine), as avx_mathfun.h."""
    eighths = ((x * np.float32(4 / math.pi)).astype(np.int32) + 1) & ~1
    for part in _QUARTER_PI:  # in three parts, so that little is lost
        x = fma(eighths.astype(np.float32), -part, x)
    square = x * x
    sine = fma(_horner(square, _SIN) * square, x, x)
    cosine = fma(_horner(square, _COS) * square, square, np.float32(-0.5) * square) + 1
    turned = eighths + ahead
    value = np.where(turned & 2, cosine, sine)
    return np.where(turned & 4, -value, value)


def _horner(x: FloatArray, coefficients: FloatArray) -> FloatArray:
    value = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = fma(value, x, coefficient)
    return value


def fma(a: FloatArray, b: Any, c: Any) -> FloatArray:
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
