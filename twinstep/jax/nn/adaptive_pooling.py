"""torch.nn's adaptive pools: as many windows as are asked for, that cover each axis.

Letters: N samples, C channels.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import jax

from twinstep.jax.nn import functional
from twinstep.jax.nn.axes import kept
from twinstep.jax.nn.functional.adaptive_pooling import Counts
from twinstep.jax.nn.module import Module

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
]


class _AdaptiveAvgPool(Module):
    _function: ClassVar[Callable[..., jax.Array]]

    def __init__(self, output_size: Counts) -> None:
        self.output_size = kept(output_size)

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return type(self)._function(input, self.output_size)


class _AdaptiveMaxPool(Module):
    _function: ClassVar[Callable[..., Any]]

    def __init__(self, output_size: Counts, return_indices: bool = False) -> None:
        self.output_size, self.return_indices = kept(output_size), return_indices

    def forward(self, input: jax.Array) -> jax.Array | tuple[jax.Array, jax.Array]:
        """As said above."""
        pooled: jax.Array | tuple[jax.Array, jax.Array] = type(self)._function(
            input, self.output_size, self.return_indices
        )
        return pooled


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """1-D adaptive average pooling.

    Args:
        output_size: How many windows there are.

    Shape:
        (N, C, L) to (N, C, L'), or both without N.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.AdaptiveAvgPool1d(2)(jnp.ones((1, 2, 5))).shape
        (1, 2, 2)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveAvgPool1d.html
    """

    _function = staticmethod(functional.adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """2-D adaptive average pooling.

    Args:
        output_size: How many windows there are: one number, or one for each axis; None: as
            many as entries.

    Shape:
        (N, C, H, W) to (N, C, H', W'), or both without N.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.AdaptiveAvgPool2d(2)(jnp.ones((1, 2, 5, 5))).shape
        (1, 2, 2, 2)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveAvgPool2d.html
    """

    _function = staticmethod(functional.adaptive_avg_pool2d)


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """3-D adaptive average pooling.

    Args:
        output_size: How many windows there are: one number, or one for each axis; None: as
            many as entries.

    Shape:
        (N, C, D, H, W) to (N, C, D', H', W'), or both without N.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.AdaptiveAvgPool3d(2)(jnp.ones((1, 2, 5, 5, 5))).shape
        (1, 2, 2, 2, 2)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveAvgPool3d.html
    """

    _function = staticmethod(functional.adaptive_avg_pool3d)


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """1-D adaptive max pooling.

    Args:
        output_size: How many windows there are.
        return_indices: Whether the places of the largest are returned too.

    Shape:
        (N, C, L) to (N, C, L'), or both without N; with return_indices the places besides, int, in
        that axis.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.AdaptiveMaxPool1d(2)(jnp.ones((1, 2, 5))).shape
        (1, 2, 2)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveMaxPool1d.html
    """

    _function = staticmethod(functional.adaptive_max_pool1d)


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """2-D adaptive max pooling.

    Args:
        output_size: How many windows there are: one number, or one for each axis; None: as
            many as entries.
        return_indices: Whether the places of the largest are returned too.

    Shape:
        (N, C, H, W) to (N, C, H', W'), or both without N; with return_indices the places besides,
        int, in a channel's flat array.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.AdaptiveMaxPool2d(2)(jnp.ones((1, 2, 5, 5))).shape
        (1, 2, 2, 2)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveMaxPool2d.html
    """

    _function = staticmethod(functional.adaptive_max_pool2d)


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """3-D adaptive max pooling.

    Args:
        output_size: How many windows there are: one number, or one for each axis; None: as
            many as entries.
        return_indices: Whether the places of the largest are returned too.

    Shape:
        (N, C, D, H, W) to (N, C, D', H', W'), or both without N; with return_indices the places
        besides, int, in a channel's flat array.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.AdaptiveMaxPool3d(2)(jnp.ones((1, 2, 5, 5, 5))).shape
        (1, 2, 2, 2, 2)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveMaxPool3d.html
    """

    _function = staticmethod(functional.adaptive_max_pool3d)
