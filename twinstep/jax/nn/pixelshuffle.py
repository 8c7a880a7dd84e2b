"""torch.nn's moves of pixels to channels and back."""

import jax

from twinstep.jax.nn import functional
from twinstep.jax.nn.module import Module

__all__ = ["PixelShuffle", "PixelUnshuffle"]


class PixelShuffle(Module):
    """Channels moved into the pixels: an image r times as high and wide.

    Args:
        upscale_factor: r, from 1 on.

    Shape:
        (..., C r^2, H, W) to (..., C, H r, W r).

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.PixelShuffle(2)(jnp.arange(4.0).reshape(4, 1, 1)).tolist()
        [[[0.0, 1.0], [2.0, 3.0]]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.PixelShuffle.html
    """

    def __init__(self, upscale_factor: int) -> None:
        self.upscale_factor = upscale_factor

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.pixel_shuffle(input, self.upscale_factor)


class PixelUnshuffle(Module):
    """Pixels moved into the channels: what `PixelShuffle` does, undone.

    Args:
        downscale_factor: r, from 1 on.

    Shape:
        (..., C, H r, W r) to (..., C r^2, H, W).

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.PixelUnshuffle(2)(jnp.arange(4.0).reshape(1, 2, 2)).ravel().tolist()
        [0.0, 1.0, 2.0, 3.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.PixelUnshuffle.html
    """

    def __init__(self, downscale_factor: int) -> None:
        self.downscale_factor = downscale_factor

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.pixel_unshuffle(input, self.downscale_factor)
