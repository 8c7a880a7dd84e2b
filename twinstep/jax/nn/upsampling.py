"""torch.nn's upsamplings: `nn.functional.interpolate` as a layer.

Letters: N samples, C channels.
"""

from typing import Any

import jax

from twinstep.errors import InputError
from twinstep.jax.nn import functional
from twinstep.jax.nn.axes import kept
from twinstep.jax.nn.functional.interpolation import Factor, Size
from twinstep.jax.nn.module import Module

__all__ = ["Upsample", "UpsamplingBilinear2d", "UpsamplingNearest2d"]


class Upsample(Module):
    """The input resampled to a size, or by a factor.

    Args:
        size: The output's, a number or one for each axis; or
        scale_factor: what the input's is multiplied with and rounded down, a number or a tuple.
        mode: "nearest", "nearest-exact", "area"; "linear" for 1 axis, "bilinear", "bicubic" for 2,
            "trilinear" for 3.
        align_corners: Whether the first and last entries' centres stay where they are, and not the
            edges; for the modes of the second kind alone.
        recompute_scale_factor: Whether the sizes' ratio is gone by, and not scale_factor.

    Shape:
        (N, C, L), (N, C, H, W) or (N, C, D, H, W) to the same axes of other sizes.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.Upsample(scale_factor=2, mode="linear")(jnp.array([[[1.0, 2.0]]])).tolist()
        [[[1.0, 1.25, 1.75, 2.0]]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Upsample.html
    """

    def __init__(
        self,
        size: Size = None,
        scale_factor: Factor = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        self.size, self.scale_factor = kept(size), self._factor(scale_factor)
        self.mode, self.align_corners = mode, align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def _factor(self, given: Any) -> Any:
        try:
            if isinstance(given, tuple):
                return tuple(float(factor) for factor in given)
            return float(given) if given else None
        except (TypeError, ValueError):
            raise InputError(
                f"{type(self).__name__}: scale_factor is {given!r}, expected a number or a tuple "
                "of numbers"
            ) from None

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.interpolate(
            input,
            self.size,
            self.scale_factor,
            self.mode,
            self.align_corners,
            recompute_scale_factor=self.recompute_scale_factor,
        )


class UpsamplingNearest2d(Upsample):
    """An image resampled with the mode "nearest".

    Args:
        size: The output's, a number or one for each axis; or
        scale_factor: what the input's is multiplied with and rounded down, a number or a tuple.

    Shape:
        (N, C, H, W) to (N, C, H', W').

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.UpsamplingNearest2d(scale_factor=2)(jnp.array([[[[1.0, 2.0]]]])).tolist()
        [[[[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.UpsamplingNearest2d.html
    """

    def __init__(self, size: Size = None, scale_factor: Factor = None) -> None:
        super().__init__(size, scale_factor, mode="nearest")


class UpsamplingBilinear2d(Upsample):
    """An image resampled with the mode "bilinear" and align_corners.

    Args:
        size: The output's, a number or one for each axis; or
        scale_factor: what the input's is multiplied with and rounded down, a number or a tuple.

    Shape:
        (N, C, H, W) to (N, C, H', W').

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.UpsamplingBilinear2d(size=(1, 3))(jnp.array([[[[1.0, 3.0]]]])).tolist()
        [[[[1.0, 2.0, 3.0]]]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.UpsamplingBilinear2d.html
    """

    def __init__(self, size: Size = None, scale_factor: Factor = None) -> None:
        super().__init__(size, scale_factor, mode="bilinear", align_corners=True)
