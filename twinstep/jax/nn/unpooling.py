"""torch.nn's max unpools: entries put back where a max pool found them.

Letters: N samples, C channels.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import jax

from twinstep.jax.nn import functional
from twinstep.jax.nn.axes import repeated
from twinstep.jax.nn.functional.windows import Sizes
from twinstep.jax.nn.module import Module

__all__ = ["MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d"]


class _MaxUnpool(Module):
    _rank: ClassVar[int]
    _function: ClassVar[Callable[..., jax.Array]]

    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0) -> None:
        self.kernel_size = repeated(kernel_size, self._rank)
        self.stride = self.kernel_size if stride is None else repeated(stride, self._rank)
        self.padding = repeated(padding, self._rank)

    def forward(
        self, input: jax.Array, indices: jax.Array, output_size: Sequence[int] | None = None
    ) -> jax.Array:
        """As said above."""
        return type(self)._function(
            input, indices, self.kernel_size, self.stride, self.padding, output_size
        )


class MaxUnpool1d(_MaxUnpool):
    """What `MaxPool1d` took, back at its places, and 0 elsewhere.

    Args:
        kernel_size: Of that pool, a number.
        stride: The same; None: kernel_size.
        padding: The same.

    Shape:
        (N, C, L) to (N, C, L'), or both without N; `indices`: what the pool gave, int, the input's
        shape; `output_size`: the size, with or without N and C; None: the least that was pooled.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> pool, unpool = nn.MaxPool1d(2, return_indices=True), nn.MaxUnpool1d(2)
        >>> unpool(*pool(jnp.arange(2.0).reshape(1, 2))).ravel()[-2:].tolist()
        [0.0, 1.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxUnpool1d.html
    """

    _rank = 1
    _function = staticmethod(functional.max_unpool1d)


class MaxUnpool2d(_MaxUnpool):
    """What `MaxPool2d` took, back at its places, and 0 elsewhere.

    Args:
        kernel_size: Of that pool, a number or one for each axis.
        stride: The same; None: kernel_size.
        padding: The same.

    Shape:
        (N, C, H, W) to (N, C, H', W'), or both without N; `indices`: what the pool gave, int, the
        input's shape; `output_size`: the size, with or without N and C; None: the least that was
        pooled.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> pool, unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
        >>> unpool(*pool(jnp.arange(4.0).reshape(1, 2, 2))).ravel()[-2:].tolist()
        [0.0, 3.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxUnpool2d.html
    """

    _rank = 2
    _function = staticmethod(functional.max_unpool2d)


class MaxUnpool3d(_MaxUnpool):
    """What `MaxPool3d` took, back at its places, and 0 elsewhere.

    Args:
        kernel_size: Of that pool, a number or one for each axis.
        stride: The same; None: kernel_size.
        padding: The same.

    Shape:
        (N, C, D, H, W) to (N, C, D', H', W'), or both without N; `indices`: what the pool gave,
        int, the input's shape; `output_size`: the size, with or without N and C; None: the least
        that was pooled.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> pool, unpool = nn.MaxPool3d(2, return_indices=True), nn.MaxUnpool3d(2)
        >>> unpool(*pool(jnp.arange(8.0).reshape(1, 2, 2, 2))).ravel()[-2:].tolist()
        [0.0, 7.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxUnpool3d.html
    """

    _rank = 3
    _function = staticmethod(functional.max_unpool3d)
