"""torch.nn's paddings with what the input has: its other end, its mirror image, its edges.

Letters: N samples, C channels.
"""

from typing import ClassVar

import jax

from twinstep.errors import InputError
from twinstep.jax.nn import functional
from twinstep.jax.nn.axes import repeated
from twinstep.jax.nn.module import Module
from twinstep.jax.nn.padding import Widths

__all__ = [
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
]


class _Pad(Module):
    _rank: ClassVar[int]
    _mode: ClassVar[str]

    def __init__(self, padding: Widths) -> None:
        self.padding = repeated(padding, 2 * self._rank)

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.pad(input, self.padding, self._mode)


class _CircularPad(_Pad):
    _mode = "circular"

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        if input.ndim not in (self._rank + 1, self._rank + 2):
            raise InputError(
                f"{type(self).__name__}: input is of shape {input.shape}, expected "
                f"{self._rank + 1} or {self._rank + 2} axes"
            )
        return super().forward(input)


class _ReflectionPad(_Pad):
    _mode = "reflect"


class _ReplicationPad(_Pad):
    _mode = "replicate"


class CircularPad1d(_CircularPad):
    """The last axis with its other end before and after it.

    Args:
        padding: (before, after), at most an axis's length, or one number for all; negative ones cut
            off.

    Shape:
        (N, C, L) to (N, C, L'), or both without N.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.CircularPad1d((1, 0))(jnp.array([[1.0, 2.0, 3.0]])).tolist()
        [[3.0, 1.0, 2.0, 3.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.CircularPad1d.html
    """

    _rank = 1


class CircularPad2d(_CircularPad):
    """The last two axes with their other ends before and after them.

    Args:
        padding: (left, right, top, bottom), at most an axis's length, or one number for all;
            negative ones cut off.

    Shape:
        (N, C, H, W) to (N, C, H', W'), or both without N.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.CircularPad2d((1, 0, 0, 0))(jnp.array([[[1.0, 2.0, 3.0]]]))[0].tolist()
        [[3.0, 1.0, 2.0, 3.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.CircularPad2d.html
    """

    _rank = 2


class CircularPad3d(_CircularPad):
    """The last three axes with their other ends before and after them.

    Args:
        padding: (left, right, top, bottom, front, back), at most an axis's length, or one number
            for all; negative ones cut off.

    Shape:
        (N, C, D, H, W) to (N, C, D', H', W'), or both without N.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.CircularPad3d((1, 0, 0, 0, 0, 0))(jnp.array([[[[1.0, 2.0, 3.0]]]]))[0, 0].tolist()
        [[3.0, 1.0, 2.0, 3.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.CircularPad3d.html
    """

    _rank = 3


class ReflectionPad1d(_ReflectionPad):
    """The last axis with its mirror image before and after it, the edge once.

    Args:
        padding: (before, after), less than an axis's length, or one number for all; negative ones
            cut off.

    Shape:
        (N, C, L) to (N, C, L'), or both without N.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.ReflectionPad1d((1, 0))(jnp.array([[1.0, 2.0, 3.0]])).tolist()
        [[2.0, 1.0, 2.0, 3.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReflectionPad1d.html
    """

    _rank = 1


class ReflectionPad2d(_ReflectionPad):
    """The last two axes with their mirror images before and after them, the edges once.

    Args:
        padding: (left, right, top, bottom), less than an axis's length, or one number for all;
            negative ones cut off.

    Shape:
        (N, C, H, W) to (N, C, H', W'), or both without N.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.ReflectionPad2d((1, 0, 0, 0))(jnp.array([[[1.0, 2.0, 3.0]]]))[0].tolist()
        [[2.0, 1.0, 2.0, 3.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReflectionPad2d.html
    """

    _rank = 2


class ReflectionPad3d(_ReflectionPad):
    """The last three axes with their mirror images before and after them, the edges once.

    Args:
        padding: (left, right, top, bottom, front, back), less than an axis's length, or one number
            for all; negative ones cut off.

    Shape:
        (N, C, D, H, W) to (N, C, D', H', W'), or both without N.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.ReflectionPad3d((1, 0, 0, 0, 0, 0))(jnp.array([[[[1.0, 2.0, 3.0]]]]))[0, 0].tolist()
        [[2.0, 1.0, 2.0, 3.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReflectionPad3d.html
    """

    _rank = 3


class ReplicationPad1d(_ReplicationPad):
    """The last axis with its edges before and after it.

    Args:
        padding: (before, after), or one number for all; negative ones cut off.

    Shape:
        (N, C, L) to (N, C, L'), or both without N.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.ReplicationPad1d((1, 0))(jnp.array([[1.0, 2.0, 3.0]])).tolist()
        [[1.0, 1.0, 2.0, 3.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReplicationPad1d.html
    """

    _rank = 1


class ReplicationPad2d(_ReplicationPad):
    """The last two axes with their edges before and after them.

    Args:
        padding: (left, right, top, bottom), or one number for all; negative ones cut off.

    Shape:
        (N, C, H, W) to (N, C, H', W'), or both without N.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.ReplicationPad2d((1, 0, 0, 0))(jnp.array([[[1.0, 2.0, 3.0]]]))[0].tolist()
        [[1.0, 1.0, 2.0, 3.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReplicationPad2d.html
    """

    _rank = 2


class ReplicationPad3d(_ReplicationPad):
    """The last three axes with their edges before and after them.

    Args:
        padding: (left, right, top, bottom, front, back), or one number for all; negative ones cut
            off.

    Shape:
        (N, C, D, H, W) to (N, C, D', H', W'), or both without N.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.ReplicationPad3d((1, 0, 0, 0, 0, 0))(jnp.array([[[[1.0, 2.0, 3.0]]]]))[0, 0].tolist()
        [[1.0, 1.0, 2.0, 3.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReplicationPad3d.html
    """

    _rank = 3
