"""A number that tells which batch a step was made on, without keeping the batch.

It sees every bit, and where it stands: samples that change places make another batch.
"""

from typing import Any

import numpy as np

PLACE = 0x9E3779B9
"""What tells places apart: 2**32 divided by the golden ratio."""
MIXES = ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1))
"""Shifts and factors after which each bit of a word decides over each bit of what it becomes.

They are those of C. Wellons' lowbias32.
"""


def words(array: np.ndarray) -> np.ndarray:
    """An array's numbers as 32-bit words, (n,): each whole number one, of a float its bits."""
    array = np.ascontiguousarray(array).reshape(-1)
    if array.dtype.kind in "fc" and array.dtype.itemsize >= 4:
        return array.view(np.uint32)
    if array.dtype.kind in "fcV":  # of 16 bits and fewer
        return array.view(f"u{array.dtype.itemsize}").astype(np.uint32)
    return array.astype(np.uint32)


def fingerprint(array: np.ndarray, first: int = 0) -> int:
    """The fingerprint of an array, from 0 to 2**32 - 1; the sum of those of its parts.

    first: how many words stand before it, where it is a part of a larger one
    """
    word = words(array)
    place = np.arange(first, first + len(word), dtype=np.uint32) * np.uint32(PLACE)
    return int(np.sum(mixed(word + place), dtype=np.uint32))


def mixed(word: Any) -> Any:
    """32-bit words, each made another such that what is alike becomes unlike; NumPy's or JAX's.

    A sum of words alone would be the same of many batches: of labels, which are small numbers.
    """
    for shift, factor in MIXES:
        word = (word ^ (word >> shift)) * word.dtype.type(factor)
    return word


def joined(parts: list[np.ndarray]) -> np.ndarray | list[np.ndarray]:
    """A batch's parts one after the other, (N, ...), scalars too; as they are if shapes differ."""
    if len(parts) == 1:
        return parts[0]
    alike = len({(one.shape[1:], one.dtype) for one in parts}) == 1
    return np.concatenate([np.atleast_1d(one) for one in parts]) if alike else parts
