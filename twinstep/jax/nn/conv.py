"""torch.nn's convolutions.

Letters: N samples, C channels, O output channels, k sizes of a kernel.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from twinstep.errors import check_arguments
from twinstep.jax.nn import functional, init
from twinstep.jax.nn.axes import checked, repeated
from twinstep.jax.nn.drawing import drawing
from twinstep.jax.nn.functional.windows import Sizes
from twinstep.jax.nn.module import Module, Parameter, default_dtype

__all__ = ["Conv1d", "Conv2d", "Conv3d"]

_MODES = ("zeros", "reflect", "replicate", "circular")


class AnyConv(Module):
    """What convolutions and transposed ones have in common: settings, parameters."""

    _rank: ClassVar[int]
    _function: ClassVar[Callable[..., jax.Array]]

    def _settle(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes,
        dilation: Sizes,
        groups: int,
        padding_mode: str,
    ) -> None:
        name, rank = type(self).__name__, self._rank
        check_arguments(
            name,
            groups=(groups, "an integer from 1 on", lambda v: v > 0),
            in_channels=(in_channels, f"a multiple of groups, {groups}", lambda v: v % groups == 0),
            out_channels=(
                out_channels,
                f"a multiple of groups, {groups}",
                lambda v: v % groups == 0,
            ),
        )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = repeated(kernel_size, rank)
        checked(name, kernel_size=(self.kernel_size, rank))
        self.stride, self.dilation = repeated(stride, rank), repeated(dilation, rank)
        self.padding_mode = padding_mode

    def _draw(self, channels: tuple[int, int], bias: bool, dtype: Any, draws: Any) -> None:
        """First values, uniform to the bound that PyTorch's fan gives: channels is (O, C / groups),
        of a transposed one (C, O / groups)."""
        dtype, shape = default_dtype(dtype), (*channels, *self.kernel_size)
        empty = jnp.zeros(shape, dtype)
        self.weight = Parameter(init.kaiming_uniform_(empty, 5**0.5, generator=draws))
        self.bias = None
        if bias:
            fan = math.prod(shape[1:])
            bound = 1 / fan**0.5 if fan else 0
            self.bias = Parameter(draws.uniform((self.out_channels,), -bound, bound, dtype))

    def _bias(self) -> jax.Array | None:
        return None if self.bias is None else self.bias[...]


class _Conv(AnyConv):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes | str = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        generator: Any = None,
        rngs: Any = None,
    ) -> None:
        self._settle(in_channels, out_channels, kernel_size, stride, dilation, groups, padding_mode)
        self.padding = padding if isinstance(padding, str) else repeated(padding, self._rank)
        check_arguments(
            type(self).__name__,
            padding=(
                padding,
                "a number, one for each axis, 'valid', or 'same' with a stride of 1",
                lambda v: (
                    not isinstance(v, str)
                    or v == "valid"
                    or (v == "same" and set(self.stride) == {1})
                ),
            ),
            padding_mode=(padding_mode, f"one of {_MODES}", lambda v: v in _MODES),
        )
        self._draw((out_channels, in_channels // groups), bias, dtype, drawing(generator, rngs))

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        padding = self.padding
        if self.padding_mode != "zeros":
            input = functional.pad(input, self._widths(), self.padding_mode)
            padding = (0,) * self._rank
        return type(self)._function(
            input,
            self.weight[...],
            self._bias(),
            self.stride,
            padding,
            self.dilation,
            self.groups,
        )

    def _widths(self) -> list[int]:
        """(before, after) of each axis, the last one first."""
        if isinstance(self.padding, str):
            spans = [
                d * (k - 1) * (self.padding == "same")
                for d, k in zip(self.dilation, self.kernel_size, strict=True)
            ]
            return [width for span in reversed(spans) for width in (span // 2, span - span // 2)]
        return [width for p in reversed(self.padding) for width in (p, p)]


class Conv1d(_Conv):
    """1-D convolution, that is cross-correlation.

    Args:
        in_channels, out_channels: C and O, multiples of groups.
        kernel_size, stride, dilation: A number, or one for each axis.
        padding: What is added on either side, the same; "valid": nothing; "same": what keeps the
            size.
        groups: Into how many parts the channels are split.
        bias: Whether a bias is added.
        padding_mode: What is added: "zeros", "reflect", "replicate" or "circular".
        device: Ignored.
        dtype: Of its parameters; None: float64 under x64, else float32.
        generator: What draws its first values: a TorchGenerator or a Generator; None: the default
            one, which `manual_seed` seeds.
        rngs: nnx.Rngs in its place.

    Shape:
        (N, C, L) to (N, O, L'), or both without N; weight (O, C / groups, k), bias (O,).

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> layer = nn.Conv1d(4, 6, 3, padding="same", groups=2)
        >>> layer(jnp.ones((1, 4, 5))).shape, layer.weight.shape
        ((1, 6, 5), (6, 2, 3))

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv1d.html
    """

    _rank = 1
    _function = staticmethod(functional.conv1d)


class Conv2d(_Conv):
    """2-D convolution, that is cross-correlation.

    Args:
        in_channels, out_channels: C and O, multiples of groups.
        kernel_size, stride, dilation: A number, or one for each axis.
        padding: What is added on either side, the same; "valid": nothing; "same": what keeps the
            size.
        groups: Into how many parts the channels are split.
        bias: Whether a bias is added.
        padding_mode: What is added: "zeros", "reflect", "replicate" or "circular".
        device: Ignored.
        dtype: Of its parameters; None: float64 under x64, else float32.
        generator: What draws its first values: a TorchGenerator or a Generator; None: the default
            one, which `manual_seed` seeds.
        rngs: nnx.Rngs in its place.

    Shape:
        (N, C, H, W) to (N, O, H', W'), or both without N; weight (O, C / groups, kH, kW), bias
        (O,).

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> layer = nn.Conv2d(4, 6, 3, padding="same", groups=2)
        >>> layer(jnp.ones((1, 4, 5, 5))).shape, layer.weight.shape
        ((1, 6, 5, 5), (6, 2, 3, 3))

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv2d.html
    """

    _rank = 2
    _function = staticmethod(functional.conv2d)


class Conv3d(_Conv):
    """3-D convolution, that is cross-correlation.

    Args:
        in_channels, out_channels: C and O, multiples of groups.
        kernel_size, stride, dilation: A number, or one for each axis.
        padding: What is added on either side, the same; "valid": nothing; "same": what keeps the
            size.
        groups: Into how many parts the channels are split.
        bias: Whether a bias is added.
        padding_mode: What is added: "zeros", "reflect", "replicate" or "circular".
        device: Ignored.
        dtype: Of its parameters; None: float64 under x64, else float32.
        generator: What draws its first values: a TorchGenerator or a Generator; None: the default
            one, which `manual_seed` seeds.
        rngs: nnx.Rngs in its place.

    Shape:
        (N, C, D, H, W) to (N, O, D', H', W'), or both without N; weight (O, C / groups, kD, kH,
        kW), bias (O,).

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> layer = nn.Conv3d(4, 6, 3, padding="same", groups=2)
        >>> layer(jnp.ones((1, 4, 5, 5, 5))).shape, layer.weight.shape
        ((1, 6, 5, 5, 5), (6, 2, 3, 3, 3))

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv3d.html
    """

    _rank = 3
    _function = staticmethod(functional.conv3d)
