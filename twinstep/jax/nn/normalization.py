"""torch.nn's norms that keep no statistics."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn import functional
from twinstep.jax.nn.functional.taking_in import floats, value_of
from twinstep.jax.nn.module import Module, Parameter, default_dtype
from twinstep.jax.nn.sizes import checked_sizes, normalized

__all__ = ["CrossMapLRN2d", "GroupNorm", "LayerNorm", "LocalResponseNorm", "RMSNorm"]


class LayerNorm(Module):
    """The last axes at mean 0 and variance 1; flax.nnx.LayerNorm's eps is 1e-6.

    Args:
        normalized_shape: Their lengths, or the last one's.
        eps: What is added to the variance.
        elementwise_affine: Whether there are a weight and a bias.
        bias: Whether there is a bias then.
        device: Ignored.
        dtype: Of the parameters; None: float64 under x64, else float32.

    Shape:
        (..., *normalized_shape), the same; weight and bias normalized_shape.

    Raises:
        InputError: For sizes that are none, and another input.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.LayerNorm(2)(jnp.array([[1.0, 3.0]])).round(2).tolist()
        [[-1.0, 1.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LayerNorm.html
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        self.normalized_shape = shape = normalized("LayerNorm", normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        dtype = default_dtype(dtype)
        self.weight = Parameter(jnp.ones(shape, dtype)) if elementwise_affine else None
        self.bias = Parameter(jnp.zeros(shape, dtype)) if elementwise_affine and bias else None

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        weight, bias = value_of(self.weight), value_of(self.bias)
        return functional.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


class RMSNorm(Module):
    """The last axes divided by the root of their mean square; flax.nnx.RMSNorm's eps is 1e-6.

    Args:
        normalized_shape: Their lengths, or the last one's.
        eps: What is added to the mean square; None: the machine epsilon.
        elementwise_affine: Whether there is a weight.
        device: Ignored.
        dtype: Of the weight; None: float64 under x64, else float32.

    Shape:
        Called with x, (..., *normalized_shape), to the same; weight normalized_shape.

    Raises:
        InputError: For sizes that are none, and another input.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> [round(float(x), 4) for x in nn.RMSNorm(2)(jnp.array([1.0, 7.0]))]
        [0.2, 1.4]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.RMSNorm.html
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        self.normalized_shape = shape = normalized("RMSNorm", normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self.weight = (
            Parameter(jnp.ones(shape, default_dtype(dtype))) if elementwise_affine else None
        )

    def forward(self, x: jax.Array) -> jax.Array:
        """As said above."""
        return functional.rms_norm(x, self.normalized_shape, value_of(self.weight), self.eps)


class GroupNorm(Module):
    """Each sample's groups of channels at mean 0 and variance 1; flax.nnx.GroupNorm's eps is 1e-6.

    Args:
        num_groups: How many groups, by which num_channels is divided.
        num_channels: C, an int.
        eps: What is added to the variance.
        affine: Whether there are a weight and a bias.
        device: Ignored.
        dtype: Of the parameters; None: float64 under x64, else float32.
        bias: Whether affine has a bias.

    Shape:
        (N, C, ...), the same; weight and bias (C,).

    Raises:
        InputError: For channels that are not divided by the groups, and another input.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.GroupNorm(2, 4)(jnp.array([[1.0, 3.0, 5.0, 9.0]])).round(2).tolist()
        [[-1.0, 1.0, -1.0, 1.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GroupNorm.html
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        shape = checked_sizes("GroupNorm", num_channels=num_channels)
        check_arguments(
            "GroupNorm",
            num_groups=(
                num_groups,
                f"a number by which the {num_channels} channels are divided",
                lambda v: v != 0 and num_channels % v == 0,
            ),
        )
        self.num_groups, self.num_channels = num_groups, num_channels
        self.eps, self.affine = eps, affine
        dtype = default_dtype(dtype)
        self.weight = Parameter(jnp.ones(shape, dtype)) if affine else None
        self.bias = Parameter(jnp.zeros(shape, dtype)) if affine and bias else None

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        weight, bias = value_of(self.weight), value_of(self.bias)
        return functional.group_norm(input, self.num_groups, weight, bias, self.eps)


class LocalResponseNorm(Module):
    """x divided by a power of the mean square of its neighbouring channels, 0 beyond the ends.

    Args:
        size: How many channels: size // 2 before and (size - 1) // 2 behind.
        alpha: What the mean square is multiplied with.
        beta: The power.
        k: What is added.

    Shape:
        (N, C, ...) with an axis or more behind, the same.

    Raises:
        InputError: For fewer than 3 axes, a size below 1, when it is called.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> layer = nn.LocalResponseNorm(2, alpha=2.0, beta=1.0, k=0.0)
        >>> [round(float(x), 4) for x in layer(jnp.array([[[1.0], [2.0]]])).ravel()]
        [1.0, 0.4]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LocalResponseNorm.html
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.local_response_norm(input, self.size, self.alpha, self.beta, self.k)


class CrossMapLRN2d(Module):
    """x divided by a power of a mean square of channels, by PyTorch's oldest rule.

    The first channel stays in every window, and the gradient sums over a window that lies a channel
    lower where size is odd: it is none of this function, but PyTorch's. LocalResponseNorm has
    neither.

    Args:
        size: How many channels the sum is divided by.
        alpha: What it is multiplied with.
        beta: The power.
        k: What is added.

    Shape:
        (N, C, H, W), the same.

    Raises:
        InputError: For another number of axes, no channels, no floats, a size below 1; for the
            gradient for a size of 1, of which PyTorch has none.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> layer = nn.CrossMapLRN2d(3, alpha=3.0, beta=1.0, k=0.0)
        >>> out = layer(jnp.array([1.0, 2.0]).reshape(1, 2, 1, 1))
        >>> [round(float(x), 4) for x in out.ravel()]
        [0.2, 0.4]

    Source: https://github.com/pytorch/pytorch/blob/main/torch/nn/modules/_functions.py
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1) -> None:
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        (x,) = floats("CrossMapLRN2d", input=input)
        if x.ndim != 4 or not x.shape[1]:
            raise InputError(
                f"CrossMapLRN2d: input is of shape {x.shape}, expected (N, C, H, W), C not 0"
            )
        check_arguments("CrossMapLRN2d", size=(self.size, "1 or more", lambda v: v >= 1))
        return _cross_map(self.size, self.alpha, self.beta, self.k, x)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _cross_map(size: int, alpha: float, beta: float, k: float, x: jax.Array) -> jax.Array:
    return x * _scale(size, alpha, k, x) ** -beta


def _scale(size: int, alpha: float, k: float, x: jax.Array) -> jax.Array:
    reach, channels = int((size - 1) / 2), np.arange(x.shape[1])
    near = np.abs(channels[:, None] - channels) <= reach
    near[:, 0] = True
    return _summed(near, x * x) * (alpha / size) + k


def _summed(near: Any, x: jax.Array) -> jax.Array:
    """near: (C, C), which channels are summed up for each"""
    return jnp.einsum("cd,ndhw->nchw", near.astype(x.dtype), x)


def _forth(
    size: int, alpha: float, beta: float, k: float, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return _cross_map(size, alpha, beta, k, x), x


def _back(
    size: int, alpha: float, beta: float, k: float, x: jax.Array, grad: jax.Array
) -> tuple[jax.Array]:
    before, channels = int(size - (size - 1) / 2), np.arange(x.shape[1])
    if before > size - 1:
        raise InputError("CrossMapLRN2d: size is 1, expected 2 or more for a gradient, as PyTorch")
    scale = _scale(size, alpha, k, x)
    offset = channels - channels[:, None]
    near = (offset >= -before) & (offset <= size - 1 - before)
    ratio = grad * x * scale**-beta / scale
    return (grad * scale**-beta - 2 * alpha * beta / size * x * _summed(near, ratio),)


_cross_map.defvjp(_forth, _back)
