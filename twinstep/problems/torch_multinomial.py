"""How `torch.multinomial` chooses categories by what it has drawn."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twinstep.errors import InputError, check_arguments
from twinstep.problems.torch_engine import is_integer
from twinstep.problems.torch_rounding import FloatArray


def checked(weights: ArrayLike, num_samples: int, replacement: bool) -> FloatArray:
    """Weights as an array, where PyTorch takes them.

    Args:
        weights: (C,) or (N, C).
        num_samples: How many categories to draw of each row.
        replacement: Whether a category may be drawn again.

    Raises:
        InputError: For what `TorchGenerator.multinomial` refuses before it draws.
    """
    found: NDArray[Any] = np.asarray(weights)
    if (
        found.dtype not in (np.float32, np.float64)
        or found.ndim not in (1, 2)
        or found.shape[-1] < 1
    ):
        raise InputError(
            f"weights are {found.dtype} of shape {found.shape}, expected float32 or float64 of "
            "shape (C,) or (N, C), C at least 1"
        )
    most = 2**63 - 1 if replacement else found.shape[-1]
    check_arguments(
        "TorchGenerator",
        num_samples=(num_samples, f"an integer in 1 to {most}", lambda n: is_integer(n, 1, most)),
    )
    with np.errstate(over="ignore"):
        sums = found.sum(axis=-1)
    if not ((found >= 0).all() and (sums > 0).all() and np.isfinite(sums).all()):
        raise InputError("weights have a negative entry, or a sum that is 0 or not finite")
    return found


def by_sums(weights: FloatArray, uniforms: FloatArray) -> NDArray[np.int64]:
    """(N, S) categories, with replacement: where (N, S) uniforms fall in sums of (N, C) weights."""
    sums = np.cumsum(weights, axis=1, dtype=weights.dtype)
    sums /= sums[:, -1:]
    sums[:, -1] = 1
    found = [np.searchsorted(row, wanted) for row, wanted in zip(sums, uniforms, strict=True)]
    return np.array(found, np.int64).reshape(uniforms.shape)


def by_order(scores: FloatArray, count: int) -> NDArray[np.int64]:
    """(N, count) categories, each once: those of the largest of (N, C) scores, the largest first.

    Raises:
        InputError: Where the order hangs on a tie.
    """
    order = np.argsort(-scores, axis=1, kind="stable")[:, : count + 1]
    ranked = np.take_along_axis(scores, order, axis=1)
    if (ranked[:, 1:] == ranked[:, :-1]).any():
        raise InputError("two categories tie, and PyTorch's order of them is not reproduced")
    return order[:, :count].astype(np.int64)
