"""Whether an array is another one, kept in fewer bits on the way."""

import numpy as np

_HALF = {"float16": (2.0**-11, 2.0**-25), "bfloat16": (2.0**-8, 0.0), "float32": (2.0**-24, 0.0)}
"""Half of what lies between two numbers, of their size and at the least; coarser ones first."""


def to(one: np.ndarray, other: np.ndarray, apart: float = 0.0) -> str:
    """The dtype whose numbers the second array has, each next to the first's; "": none.

    apart: how far the numbers before they were rounded may be from the first's
    """
    a, b = one.astype(float), other.astype(float)
    if not b.size or not (b != a).any():
        return ""
    for kind, (share, least) in _HALF.items():
        if kind == other.dtype.name or not np.array_equal(kept(b, kind), b):
            continue
        # rounded first to float32, as XLA does, and then to less: a little more than half
        if (np.abs(b - a) <= 1.01 * share * np.abs(a) + least + apart).all():
            return kind
    return ""


def kept(array: np.ndarray, kind: str) -> np.ndarray:
    """Numbers as a dtype has them, in float64."""
    with np.errstate(over="ignore"):
        if kind != "bfloat16":
            return array.astype(kind).astype(float)
        bits = array.astype("float32").view("uint32")
    up = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    kept = ((bits + up) >> np.uint32(16)) << np.uint32(16)
    found: np.ndarray = kept.view("float32").astype(float)
    return found
