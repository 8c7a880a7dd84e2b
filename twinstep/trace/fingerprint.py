"""A number that tells which batch a step was made on, without keeping the batch.

It sees every bit, and where it stands: samples that change places make another batch.
"""

import numpy as np

MIX = 0x9E3779B1
"""An odd number whose bits look random: 2**32 divided by the golden ratio."""


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
    position = np.arange(first, first + len(word), dtype=np.uint32)
    # the high bits of a float, where round numbers differ, go into the low ones too; then each
    # place has a factor of its own
    word = (word ^ (word >> np.uint32(15))) + np.uint32(1)
    return int(
        np.sum(
            word * (position * np.uint32(2 * MIX & 0xFFFFFFFF) + np.uint32(MIX)), dtype=np.uint32
        )
    )


def joined(parts: list[np.ndarray]) -> np.ndarray | list[np.ndarray]:
    """A batch's parts one after the other, (N, ...), scalars too; as they are if shapes differ."""
    if len(parts) == 1:
        return parts[0]
    alike = len({(one.shape[1:], one.dtype) for one in parts}) == 1
    return np.concatenate([np.atleast_1d(one) for one in parts]) if alike else parts
