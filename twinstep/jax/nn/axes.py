"""Numbers for each axis as torch.nn's layers keep them; tuples, as what is static is hashed."""

from collections.abc import Iterable
from typing import Any

from twinstep.errors import InputError


def kept(value: Any) -> Any:
    """A number as it is, a list as a tuple."""
    return tuple(value) if isinstance(value, list) else value


def repeated(value: Any, count: int) -> tuple[Any, ...]:
    """One for each of `count` axes; what is several already stays as it is, as in PyTorch."""
    return tuple(value) if isinstance(value, Iterable) else (value,) * count


def checked(what: str, **sizes: tuple[Any, int]) -> None:
    """InputError for sizes, tuples, that are not so many integers."""
    for name, (value, count) in sizes.items():
        if len(value) != count or not all(isinstance(v, int) and v > 0 for v in value):
            raise InputError(
                f"{what}: {name} is {value}, expected {count} integers from 1 on, or one for all"
            )
