"""Arrays between the frameworks: NumPy's, which has no bfloat16."""

from typing import Any

import numpy as np


def as_array(value: Any) -> np.ndarray:
    """A tensor, an array or a number as an array of its own; a bfloat16 tensor as float32."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    return np.array(value)


def for_torch(array: Any) -> np.ndarray:
    """What `torch.tensor` takes: a dtype that is NumPy's own, wide enough to lose nothing."""
    found = np.array(array)
    return found if found.dtype.isbuiltin == 1 else found.astype(np.float32)
