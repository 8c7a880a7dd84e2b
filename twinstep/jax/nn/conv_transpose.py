"""torch.nn's transposed convolutions.

Letters: N samples, C channels, O output channels, k sizes of a kernel.
"""

from collections.abc import Sequence
from typing import Any

import jax

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn import functional
from twinstep.jax.nn.axes import repeated
from twinstep.jax.nn.conv import AnyConv
from twinstep.jax.nn.drawing import drawing
from twinstep.jax.nn.functional.windows import Sizes

__all__ = ["ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]


class _ConvTranspose(AnyConv):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Sizes = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        generator: Any = None,
        rngs: Any = None,
    ) -> None:
        self._settle(in_channels, out_channels, kernel_size, stride, dilation, groups, padding_mode)
        check_arguments(
            type(self).__name__,
            padding=(padding, "a number, or one for each axis", lambda v: not isinstance(v, str)),
            padding_mode=(padding_mode, "'zeros'", lambda v: v == "zeros"),
        )
        self.padding = repeated(padding, self._rank)
        self.output_padding = repeated(output_padding, self._rank)
        self._draw((in_channels, out_channels // groups), bias, dtype, drawing(generator, rngs))

    def forward(self, input: jax.Array, output_size: Sequence[int] | None = None) -> jax.Array:
        """As said above."""
        more = self.output_padding if output_size is None else self._more(input, output_size)
        return type(self)._function(
            input,
            self.weight[...],
            self._bias(),
            self.stride,
            self.padding,
            more,
            self.groups,
            self.dilation,
        )

    def _more(self, input: jax.Array, output_size: Sequence[int]) -> tuple[int, ...]:
        """The output_padding that gives a size."""
        rank = self._rank
        leading = 2 if input.ndim == rank + 2 else 1
        asked = tuple(output_size)
        asked = asked[leading:] if len(asked) == leading + rank else asked
        sizes = input.shape[leading:]
        each = zip(sizes, self.stride, self.padding, self.dilation, self.kernel_size, strict=False)
        least = tuple((size - 1) * s - 2 * p + d * (k - 1) + 1 for size, s, p, d, k in each)
        if (
            len(asked) != rank
            or len(least) != rank
            or not all(v <= n < v + s for n, v, s in zip(asked, least, self.stride, strict=True))
        ):
            raise InputError(
                f"{type(self).__name__}: output_size is {tuple(output_size)}, expected {rank} "
                f"sizes from {least} on, less than stride {self.stride} more, for input of shape "
                f"{input.shape}"
            )
        return tuple(n - v for n, v in zip(asked, least, strict=True))


class ConvTranspose1d(_ConvTranspose):
    """1-D transposed convolution: what the gradient of `Conv1d` does to its output.

    Args:
        in_channels, out_channels: C and O, multiples of groups.
        kernel_size, stride, dilation: Of that convolution, a number or one for each axis.
        padding: Of that convolution: what is cut off on either side.
        output_padding: What is added at the end, less than the stride or the dilation.
        groups: Into how many parts the channels are split.
        bias: Whether a bias is added.
        padding_mode: "zeros".
        device: Ignored.
        dtype: Of its parameters; None: float64 under x64, else float32.
        generator: What draws its first values: a TorchGenerator or a Generator; None: the default
            one, which `manual_seed` seeds.
        rngs: nnx.Rngs in its place.

    Shape:
        (N, C, L) to (N, O, L'), or both without N; `output_size`: (L',), in
        output_padding's place, from the least that is possible to less than a stride more; weight
        (C, O / groups, k), bias (O,).

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> layer = nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1, groups=2)
        >>> layer(jnp.ones((1, 4, 5)), output_size=(10,)).shape, layer.weight.shape
        ((1, 6, 10), (4, 3, 3))

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ConvTranspose1d.html
    """

    _rank = 1
    _function = staticmethod(functional.conv_transpose1d)


class ConvTranspose2d(_ConvTranspose):
    """2-D transposed convolution: what the gradient of `Conv2d` does to its output.

    Args:
        in_channels, out_channels: C and O, multiples of groups.
        kernel_size, stride, dilation: Of that convolution, a number or one for each axis.
        padding: Of that convolution: what is cut off on either side.
        output_padding: What is added at the end, less than the stride or the dilation.
        groups: Into how many parts the channels are split.
        bias: Whether a bias is added.
        padding_mode: "zeros".
        device: Ignored.
        dtype: Of its parameters; None: float64 under x64, else float32.
        generator: What draws its first values: a TorchGenerator or a Generator; None: the default
            one, which `manual_seed` seeds.
        rngs: nnx.Rngs in its place.

    Shape:
        (N, C, H, W) to (N, O, H', W'), or both without N; `output_size`: (H', W'), in
        output_padding's place, from the least that is possible to less than a stride more; weight
        (C, O / groups, kH, kW), bias (O,).

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> layer = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2)
        >>> layer(jnp.ones((1, 4, 5, 5)), output_size=(10, 10)).shape, layer.weight.shape
        ((1, 6, 10, 10), (4, 3, 3, 3))

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ConvTranspose2d.html
    """

    _rank = 2
    _function = staticmethod(functional.conv_transpose2d)


class ConvTranspose3d(_ConvTranspose):
    """3-D transposed convolution: what the gradient of `Conv3d` does to its output.

    Args:
        in_channels, out_channels: C and O, multiples of groups.
        kernel_size, stride, dilation: Of that convolution, a number or one for each axis.
        padding: Of that convolution: what is cut off on either side.
        output_padding: What is added at the end, less than the stride or the dilation.
        groups: Into how many parts the channels are split.
        bias: Whether a bias is added.
        padding_mode: "zeros".
        device: Ignored.
        dtype: Of its parameters; None: float64 under x64, else float32.
        generator: What draws its first values: a TorchGenerator or a Generator; None: the default
            one, which `manual_seed` seeds.
        rngs: nnx.Rngs in its place.

    Shape:
        (N, C, D, H, W) to (N, O, D', H', W'), or both without N; `output_size`: (D', H', W'), in
        output_padding's place, from the least that is possible to less than a stride more; weight
        (C, O / groups, kD, kH, kW), bias (O,).

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> layer = nn.ConvTranspose3d(4, 6, 3, stride=2, padding=1, groups=2)
        >>> layer(jnp.ones((1, 4, 5, 5, 5)), output_size=(10, 10, 10)).shape, layer.weight.shape
        ((1, 6, 10, 10, 10), (4, 3, 3, 3, 3))

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ConvTranspose3d.html
    """

    _rank = 3
    _function = staticmethod(functional.conv_transpose3d)
