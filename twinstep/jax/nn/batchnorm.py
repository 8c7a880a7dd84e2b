"""torch.nn's batch norms: Flax's momentum is 1 - PyTorch's, and its running variance is biased."""

from typing import Any

import jax
import jax.numpy as jnp

from twinstep.errors import InputError
from twinstep.jax.nn import functional
from twinstep.jax.nn.functional.normalization import affine as affine_of
from twinstep.jax.nn.functional.normalization import of_channels, scaled
from twinstep.jax.nn.functional.taking_in import value_of, wide, wrote
from twinstep.jax.nn.module import Module, Parameter, children_of, default_dtype
from twinstep.jax.nn.sizes import checked_sizes

__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm"]


class NormBase(Module):
    """What batch and instance norms hold."""

    running_mean: Any
    running_var: Any
    num_batches_tracked: Any

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        dtype: Any,
        bias: bool,
    ) -> None:
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        shape = checked_sizes(type(self).__name__, num_features=num_features)
        dtype = default_dtype(dtype)
        self.weight = Parameter(jnp.ones(shape, dtype)) if affine else None
        self.bias = Parameter(jnp.zeros(shape, dtype)) if affine and bias else None
        for name, value in (
            ("running_mean", jnp.zeros(shape, dtype)),
            ("running_var", jnp.ones(shape, dtype)),
            ("num_batches_tracked", jnp.zeros((), int)),
        ):
            self.register_buffer(name, value if track_running_stats else None)

    def reset_running_stats(self) -> None:
        """Starts the running statistics anew."""
        if self.track_running_stats:
            for variable, value in (
                (self.running_mean, 0),
                (self.running_var, 1),
                (self.num_batches_tracked, 0),
            ):
                variable[...] = jnp.full_like(variable[...], value)

    def check_axes(self, input: jax.Array, *axes: int) -> None:
        """Refuses an input of another number of axes."""
        if input.ndim not in axes:
            raise InputError(
                f"{type(self).__name__}: input is of shape {input.shape}, expected "
                f"{' or '.join(map(str, axes))} axes"
            )


class _BatchNorm(NormBase):
    _axes: tuple[int, ...]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype, bias)

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        self.check_axes(input, *self._axes)
        return self._normalized(input, self._counted())

    def _counted(self) -> Any:
        """The share of this batch in the running statistics."""
        if self.training and self.num_batches_tracked is not None:
            tracked = self.num_batches_tracked[...] + 1
            self.num_batches_tracked[...] = tracked
            return 1 / tracked if self.momentum is None else self.momentum
        return self.momentum or 0.0

    def _normalized(self, input: jax.Array, momentum: Any) -> jax.Array:
        mean, var = self._running()
        own = self.training or mean is None
        return functional.batch_norm(
            input, mean, var, value_of(self.weight), value_of(self.bias), own, momentum, self.eps
        )

    def _running(self) -> tuple[Any, Any]:
        """Those that are written in training, and looked at without."""
        if self.training and not self.track_running_stats:
            return None, None
        return self.running_mean, self.running_var


