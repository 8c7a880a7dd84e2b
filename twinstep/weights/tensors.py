"""The dtypes that weights have in files: their names, how NumPy holds them, casts, NaN."""

import numpy as np

from twinstep.errors import InputError
from twinstep.trace import dtypes

CODES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "complex64": "C64",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
"""{a dtype's name: what a safetensors file calls it}"""


def held(name: str) -> np.dtype:
    """What NumPy holds a dtype of CODES in. InputError where that is not installed."""
    if name == "bfloat16":
        return dtypes.bfloat16()
    if not name.startswith("float8"):
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError:
        raise InputError(f"{name} needs ml_dtypes, not installed: pip install ml_dtypes") from None
    found: np.dtype = np.dtype(getattr(ml_dtypes, name))
    return found


def bits(array: np.ndarray) -> np.ndarray:
    """An array's bytes, in a row."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays have the same dtype, shape and bits."""
    form = one.dtype == other.dtype and one.shape == other.shape
    return form and np.array_equal(bits(one), bits(other))


def has_nan(array: np.ndarray) -> bool:
    """Whether an array has a number that is none."""
    return array.dtype.kind not in "biu" and bool(np.isnan(_numbers(array)).any())


def cast(name: str, array: np.ndarray, dtype: str) -> np.ndarray:
    """A float array in another dtype; what is no float is passed by.

    Raises InputError where a number becomes infinite, which the line says of `name`.
    """
    if not dtypes.name(array.dtype).removeprefix("b").startswith("float"):
        return array
    wanted = held(dtype)
    if wanted.names:  # bits under a name, which NumPy does not round to
        raise InputError(f"{dtype} needs ml_dtypes, not installed: pip install ml_dtypes")
    numbers = _numbers(array)
    with np.errstate(over="ignore"):
        made = numbers.astype(wanted)
    if (np.isinf(_numbers(made)) & ~np.isinf(numbers)).any():
        raise InputError(f"{name!r} has numbers that {dtype} does not reach")
    return made


def _numbers(array: np.ndarray) -> np.ndarray:
    narrow = dtypes.name(array.dtype).startswith("float8")
    return array.astype(np.float32) if narrow else dtypes.numbers(array)
