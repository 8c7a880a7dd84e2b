"""The dtypes of a trace's leaves: how NumPy holds each, how a file does, and its eps.

NumPy has no bfloat16. Where ml_dtypes is installed, which JAX brings, its bfloat16 is used; else
the 16 bits under that name. Both are told by `name`, and read by `numbers`.
"""

import functools
from collections.abc import Mapping, Set
from typing import NamedTuple

import numpy as np

from twinstep.errors import InputError


class Precision(NamedTuple):
    """Of a float: eps, from 1 to the next number; lost: what may be taken for 0."""

    eps: float
    lost: float


_SINGLE, _DOUBLE = (
    Precision(float(np.finfo(d).eps), float(np.finfo(d).tiny)) for d in ("float32", "float64")
)
PRECISIONS = {
    "float32": _SINGLE,
    "float64": _DOUBLE,
    "bfloat16": Precision(2.0**-7, 2.0**-126),
    # computed in float32: nobody flushes what is below its tiny, but that has steps of 2**-24
    "float16": Precision(2.0**-10, 2.0**-24),
    "complex64": _SINGLE,
    "complex128": _DOUBLE,
}
WIDE = ("float32", "float64")
"""Of these a run has one, in which losses and counters are kept."""
OWN = tuple(name for name in PRECISIONS if name not in WIDE)
"""Of these a leaf may be in a run of any."""
_STORED_AS = {"bfloat16": "u2", "complex64": "f4", "complex128": "f8"}


@functools.cache
def bfloat16() -> np.dtype:
    """The dtype of arrays of bfloat16."""
    try:
        from ml_dtypes import bfloat16 as number
    except ImportError:
        return np.dtype([("bfloat16", "<u2")])
    held: np.dtype = np.dtype(number)
    return held


def name(dtype: np.dtype) -> str:
    """What a dtype is called; of bits that are held under a name, that."""
    return dtype.names[0] if dtype.names else dtype.name


def judged(dtype: np.dtype) -> bool:
    """Whether it is a float that is judged by an allowance, or compared bit for bit."""
    return name(dtype) in PRECISIONS or dtype.kind in "biu"


def precision(dtype: str) -> Precision:
    """Of a dtype by name; of integers, which are equal or not, nothing."""
    return PRECISIONS.get(dtype, Precision(0.0, 0.0))


def of_run(params: Mapping[str, str]) -> str:
    """The dtype of a run by those of its parameters, in which its losses are kept.

    InputError for a dtype that is none of ours, and for float32 beside double precision.
    """
    expected = f"expected {', '.join(PRECISIONS)}"
    for param, kind in params.items():
        if kind not in PRECISIONS:
            raise InputError(f"parameter {param!r} is {kind}, {expected}")
    kinds = set(params.values())
    if not in_one_run(kinds):
        raise InputError(
            f"parameters are {' and '.join(sorted(kinds))}, expected one of float32 and float64"
        )
    return "float64" if kinds & {"float64", "complex128"} else "float32"


def in_one_run(kinds: Set[str]) -> bool:
    """Whether parameters of these dtypes are trained in one run: they have one precision."""
    double = kinds & {"float64", "complex128"}
    return kinds <= PRECISIONS.keys() and not (double and "float32" in kinds)


def numbers(array: np.ndarray) -> np.ndarray:
    """The values, as NumPy can compute with them: of 16 bits in float32, which holds each."""
    if name(array.dtype) == "bfloat16":
        # a loss of one number has no axis, and a view keeps that
        return np.asarray(array.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array.astype(np.float32) if array.dtype == np.float16 else array


def stored(key: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """A leaf as every safetensors has it: bfloat16 as its bits, complex as pairs of floats.

    The key then begins with the dtype's name, which no stage has.
    """
    array, kind = np.ascontiguousarray(array).reshape(array.shape), name(array.dtype)
    if kind not in _STORED_AS:
        return key, array
    pair = (2,) if array.dtype.kind == "c" else ()
    bits = array.reshape(-1).view(_STORED_AS[kind]).reshape((*array.shape, *pair))
    return f"{kind}/{key}", bits


def key_of(key: str) -> str:
    """Under which key `stored` was given what stands under this one."""
    kind, _, rest = key.partition("/")
    return rest if kind in _STORED_AS else key


def read(key: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """What `stored` made an array of. ValueError for what it cannot have made."""
    kind, _, rest = key.partition("/")
    if kind not in _STORED_AS:
        return key, array
    pair = 1 if kind.startswith("complex") else 0
    if array.dtype != _STORED_AS[kind] or array.shape[array.ndim - pair :] != (2,) * pair:
        raise ValueError(f"{rest} is {array.dtype} of shape {array.shape}, which is no {kind}")
    dtype = np.dtype(kind) if pair else bfloat16()
    shape = array.shape[: array.ndim - pair]
    return rest, np.ascontiguousarray(array).reshape(-1).view(dtype).reshape(shape)
