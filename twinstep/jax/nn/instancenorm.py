"""torch.nn's instance norms, of each sample's channels."""

import warnings
from typing import Any

import jax

from twinstep.errors import InputError
from twinstep.jax.nn import functional
from twinstep.jax.nn.batchnorm import NormBase
from twinstep.jax.nn.functional.taking_in import value_of

__all__ = ["InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"]


class _InstanceNorm(NormBase):
    _rank: int

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype, bias)

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        alone = self._rank + 1
        self.check_axes(input, alone, alone + 1)
        channels = input.shape[input.ndim - alone]
        if channels != self.num_features:
            said = (
                f"{type(self).__name__}: input is of shape {input.shape}, expected "
                f"{self.num_features} channels"
            )
            if self.affine:
                raise InputError(said)
            warnings.warn(f"{said}, which are not looked at without affine", stacklevel=2)
        batched = input[None] if input.ndim == alone else input
        out = functional.instance_norm(
            batched,
            self.running_mean,
            self.running_var,
            value_of(self.weight),
            value_of(self.bias),
            self.training or not self.track_running_stats,
            self.momentum or 0.0,
            self.eps,
        )
        return out.reshape(input.shape)


class InstanceNorm1d(_InstanceNorm):
    """Each sample's channel at mean 0 and variance 1.

    Args:
        num_features: C, an int.
        eps: What is added to the variance.
        momentum: The share of a batch in the running statistics.
        affine: Whether there are a weight and a bias.
        track_running_stats: Whether running statistics are kept, for evaluation.
        device: Ignored.
        dtype: Of parameters and statistics; None: float64 under x64, else float32.
        bias: Whether affine has a bias.

    Shape:
        (N, C, L) or (C, L), the same; weight, bias and
        the buffers running_mean and running_var (C,), num_batches_tracked (), which stays 0.

    Raises:
        InputError: For another shape, and one value a channel where its own statistics are taken.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> x = jnp.array([0.0, 2.0]).reshape(1, 1, 2)
        >>> nn.InstanceNorm1d(1)(x).round(2).ravel().tolist()
        [-1.0, 1.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.InstanceNorm1d.html
    """

    _rank = 1


class InstanceNorm2d(_InstanceNorm):
    """Each sample's channel at mean 0 and variance 1.

    Args:
        num_features: C, an int.
        eps: What is added to the variance.
        momentum: The share of a batch in the running statistics.
        affine: Whether there are a weight and a bias.
        track_running_stats: Whether running statistics are kept, for evaluation.
        device: Ignored.
        dtype: Of parameters and statistics; None: float64 under x64, else float32.
        bias: Whether affine has a bias.

    Shape:
        (N, C, H, W) or (C, H, W), the same; weight, bias and
        the buffers running_mean and running_var (C,), num_batches_tracked (), which stays 0.

    Raises:
        InputError: For another shape, and one value a channel where its own statistics are taken.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> x = jnp.array([0.0, 2.0]).reshape(1, 1, 1, 2)
        >>> nn.InstanceNorm2d(1)(x).round(2).ravel().tolist()
        [-1.0, 1.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.InstanceNorm2d.html
    """

    _rank = 2


class InstanceNorm3d(_InstanceNorm):
    """Each sample's channel at mean 0 and variance 1.

    Args:
        num_features: C, an int.
        eps: What is added to the variance.
        momentum: The share of a batch in the running statistics.
        affine: Whether there are a weight and a bias.
        track_running_stats: Whether running statistics are kept, for evaluation.
        device: Ignored.
        dtype: Of parameters and statistics; None: float64 under x64, else float32.
        bias: Whether affine has a bias.

    Shape:
        (N, C, D, H, W) or (C, D, H, W), the same; weight, bias and
        the buffers running_mean and running_var (C,), num_batches_tracked (), which stays 0.

    Raises:
        InputError: For another shape, and one value a channel where its own statistics are taken.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> x = jnp.array([0.0, 2.0]).reshape(1, 1, 1, 1, 2)
        >>> nn.InstanceNorm3d(1)(x).round(2).ravel().tolist()
        [-1.0, 1.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.InstanceNorm3d.html
    """

    _rank = 3
