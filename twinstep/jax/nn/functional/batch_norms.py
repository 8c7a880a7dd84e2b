"""torch.nn.functional's normalizations with running statistics, which stand in nnx.Variables.

PyTorch writes them in place. An array cannot be written into: given one, the new statistics would
be lost without a word and an evaluation wrong later on. So arrays are read, and refused where
something is to be written.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn.functional.normalization import (
    affine,
    check_of_channels,
    of_channels,
    scaled,
    standardized,
)
from twinstep.jax.nn.functional.taking_in import refuse_silent_loss, value_of, wide, wrote

__all__ = ["batch_norm", "instance_norm"]


def batch_norm(
    input: jax.Array,
    running_mean: Any,
    running_var: Any,
    weight: jax.Array | None = None,
    bias: jax.Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> jax.Array:
    """Each channel at mean 0 and variance 1, over the batch or by running statistics.

    Flax's momentum is 1 - PyTorch's, and its running variance is divided by N, PyTorch's by N - 1.

    Args:
        input: Floats, (N, C, ...).
        running_mean, running_var: Of each channel, (C,); None with training, or both nnx.Variables,
            into which the new ones are written; without training arrays too.
        weight, bias: What the result is multiplied with and what is added, (C,).
        training: Whether the batch's own statistics are taken.
        momentum: The share of the batch's in the new running statistics.
        eps: What is added to the variance; above 0 with training.

    Returns:
        An array like the input.

    Raises:
        InputError: For shapes that do not fit, arrays that would have to be written into, missing
            statistics, one value a channel with training, no floats, two dtypes.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from twinstep.jax.nn.functional import batch_norm
        >>> mean, var = nnx.BatchStat(jnp.zeros(1)), nnx.BatchStat(jnp.ones(1))
        >>> x = jnp.array([[0.0], [2.0]])
        >>> [round(float(y), 4) for y in batch_norm(x, mean, var, training=True)[:, 0]]
        [-1.0, 1.0]
        >>> [round(float(y[0]), 4) for y in (mean, var)]  # .9 * 0 + .1 * 1, .9 * 1 + .1 * 2
        [0.1, 1.1]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.batch_norm.html
    """
    name = "batch_norm"
    given, scale, shift = affine(name, input, weight, bias)
    if given.ndim < 2:
        raise InputError(f"{name}: input is of shape {given.shape}, expected (N, C, ...)")
    check_arguments(
        name,
        momentum=(momentum, "a number", lambda v: isinstance(v, jax.Array) or float(v) < math.inf),
        eps=(
            eps,
            "above 0" if training else "0 or more",
            lambda v: v > 0 if training else v >= 0,
        ),
    )
    _check(name, given, running_mean, running_var, training, weight=scale, bias=shift)
    axes = (0, *range(2, given.ndim))
    count = int(np.prod([given.shape[axis] for axis in axes]))
    if training and count == 1:
        raise InputError(
            f"{name}: input is of shape {given.shape}, expected more than 1 value per channel when "
            "training"
        )
    x = wide(given)
    if training:
        _update(x, axes, running_mean, running_var, momentum)
        x = standardized(x, axes, eps)
    else:
        x = _by_running(x, running_mean, running_var, eps)
    return scaled(x, of_channels(scale, x), of_channels(shift, x)).astype(given.dtype)


def instance_norm(
    input: jax.Array,
    running_mean: Any = None,
    running_var: Any = None,
    weight: jax.Array | None = None,
    bias: jax.Array | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> jax.Array:
    """Each sample's channel at mean 0 and variance 1, or by running statistics.

    Args:
        input: Floats, (N, C, ...).
        running_mean, running_var: Of each channel, (C,); None, or both nnx.Variables, into which
            the samples' mean is written; without use_input_stats arrays too.
        weight, bias: What the result is multiplied with and what is added, (C,).
        use_input_stats: Whether each sample's own statistics are taken.
        momentum: The share of the samples' in the new running statistics.
        eps: What is added to the variance.

    Returns:
        An array like the input.

    Raises:
        InputError: For shapes that do not fit, arrays that would have to be written into, missing
            statistics, one value a channel with use_input_stats, no floats, two dtypes.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import instance_norm
        >>> x = jnp.array([[[0.0, 2.0]], [[5.0, 9.0]]])
        >>> [[round(float(y), 3) for y in sample[0]] for sample in instance_norm(x)]
        [[-1.0, 1.0], [-1.0, 1.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.instance_norm.html
    """
    name = "instance_norm"
    given, scale, shift = affine(name, input, weight, bias)
    if given.ndim < 2:
        raise InputError(f"{name}: input is of shape {given.shape}, expected (N, C, ...)")
    if use_input_stats and int(np.prod(given.shape[2:])) == 1:
        raise InputError(
            f"{name}: input is of shape {given.shape}, expected more than 1 value per sample and "
            "channel when training"
        )
    _check(name, given, running_mean, running_var, use_input_stats, weight=scale, bias=shift)
    x = wide(given)
    if use_input_stats:
        axes = tuple(range(2, given.ndim))
        _update(x, axes, running_mean, running_var, momentum)
        x = standardized(x, axes, eps)
    else:
        x = _by_running(x, running_mean, running_var, eps)
    return scaled(x, of_channels(scale, x), of_channels(shift, x)).astype(given.dtype)


def _check(name: str, x: jax.Array, mean: Any, var: Any, own: bool, **arrays: Any) -> None:
    """own: whether the input's own statistics are taken, and the running ones written"""
    running = {"running_mean": mean, "running_var": var}
    for argument, value in running.items():
        if value is None and not (own and mean is var is None):
            raise InputError(f"{name}: {argument} is None, expected a number for each channel")
        if own:
            refuse_silent_loss(name, argument, value)
    values = {key: value_of(value) for key, value in running.items()}
    for argument, array in {**values, **arrays}.items():
        check_of_channels(name, argument, array, x.shape[1])
    for argument, array in values.items():
        if array is not None and array.dtype not in (x.dtype, wide(x).dtype):
            raise InputError(f"{name}: {argument} is {array.dtype}, expected {x.dtype}, as input")


def _by_running(x: jax.Array, mean: Any, var: Any, eps: float) -> jax.Array:
    """They get no gradient, as in PyTorch."""
    center, spread = (jax.lax.stop_gradient(wide(value_of(v))) for v in (mean, var))
    rate = jax.lax.rsqrt(spread + eps)
    shape = (-1, *[1] * (x.ndim - 2))
    return (x - center.reshape(shape)) * rate.reshape(shape)


def _update(x: jax.Array, axes: tuple[int, ...], mean: Any, var: Any, momentum: float) -> None:
    """Writes the new running statistics: the variance is divided by N - 1."""
    if mean is None or not x.size:
        return
    x = jax.lax.stop_gradient(x)
    count = int(np.prod([x.shape[axis] for axis in axes]))
    others = tuple(range(x.ndim - len(axes) - 1)) if 0 not in axes else ()
    center = jnp.mean(x, axes)
    spread = jnp.var(x, axes) * (count / (count - 1))
    for variable, new in ((mean, center), (var, spread)):
        old = jax.lax.stop_gradient(wide(value_of(variable)))
        wrote(variable, (1 - momentum) * old + momentum * jnp.mean(new, others))
