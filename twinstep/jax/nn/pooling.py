"""torch.nn's pools: max, average, power average.

Letters: N samples, C channels.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import jax

from twinstep.jax.nn import functional
from twinstep.jax.nn.axes import kept, repeated
from twinstep.jax.nn.functional.windows import Sizes
from twinstep.jax.nn.module import Module

__all__ = [
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
]


class _MaxPool(Module):
    _function: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        self.kernel_size = kept(kernel_size)
        self.stride = self.kernel_size if stride is None else kept(stride)
        self.padding, self.dilation = kept(padding), kept(dilation)
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, input: jax.Array) -> jax.Array | tuple[jax.Array, jax.Array]:
        """As said above."""
        pooled: jax.Array | tuple[jax.Array, jax.Array] = type(self)._function(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=self.return_indices,
        )
        return pooled


class MaxPool1d(_MaxPool):
    """1-D max pooling.

    Args:
        kernel_size, dilation: A number, or one for each axis.
        stride: The same; None: kernel_size.
        padding: Of what is below every number, on either side, at most half a window.
        return_indices: Whether the places of the largest are returned too.
        ceil_mode: Whether a window may reach beyond the end.

    Shape:
        (N, C, L) to (N, C, L'), or both without N; with return_indices the places besides, int, in
        that axis.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.MaxPool1d(2)(jnp.ones((1, 2, 4))).shape
        (1, 2, 2)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxPool1d.html
    """

    _function = staticmethod(functional.max_pool1d)


class MaxPool2d(_MaxPool):
    """2-D max pooling.

    Args:
        kernel_size, dilation: A number, or one for each axis.
        stride: The same; None: kernel_size.
        padding: Of what is below every number, on either side, at most half a window.
        return_indices: Whether the places of the largest are returned too.
        ceil_mode: Whether a window may reach beyond the end.

    Shape:
        (N, C, H, W) to (N, C, H', W'), or both without N; with return_indices the places besides,
        int, in a channel's flat array.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.MaxPool2d(2)(jnp.ones((1, 2, 4, 4))).shape
        (1, 2, 2, 2)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxPool2d.html
    """

    _function = staticmethod(functional.max_pool2d)


class MaxPool3d(_MaxPool):
    """3-D max pooling.

    Args:
        kernel_size, dilation: A number, or one for each axis.
        stride: The same; None: kernel_size.
        padding: Of what is below every number, on either side, at most half a window.
        return_indices: Whether the places of the largest are returned too.
        ceil_mode: Whether a window may reach beyond the end.

    Shape:
        (N, C, D, H, W) to (N, C, D', H', W'), or both without N; with return_indices the places
        besides, int, in a channel's flat array.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.MaxPool3d(2)(jnp.ones((1, 2, 4, 4, 4))).shape
        (1, 2, 2, 2, 2)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxPool3d.html
    """

    _function = staticmethod(functional.max_pool3d)


class AvgPool1d(Module):
    """1-D average pooling.

    Args:
        kernel_size: A number.
        stride: The same; None: kernel_size.
        padding: Of zeros on either side, at most half a window.
        ceil_mode: Whether a window may reach beyond the end; what is there is never counted.
        count_include_pad: Whether the zeros are counted.

    Shape:
        (N, C, L) to (N, C, L'), or both without N.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.AvgPool1d(2, padding=1)(jnp.ones((1, 3))).tolist()
        [[0.5, 1.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AvgPool1d.html
    """

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self.kernel_size = repeated(kernel_size, 1)
        self.stride = self.kernel_size if stride is None else repeated(stride, 1)
        self.padding = repeated(padding, 1)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.avg_pool1d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
        )


class _AvgPool(Module):
    _function: ClassVar[Callable[..., jax.Array]]

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        self.kernel_size = kept(kernel_size)
        self.stride = self.kernel_size if stride is None else kept(stride)
        self.padding = kept(padding)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return type(self)._function(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )


class AvgPool2d(_AvgPool):
    """2-D average pooling.

    Args:
        kernel_size: A number, or one for each axis.
        stride: The same; None: kernel_size.
        padding: Of zeros on either side, at most half a window.
        ceil_mode: Whether a window may reach beyond the end; what is there is never counted.
        count_include_pad: Whether the zeros are counted.
        divisor_override: What every sum is divided by, not 0; None: the number of entries.

    Shape:
        (N, C, H, W) to (N, C, H', W'), or both without N.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.AvgPool2d(2, padding=1)(jnp.ones((1, 3, 3))).ravel()[:2].tolist()
        [0.25, 0.5]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AvgPool2d.html
    """

    _function = staticmethod(functional.avg_pool2d)


class AvgPool3d(_AvgPool):
    """3-D average pooling.

    Args:
        kernel_size: A number, or one for each axis.
        stride: The same; None: kernel_size.
        padding: Of zeros on either side, at most half a window.
        ceil_mode: Whether a window may reach beyond the end; what is there is never counted.
        count_include_pad: Whether the zeros are counted.
        divisor_override: What every sum is divided by, not 0; None: the number of entries.

    Shape:
        (N, C, D, H, W) to (N, C, D', H', W'), or both without N.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.AvgPool3d(2, padding=1)(jnp.ones((1, 3, 3, 3))).ravel()[:2].tolist()
        [0.125, 0.25]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AvgPool3d.html
    """

    _function = staticmethod(functional.avg_pool3d)


class _LPPool(Module):
    _function: ClassVar[Callable[..., jax.Array]]

    def __init__(
        self,
        norm_type: float,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        ceil_mode: bool = False,
    ) -> None:
        self.norm_type, self.ceil_mode = norm_type, ceil_mode
        self.kernel_size, self.stride = kept(kernel_size), kept(stride)

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return type(self)._function(
            input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode
        )


class LPPool1d(_LPPool):
    """1-D power-average pooling: the root of the windows' sums of powers.

    Args:
        norm_type: The power, not 0; at infinity it is a max pool of the absolute values.
        kernel_size: A number.
        stride: The same; None: kernel_size.
        ceil_mode: Whether a window may reach beyond the end.

    Shape:
        (N, C, L) to (N, C, L'), or both without N.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.LPPool1d(1, 2)(jnp.ones((1, 2))).ravel().tolist()
        [2.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LPPool1d.html
    """

    _function = staticmethod(functional.lp_pool1d)


class LPPool2d(_LPPool):
    """2-D power-average pooling: the root of the windows' sums of powers.

    Args:
        norm_type: The power, not 0; at infinity it is a max pool of the absolute values.
        kernel_size: A number, or one for each axis.
        stride: The same; None: kernel_size.
        ceil_mode: Whether a window may reach beyond the end.

    Shape:
        (N, C, H, W) to (N, C, H', W'), or both without N.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.LPPool2d(1, 2)(jnp.ones((1, 2, 2))).ravel().tolist()
        [4.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LPPool2d.html
    """

    _function = staticmethod(functional.lp_pool2d)


class LPPool3d(_LPPool):
    """3-D power-average pooling: the root of the windows' sums of powers.

    Args:
        norm_type: The power, not 0; at infinity it is a max pool of the absolute values.
        kernel_size: A number, or one for each axis.
        stride: The same; None: kernel_size.
        ceil_mode: Whether a window may reach beyond the end.

    Shape:
        (N, C, D, H, W) to (N, C, D', H', W'), or both without N.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.LPPool3d(1, 2)(jnp.ones((1, 2, 2, 2))).ravel().tolist()
        [8.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LPPool3d.html
    """

    _function = staticmethod(functional.lp_pool3d)
