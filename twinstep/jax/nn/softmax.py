"""torch.nn's softmax layers."""

import jax

from twinstep.errors import InputError
from twinstep.jax.nn import functional
from twinstep.jax.nn.module import Module

__all__ = [
    "LogSoftmax",
    "Softmax",
    "Softmax2d",
    "Softmin",
]


class Softmax(Module):
    """exp(x) divided by its sum along an axis.

    Args:
        dim: Along which axis; None, which PyTorch warns of: the first of 0, 1 or 3 axes, else the
            second.

    Shape:
        Any, the same.

    Raises:
        InputError: For an axis that there is not, when it is called.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.Softmax(0)(jnp.array([1.0, 1.0])).tolist()
        [0.5, 0.5]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Softmax.html
    """

    def __init__(self, dim: int | None = None) -> None:
        self.dim = dim

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.softmax(input, self.dim, _stacklevel=5)


class Softmax2d(Module):
    """The softmax over the channels at each place.

    Shape:
        (N, C, H, W) or (C, H, W), the same.

    Raises:
        InputError: For another number of axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.Softmax2d()(jnp.ones((2, 1, 1))).ravel().tolist()
        [0.5, 0.5]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Softmax2d.html
    """

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        if input.ndim not in (3, 4):
            raise InputError(
                f"Softmax2d: input is of shape {input.shape}, expected (N, C, H, W) or (C, H, W)"
            )
        return functional.softmax(input, -3)


class LogSoftmax(Module):
    """The logarithm of the softmax along an axis.

    Args:
        dim: Along which axis; None, which PyTorch warns of: the first of 0, 1 or 3 axes, else the
            second.

    Shape:
        Any, the same.

    Raises:
        InputError: For an axis that there is not, when it is called.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> [round(float(x), 4) for x in nn.LogSoftmax(0)(jnp.array([1.0, 1.0]))]
        [-0.6931, -0.6931]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LogSoftmax.html
    """

    def __init__(self, dim: int | None = None) -> None:
        self.dim = dim

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.log_softmax(input, self.dim, _stacklevel=5)


class Softmin(Module):
    """The softmax of -x along an axis.

    Args:
        dim: Along which axis; None, which PyTorch warns of: the first of 0, 1 or 3 axes, else the
            second.

    Shape:
        Any, the same.

    Raises:
        InputError: For an axis that there is not, when it is called.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> [round(float(x), 4) for x in nn.Softmin(0)(jnp.array([0.0, 1.0]))]
        [0.7311, 0.2689]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Softmin.html
    """

    def __init__(self, dim: int | None = None) -> None:
        self.dim = dim

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.softmin(input, self.dim, _stacklevel=5)
