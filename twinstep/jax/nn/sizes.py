"""What layers take for the sizes of their parameters."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

from twinstep.errors import check_arguments

__all__ = ["checked_sizes", "normalized"]


def checked_sizes(name: str, **sizes: Any) -> tuple[int, ...]:
    """Sizes as a shape. InputError for what is no integer, and for what is below 0.

    name: of the layer
    """
    check_arguments(
        name, **{key: (size, "an integer, 0 or more", _is_size) for key, size in sizes.items()}
    )
    return tuple(int(size) for size in sizes.values())


def normalized(name: str, normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    """The shape over which a layer normalizes. InputError for what is no shape."""
    shape: Any = (normalized_shape,) if isinstance(normalized_shape, Integral) else normalized_shape
    check_arguments(
        name,
        normalized_shape=(
            normalized_shape, "sizes, 0 or more", lambda _: all(map(_is_size, tuple(shape)))
        ),
    )  # fmt: skip
    return tuple(int(size) for size in shape)


def _is_size(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0
