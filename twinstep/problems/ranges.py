"""What the values of a spec's fields may be."""

import math
from typing import Any, Literal, get_args, get_origin

import numpy as np

from twinstep.device_config import Dtype
from twinstep.errors import InputError, unknown

MAX_STEPS = 10**8
"""Updates of a run: more of them would take years, and their losses alone a GiB."""

_RANGES = {
    "seed": (-(2**63), 2**64 - 1),  # what torch.manual_seed takes
    "data_seed": (0, 2**32 - 1),  # and np.random.seed
    "steps": (1, MAX_STEPS),
    "epochs": (1, MAX_STEPS),
}
_ANY_SIZE = (1, 2**63 - 1)
_NOT_NEGATIVE = {"learning_rate", "eps"}
_FRACTIONS = {"betas"}  # each in [0, 1)


def as_float(value: Any, hint: Any) -> Any:
    """A whole number where a float is meant becomes one: PyTorch takes no mixture."""
    if isinstance(value, (tuple, list)):
        return tuple(as_float(part, float) for part in value)
    try:
        return float(value) if hint is float and type(value) is int else value
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def check(example: str, name: str, value: Any, hint: Any, dtype: str) -> None:
    """Refuses a value that its field's type or meaning rules out."""

    def refuse(expected: str) -> InputError:
        try:
            shown = repr(value)
        except ValueError:  # Python writes no number of more than 4300 digits
            shown = "a number of thousands of digits"
        return InputError(f"{example}: {name} is {shown}, expected {expected}")

    optional = type(None) in get_args(hint)
    if value is None and optional:
        return
    kind = get_args(hint)[0] if optional else hint
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise InputError(f"{example}: {unknown(name, value, get_args(kind))}")
    elif kind is bool:
        if not isinstance(value, bool):
            raise refuse("true or false")
    elif kind is int:
        if not _is_number(value, int):
            raise refuse("a whole number")
        low, high = _RANGES.get(name, _ANY_SIZE)
        if value < low:
            raise refuse(f"at least {low}")
        if value > high:
            raise refuse(f"at most {high}")
    elif kind is float:
        if not _is_number(value, (int, float)) or not math.isfinite(value):
            raise refuse("a finite number")
        if name in _NOT_NEGATIVE and value < 0:
            raise refuse("0 or more")
        if dtype in get_args(Dtype):
            least, largest = (float(getattr(np.finfo(dtype), name)) for name in ("tiny", "max"))
            if abs(value) > largest:
                raise refuse(f"at most {largest:.3g}, the largest {dtype}")
            if 0 < abs(value) < least:
                raise refuse(f"0 or at least {least:.3g}: XLA takes what is less for 0")
    elif kind is str:
        if not isinstance(value, str) or not value.strip():
            raise refuse("a name")
    elif name in _FRACTIONS and not (
        isinstance(value, tuple)
        and len(value) == 2
        and all(_is_number(part, (int, float)) and 0 <= part < 1 for part in value)
    ):
        raise refuse("two numbers from 0 up to, not with, 1")


def _is_number(value: object, kinds: type | tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)  # True is no 1
