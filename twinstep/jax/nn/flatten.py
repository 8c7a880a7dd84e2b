"""torch.nn's changes of shape."""

import math
from collections.abc import Sequence

import jax

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn.module import Module

__all__ = ["Flatten", "Unflatten"]


class Flatten(Module):
    """Several axes made one.

    Args:
        start_dim, end_dim: The first and the last of them; negative ones count from the end.

    Shape:
        (..., *sizes, ...) to (..., their product, ...).

    Raises:
        InputError: For axes that the input lacks, or the first behind the last.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.Flatten()(jnp.ones((4, 3, 2))).shape
        (4, 6)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Flatten.html
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        first = _axis("Flatten", "start_dim", self.start_dim, input)
        last = _axis("Flatten", "end_dim", self.end_dim, input)
        if first > last:
            raise InputError(
                f"Flatten: start_dim is {self.start_dim}, expected none behind end_dim, "
                f"{self.end_dim}, for input of shape {input.shape}"
            )
        size = math.prod(input.shape[first : last + 1])
        return input.reshape(*input.shape[:first], size, *input.shape[last + 1 :])


class Unflatten(Module):
    """One axis made several.

    Args:
        dim: The axis; a negative one counts from the end.
        unflattened_size: The sizes, a tuple of ints, of which one may be -1: what is left.

    Shape:
        (..., size, ...) to (..., *unflattened_size, ...).

    Raises:
        InputError: For sizes whose product is another, an axis that the input lacks.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.Unflatten(1, (3, -1))(jnp.ones((4, 6))).shape
        (4, 3, 2)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Unflatten.html
    """

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        check_arguments(
            "Unflatten",
            unflattened_size=(
                unflattened_size,
                "a tuple of ints",
                lambda v: isinstance(v, tuple | list) and all(isinstance(n, int) for n in v),
            ),
        )
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        axis = _axis("Unflatten", "dim", self.dim, input)
        sizes, whole = self.unflattened_size, input.shape[axis : axis + 1] or (1,)
        known = math.prod(n for n in sizes if n != -1)
        if sizes.count(-1) == 1 and known > 0:
            sizes = tuple(whole[0] // known if n == -1 else n for n in sizes)
        if not sizes or min(sizes) < 0 or math.prod(sizes) != whole[0]:
            raise InputError(
                f"Unflatten: unflattened_size is {self.unflattened_size}, expected sizes whose "
                f"product is {whole[0]}, for axis {self.dim} of input of shape {input.shape}"
            )
        return input.reshape(*input.shape[:axis], *sizes, *input.shape[axis + 1 :])


def _axis(what: str, argument: str, dim: int, input: jax.Array) -> int:
    """An axis counted from the first; a single number has one too, as in PyTorch."""
    rank = max(input.ndim, 1)
    check_arguments(
        what,
        **{argument: (dim, f"an axis of {input.shape}", lambda v: -rank <= v < rank)},
    )
    return dim % rank
