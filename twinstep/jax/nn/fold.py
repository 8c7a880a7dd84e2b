"""torch.nn's moves of an image's blocks to columns and back."""

import jax

from twinstep.jax.nn import functional
from twinstep.jax.nn.axes import kept
from twinstep.jax.nn.functional.windows import Sizes
from twinstep.jax.nn.module import Module

__all__ = ["Fold", "Unfold"]


class Fold(Module):
    """The image whose blocks are the columns, summed up where they overlap.

    Args:
        output_size: (H, W), or one number for both.
        kernel_size, dilation, stride: A number, or one for each axis.
        padding: Of zeros on either side, the same.

    Shape:
        (N, C kH kW, L) to (N, C, H, W), or both without N; L blocks, row by row.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.Fold((2, 3), 2)(jnp.ones((4, 2))).tolist()
        [[[1.0, 2.0, 1.0], [1.0, 2.0, 1.0]]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Fold.html
    """

    def __init__(
        self,
        output_size: Sizes,
        kernel_size: Sizes,
        dilation: Sizes = 1,
        padding: Sizes = 0,
        stride: Sizes = 1,
    ) -> None:
        self.output_size, self.kernel_size = kept(output_size), kept(kernel_size)
        self.dilation, self.padding, self.stride = kept(dilation), kept(padding), kept(stride)

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.fold(
            input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride
        )


class Unfold(Module):
    """Every block of an image as a column.

    Args:
        kernel_size, dilation, stride: A number, or one for each axis.
        padding: Of zeros on either side, the same.

    Shape:
        (N, C, H, W) to (N, C kH kW, L), or both without N; L blocks, row by row.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.Unfold(2)(jnp.arange(6.0).reshape(1, 2, 3)).tolist()
        [[0.0, 1.0], [1.0, 2.0], [3.0, 4.0], [4.0, 5.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Unfold.html
    """

    def __init__(
        self, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1
    ) -> None:
        self.kernel_size = kept(kernel_size)
        self.dilation, self.padding, self.stride = kept(dilation), kept(padding), kept(stride)

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)