class BatchNorm1d(_BatchNorm):
    """Each channel at mean 0 and variance 1 over the batch; in evaluation by running statistics.

    Args:
        num_features: C, an int.
        eps: What is added to the variance.
        momentum: The share of a batch in the running statistics; None: their plain mean.
        affine: Whether there are a weight and a bias.
        track_running_stats: Whether running statistics are kept, for evaluation.
        device: Ignored.
        dtype: Of parameters and statistics; None: float64 under x64, else float32.
        bias: Whether affine has a bias.

    Shape:
        (N, C) or (N, C, L), the same; weight, bias and the buffers running_mean and
        running_var (C,), num_batches_tracked (), an integer.

    Raises:
        InputError: For another shape, and one value a channel in training.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> layer = nn.BatchNorm1d(1)
        >>> layer(jnp.array([0.0, 2.0]).reshape(2, 1)).round(2).ravel().tolist()
        [-1.0, 1.0]
        >>> round(float(layer.running_var[0]), 4)  # .9 * 1 + .1 * 2
        1.1

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm1d.html
    """

    _axes = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Each channel at mean 0 and variance 1 over the batch; in evaluation by running statistics.

    Args:
        num_features: C, an int.
        eps: What is added to the variance.
        momentum: The share of a batch in the running statistics; None: their plain mean.
        affine: Whether there are a weight and a bias.
        track_running_stats: Whether running statistics are kept, for evaluation.
        device: Ignored.
        dtype: Of parameters and statistics; None: float64 under x64, else float32.
        bias: Whether affine has a bias.

    Shape:
        (N, C, H, W), the same; weight, bias and the buffers running_mean and
        running_var (C,), num_batches_tracked (), an integer.

    Raises:
        InputError: For another shape, and one value a channel in training.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> layer = nn.BatchNorm2d(1)
        >>> layer(jnp.array([0.0, 2.0]).reshape(2, 1, 1, 1)).round(2).ravel().tolist()
        [-1.0, 1.0]
        >>> round(float(layer.running_var[0]), 4)  # .9 * 1 + .1 * 2
        1.1

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html
    """

    _axes = (4,)


class BatchNorm3d(_BatchNorm):
    """Each channel at mean 0 and variance 1 over the batch; in evaluation by running statistics.

    Args:
        num_features: C, an int.
        eps: What is added to the variance.
        momentum: The share of a batch in the running statistics; None: their plain mean.
        affine: Whether there are a weight and a bias.
        track_running_stats: Whether running statistics are kept, for evaluation.
        device: Ignored.
        dtype: Of parameters and statistics; None: float64 under x64, else float32.
        bias: Whether affine has a bias.

    Shape:
        (N, C, D, H, W), the same; weight, bias and the buffers running_mean and
        running_var (C,), num_batches_tracked (), an integer.

    Raises:
        InputError: For another shape, and one value a channel in training.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> layer = nn.BatchNorm3d(1)
        >>> layer(jnp.array([0.0, 2.0]).reshape(2, 1, 1, 1, 1)).round(2).ravel().tolist()
        [-1.0, 1.0]
        >>> round(float(layer.running_var[0]), 4)  # .9 * 1 + .1 * 2
        1.1

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm3d.html
    """

    _axes = (5,)


class SyncBatchNorm(_BatchNorm):
    """Batch norm over all the batches of a mapped axis, as of vmap, pmap or shard_map.

    Args:
        num_features: C, an int.
        eps: What is added to the variance.
        momentum: The share of a batch in the running statistics; None: their plain mean.
        affine: Whether there are a weight and a bias.
        track_running_stats: Whether running statistics are kept, for evaluation.
        process_group: None: `axis_name` says which batches belong together.
        device: Ignored.
        dtype: Of parameters and statistics; None: float64 under x64, else float32.
        bias: Whether affine has a bias.
        axis_name: The mapped axis, or several; None: this batch alone, as in a process of PyTorch's
            that has no others. In evaluation it is not looked at.

    Shape:
        (N, C, ...), the same; weight, bias and the buffers running_mean and
        running_var (C,), num_batches_tracked (), an integer.

    Raises:
        InputError: For fewer than 2 axes, no channels, a process_group, one value a channel in all
            in training, an axis that is not mapped.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> layer = nn.SyncBatchNorm(1, track_running_stats=False, axis_name="batch")
        >>> x = jnp.array([0.0, 2.0]).reshape(2, 1, 1)  # two batches of one sample
        >>> jax.vmap(layer, axis_name="batch")(x).round(2).ravel().tolist()
        [-1.0, 1.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.SyncBatchNorm.html
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Any = None,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
        axis_name: Any = None,
    ) -> None:
        if process_group is not None:
            raise InputError(
                f"SyncBatchNorm: process_group is {process_group!r}, expected None, and axis_name="
            )
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, None, dtype, bias=bias
        )
        self.process_group, self.axis_name = process_group, axis_name

    @classmethod
    def convert_sync_batchnorm(
        cls, module: Any, process_group: Any = None, *, axis_name: Any = None
    ) -> Any:
        """A module whose batch norms are over a mapped axis.

        Args:
            module: What has batch norms, or one; it is changed in place.
            process_group: None.
            axis_name: The mapped axis.

        Returns:
            The module; of a batch norm a new one, with its parameters and buffers.
        """
        if isinstance(module, _BatchNorm):
            made = cls(
                module.num_features,
                module.eps,
                module.momentum,
                module.affine,
                module.track_running_stats,
                process_group,
                bias=module.bias is not None,
                axis_name=axis_name,
            )
            for name in (
                "weight",
                "bias",
                "running_mean",
                "running_var",
                "num_batches_tracked",
            ):
                setattr(made, name, getattr(module, name))
            made.training = module.training
            return made
        for name, child in list(children_of(module)):
            made = cls.convert_sync_batchnorm(child, process_group, axis_name=axis_name)
            if made is not child:
                setattr(module, name, made)
        return module

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        if input.ndim < 2 or not input.shape[1]:
            raise InputError(
                f"SyncBatchNorm: input is of shape {input.shape}, expected (N, C, ...) with C from "
                "1 on"
            )
        momentum = self._counted()
        if self.training and self.axis_name is not None:
            return self._over_all(input, momentum)
        return self._normalized(input, momentum)

    def _over_all(self, input: jax.Array, momentum: Any) -> jax.Array:
        """By the statistics of all the mapped axis's batches."""
        given, weight, bias = affine_of("SyncBatchNorm", input, self.weight, self.bias)
        if given.shape[1] != self.num_features:
            raise InputError(
                f"SyncBatchNorm: input is of shape {given.shape}, expected (N, "
                f"{self.num_features}, ...)"
            )
        try:
            batches = jax.lax.psum(1, self.axis_name)
        except NameError:
            raise InputError(
                f"SyncBatchNorm: axis_name is {self.axis_name!r}, expected an axis that is mapped "
                "where the layer is called"
            ) from None
        x = wide(given)
        axes = (0, *range(2, x.ndim))
        count = batches * x.size // x.shape[1]
        if count == 1:
            raise InputError(
                f"SyncBatchNorm: input is of shape {given.shape}, expected more than 1 value per "
                "channel when training"
            )
        if not count:
            return jnp.asarray(given)
        shape = (-1, *[1] * (x.ndim - 2))
        mean = jax.lax.psum(jnp.sum(x, axes), self.axis_name) / count
        centered = x - mean.reshape(shape)
        var = jax.lax.psum(jnp.sum(centered * centered, axes), self.axis_name) / count
        for variable, new in zip(self._running(), (mean, var * (count / (count - 1))), strict=True):
            if variable is not None:
                old, new = (jax.lax.stop_gradient(wide(v)) for v in (value_of(variable), new))
                wrote(variable, (1 - momentum) * old + momentum * new)
        x = centered * jax.lax.rsqrt(var + self.eps).reshape(shape)
        return scaled(x, of_channels(weight, x), of_channels(bias, x)).astype(given.dtype)
