"""Weights of which no two entries are the same: what a converter makes of them says all it does."""

from collections.abc import Mapping

import numpy as np

from twinstep.errors import InputError
from twinstep.trace import dtypes

_WHOLE = 2**22
"""So many entries are whole numbers, whose sums are exact in float32 too."""
_MOST = 2**30


def probe(shapes: Mapping[str, tuple[tuple[int, ...], str]]) -> dict[str, np.ndarray]:
    """Arrays of unique numbers.

    Args:
        shapes: {name: (shape, dtype)}; a dtype of 16 bits is made in float32.

    Returns:
        {name: array}.

    Raises:
        InputError: For more entries than float32 has numbers for.

    Example:
        >>> from twinstep.port.probing import probe
        >>> probe({"weight": ((2, 2), "float64"), "bias": ((2,), "float64")})["bias"]
        array([5., 6.])

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html
    """
    sizes = [int(np.prod(shape)) for shape, _ in shapes.values()]
    if sum(sizes) > _MOST:
        raise InputError(f"a probe of {sum(sizes)} entries, expected at most {_MOST}")
    found, start = {}, 1
    for (name, (shape, dtype)), size in zip(shapes.items(), sizes, strict=True):
        if dtype not in dtypes.PRECISIONS:
            continue
        numbers = np.arange(start, start + size)
        if sum(sizes) <= _WHOLE:
            values = numbers.astype(np.float64)
        else:  # one float after the other, from 1 on
            values = (numbers + 0x3F800000).astype(np.uint32).view(np.float32).astype(np.float64)
        kind = np.float64 if dtype == "float64" else np.float32
        found[name] = values.astype(kind).reshape(shape)
        start += size
    return found
