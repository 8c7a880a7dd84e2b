"""torch.nn's paddings with a number."""

from collections.abc import Sequence
from typing import ClassVar

import jax

from twinstep.jax.nn import functional
from twinstep.jax.nn.axes import repeated
from twinstep.jax.nn.module import Module

__all__ = [
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
]

Widths = int | Sequence[int]
"""One number for all edges, or (before, after) of the last axis, of the last but one, ..."""


class _ConstantPad(Module):
    _rank: ClassVar[int]

    def __init__(self, padding: Widths, value: float) -> None:
        self.padding, self.value = repeated(padding, 2 * self._rank), value

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.pad(input, self.padding, "constant", self.value)


class _ZeroPad(_ConstantPad):
    def __init__(self, padding: Widths) -> None:
        super().__init__(padding, 0.0)


class ConstantPad1d(_ConstantPad):
    """The last axis with a number before and after it.

    Args:
        padding: (before, after), or one number for all; negative ones cut off.
        value: The number.

    Shape:
        (..., L) to (..., L').

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.ConstantPad1d((1, 0), 9.0)(jnp.array([[1.0, 2.0, 3.0]])).tolist()
        [[9.0, 1.0, 2.0, 3.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ConstantPad1d.html
    """

    _rank = 1


class ConstantPad2d(_ConstantPad):
    """The last two axes with a number before and after them.

    Args:
        padding: (left, right, top, bottom), or one number for all; negative ones cut off.
        value: The number.

    Shape:
        (..., H, W) to (..., H', W').

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.ConstantPad2d((1, 0, 0, 0), 9.0)(jnp.array([[[1.0, 2.0, 3.0]]]))[0].tolist()
        [[9.0, 1.0, 2.0, 3.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ConstantPad2d.html
    """

    _rank = 2


class ConstantPad3d(_ConstantPad):
    """The last three axes with a number before and after them.

    Args:
        padding: (left, right, top, bottom, front, back), or one number for all; negative ones cut
            off.
        value: The number.

    Shape:
        (..., D, H, W) to (..., D', H', W').

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.ConstantPad3d((1, 0, 0, 0, 0, 0), 9.0)(jnp.array([[[[1.0, 2.0]]]]))[0, 0].tolist()
        [[9.0, 1.0, 2.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ConstantPad3d.html
    """

    _rank = 3


class ZeroPad1d(_ZeroPad):
    """The last axis with zeros before and after it.

    Args:
        padding: (before, after), or one number for all; negative ones cut off.

    Shape:
        (..., L) to (..., L').

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.ZeroPad1d((1, 0))(jnp.array([[1.0, 2.0, 3.0]])).tolist()
        [[0.0, 1.0, 2.0, 3.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ZeroPad1d.html
    """

    _rank = 1


class ZeroPad2d(_ZeroPad):
    """The last two axes with zeros before and after them.

    Args:
        padding: (left, right, top, bottom), or one number for all; negative ones cut off.

    Shape:
        (..., H, W) to (..., H', W').

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.ZeroPad2d((1, 0, 0, 0))(jnp.array([[[1.0, 2.0, 3.0]]]))[0].tolist()
        [[0.0, 1.0, 2.0, 3.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ZeroPad2d.html
    """

    _rank = 2


class ZeroPad3d(_ZeroPad):
    """The last three axes with zeros before and after them.

    Args:
        padding: (left, right, top, bottom, front, back), or one number for all; negative ones cut
            off.

    Shape:
        (..., D, H, W) to (..., D', H', W').

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.ZeroPad3d((1, 0, 0, 0, 0, 0))(jnp.array([[[[1.0, 2.0, 3.0]]]]))[0, 0].tolist()
        [[0.0, 1.0, 2.0, 3.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ZeroPad3d.html
    """

    _rank = 3
