"""torch.nn's dropouts: PyTorch's very masks, in a compiled step too.

What they draw from is a part of their state: `nnx.jit`, `nnx.split` and a scan that carries the
state go on from where the last step has stopped.
"""

from typing import Any

import jax

from twinstep.errors import check_arguments
from twinstep.jax.nn import functional
from twinstep.jax.nn.drawing import drawing
from twinstep.jax.nn.module import Module

__all__ = [
    "AlphaDropout",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "FeatureAlphaDropout",
]


class _Dropping(Module):
    def __init__(
        self, p: float = 0.5, inplace: bool = False, *, generator: Any = None, rngs: Any = None
    ) -> None:
        check_arguments(
            type(self).__name__, p=(p, "a probability, 0 to 1", lambda v: 0 <= float(v) <= 1)
        )
        self.p, self.inplace = p, inplace
        self.generator = drawing(generator, rngs, "dropout")


class Dropout(_Dropping):
    """Entries at random made 0 in training, and the others divided by 1 - p.

    Args:
        p: With which probability each is dropped.
        inplace: Not looked at: arrays are not written into.
        generator: What draws: a TorchGenerator or a Generator; None: the default one.
        rngs: nnx.Rngs in its place, of which the stream "dropout" is taken.

    Shape:
        Any, the same.

    Raises:
        InputError: For no probability; in training for no floats, and in a
            compiled function that does not take the module's state.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax import nn
        >>> nn.Dropout(generator=TorchGenerator(0))(jnp.ones(4)).tolist()
        [0.0, 0.0, 2.0, 0.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Dropout.html
    """

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.dropout(input, self.p, self.training, generator=self.generator)


class Dropout1d(_Dropping):
    """Channels at random made 0 in training, and the others divided by 1 - p.

    Args:
        p: With which probability each is dropped.
        inplace: Not looked at: arrays are not written into.
        generator: What draws: a TorchGenerator or a Generator; None: the default one.
        rngs: nnx.Rngs in its place, of which the stream "dropout" is taken.

    Shape:
        (N, C, L) or (C, L), the same.

    Raises:
        InputError: For no probability; in training for no floats or another number of axes, and in
            a compiled function that does not take the module's state.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax import nn
        >>> nn.Dropout1d(generator=TorchGenerator(0))(jnp.ones((3, 2))).tolist()
        [[0.0, 0.0], [0.0, 0.0], [2.0, 2.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Dropout1d.html
    """

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.dropout1d(input, self.p, self.training, generator=self.generator)


class Dropout2d(_Dropping):
    """Channels at random made 0 in training, and the others divided by 1 - p.

    Args:
        p: With which probability each is dropped.
        inplace: Not looked at: arrays are not written into.
        generator: What draws: a TorchGenerator or a Generator; None: the default one.
        rngs: nnx.Rngs in its place, of which the stream "dropout" is taken.

    Shape:
        (N, C, H, W), the same; PyTorch takes three axes for (N, C, L), and warns.

    Raises:
        InputError: For no probability; in training for no floats or fewer than 2 axes, and in a
            compiled function that does not take the module's state.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax import nn
        >>> nn.Dropout2d(generator=TorchGenerator(0))(jnp.ones((1, 3, 1, 1))).tolist()
        [[[[0.0]], [[0.0]], [[2.0]]]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Dropout2d.html
    """

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.dropout2d(input, self.p, self.training, generator=self.generator)


class Dropout3d(_Dropping):
    """Channels at random made 0 in training, and the others divided by 1 - p.

    Args:
        p: With which probability each is dropped.
        inplace: Not looked at: arrays are not written into.
        generator: What draws: a TorchGenerator or a Generator; None: the default one.
        rngs: nnx.Rngs in its place, of which the stream "dropout" is taken.

    Shape:
        (N, C, D, H, W) or (C, D, H, W), the same.

    Raises:
        InputError: For no probability; in training for no floats, and in a
            compiled function that does not take the module's state.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax import nn
        >>> nn.Dropout3d(generator=TorchGenerator(0))(jnp.ones((3, 1, 1, 1))).tolist()
        [[[[0.0]]], [[[0.0]]], [[[2.0]]]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Dropout3d.html
    """

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.dropout3d(input, self.p, self.training, generator=self.generator)


class AlphaDropout(_Dropping):
    """Entries at random set in training to what selu tends to, mean and variance kept.

    Args:
        p: With which probability each is dropped.
        inplace: Not looked at: arrays are not written into.
        generator: What draws: a TorchGenerator or a Generator; None: the default one.
        rngs: nnx.Rngs in its place, of which the stream "dropout" is taken.

    Shape:
        Any, the same.

    Raises:
        InputError: For no probability; in training for no floats, and in a
            compiled function that does not take the module's state.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax import nn
        >>> layer = nn.AlphaDropout(generator=TorchGenerator(0))
        >>> [round(float(x), 4) for x in layer(jnp.ones(3)).ravel()]
        [-0.7792, -0.7792, 1.6656]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AlphaDropout.html
    """

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.alpha_dropout(input, self.p, self.training, generator=self.generator)


class FeatureAlphaDropout(_Dropping):
    """Channels at random set in training to what selu tends to, mean and variance kept.

    Args:
        p: With which probability each is dropped.
        inplace: Not looked at: arrays are not written into.
        generator: What draws: a TorchGenerator or a Generator; None: the default one.
        rngs: nnx.Rngs in its place, of which the stream "dropout" is taken.

    Shape:
        (N, C, ...), the same.

    Raises:
        InputError: For no probability; in training for no floats or fewer than 2 axes, and in a
            compiled function that does not take the module's state.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax import nn
        >>> layer = nn.FeatureAlphaDropout(generator=TorchGenerator(0))
        >>> [round(float(x), 4) for x in layer(jnp.ones((1, 3))).ravel()]
        [-0.7792, -0.7792, 1.6656]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.FeatureAlphaDropout.html
    """

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.feature_alpha_dropout(
            input, self.p, self.training, generator=self.generator
        )
