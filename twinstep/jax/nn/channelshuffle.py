"""torch.nn.ChannelShuffle."""

import jax

from twinstep.jax.nn import functional
from twinstep.jax.nn.module import Module

__all__ = ["ChannelShuffle"]


class ChannelShuffle(Module):
    """The channels of every group in turn: the first of each, then the second of each.

    Args:
        groups: A number that divides the channels.

    Shape:
        (N, C, ...), three axes at least, to the same.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.ChannelShuffle(2)(jnp.arange(6.0).reshape(1, 6, 1)).ravel().tolist()
        [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ChannelShuffle.html
    """

    def __init__(self, groups: int) -> None:
        self.groups = groups

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.channel_shuffle(input, self.groups)
