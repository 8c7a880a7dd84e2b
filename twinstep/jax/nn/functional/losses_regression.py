"""torch.nn.functional's losses of a distance, entry by entry, with its gradients at kinks."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn.functional._reduction import broadcast_and_warn, chosen, reduced

__all__ = ["huber_loss", "l1_loss", "mse_loss", "smooth_l1_loss"]


def mse_loss(
    input: jax.Array,
    target: jax.Array,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: jax.Array | None = None,
) -> jax.Array:
    """Mean squared error.

    `optax.l2_loss` is half of it, sample by sample.

    Args:
        input, target: What is and what should be; two shapes are broadcast, with a warning.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum" or "none".
        weight: What multiplies each entry's loss, of input's shape; the mean is divided by its sum.

    Returns:
        The mean or the sum over all entries, (), or all of them.

    Raises:
        InputError: For shapes that do not fit, complex numbers, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import mse_loss
        >>> float(mse_loss(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0])))
        2.0

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.mse_loss.html
    """
    reduction = chosen("mse_loss", reduction, size_average, reduce)
    _check("mse_loss", input, weight, real=(input, target))
    input, target = broadcast_and_warn("mse_loss", input, target)
    return _weighted(optax.squared_error(input, target), reduction, weight)


def l1_loss(
    input: jax.Array,
    target: jax.Array,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: jax.Array | None = None,
) -> jax.Array:
    """Mean absolute error.

    At an exact tie the gradient is 0, where jnp.abs gives 1; and at NaN, where the loss is NaN.

    Args:
        input, target: What is and what should be; two shapes are broadcast, with a warning.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum" or "none".
        weight: What multiplies each entry's loss, of input's shape; the mean is divided by its sum.

    Returns:
        The mean or the sum over all entries, (), or all of them.

    Raises:
        InputError: For shapes that do not fit, another reduction.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import l1_loss
        >>> input, target = jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0])
        >>> float(l1_loss(input, target))
        1.0
        >>> jax.grad(l1_loss)(input, target).tolist()
        [0.0, 0.5]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.l1_loss.html
    """
    reduction = chosen("l1_loss", reduction, size_average, reduce)
    _check("l1_loss", input, weight)
    input, target = broadcast_and_warn("l1_loss", input, target)
    return _weighted(_absolute(input - target), reduction, weight)


def smooth_l1_loss(
    input: jax.Array,
    target: jax.Array,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> jax.Array:
    """Mean of a squared error up to beta, and of the absolute one beyond it.

    `optax.huber_loss(delta=beta)` divided by beta, sample by sample.

    Args:
        input, target: What is and what should be; two shapes are broadcast, with a warning.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum" or "none".
        beta: The error from which on it is a line, at least 0; at 0 it is `l1_loss`.

    Returns:
        The mean or the sum over all entries, (), or all of them.

    Raises:
        InputError: For a beta below 0, shapes that do not fit, complex numbers, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import smooth_l1_loss
        >>> float(smooth_l1_loss(jnp.array([1.0, 4.0]), jnp.array([0.5, 1.0])))
        1.3125

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.smooth_l1_loss.html
    """
    reduction = chosen("smooth_l1_loss", reduction, size_average, reduce)
    check_arguments("smooth_l1_loss", beta=(beta, "at least 0", lambda value: value >= 0))
    _check("smooth_l1_loss", input, None, real=(input, target))
    input, target = broadcast_and_warn("smooth_l1_loss", input, target)
    if beta == 0:
        return reduced(_absolute(input - target), reduction)
    error = jnp.abs(input - target)
    line = error >= beta
    square = jnp.where(line, 0, error)  # or an infinite error's gradient would be NaN
    return reduced(jnp.where(line, error - 0.5 * beta, 0.5 * square * square / beta), reduction)


def huber_loss(
    input: jax.Array,
    target: jax.Array,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: jax.Array | None = None,
) -> jax.Array:
    """Mean of half the squared error up to delta, and of a line beyond it.

    `optax.huber_loss` is the same, sample by sample.

    Args:
        input, target: What is and what should be; two shapes are broadcast, with a warning.
        reduction: "mean", "sum" or "none".
        delta: The error from which on it is a line, above 0.
        weight: What multiplies each entry's loss, of input's shape; the mean is still divided by
            the number of entries, other than that of the other losses.

    Returns:
        The mean or the sum over all entries, (), or all of them.

    Raises:
        InputError: For a delta that is not above 0, shapes that do not fit, complex numbers,
            another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import huber_loss
        >>> float(huber_loss(jnp.array([1.0, 4.0]), jnp.array([0.5, 1.0])))
        1.3125

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.huber_loss.html
    """
    reduction = chosen("huber_loss", reduction)
    check_arguments("huber_loss", delta=(delta, "above 0", lambda value: value > 0))
    _check("huber_loss", input, weight, real=(input, target))
    input, target = broadcast_and_warn("huber_loss", input, target)
    error = jnp.abs(input - target)
    line = error >= delta
    square = jnp.where(line, 0, error)  # or an infinite error's gradient would be NaN
    each = jnp.where(line, delta * (error - 0.5 * delta), 0.5 * square * square)
    return reduced(each if weight is None else each * weight, reduction)


def _absolute(error: jax.Array) -> jax.Array:
    """Absolute values, whose gradient is 0 at 0 and at NaN."""
    flat = (error == 0) | jnp.isnan(error)
    return jnp.where(
        flat, jax.lax.stop_gradient(jnp.abs(error)), jnp.abs(jnp.where(flat, 1, error))
    )


def _weighted(each: jax.Array, reduction: str, weight: jax.Array | None) -> jax.Array:
    if weight is None or reduction != "mean":
        return reduced(each if weight is None else each * weight, reduction)
    return jnp.sum(each * weight) / jnp.sum(weight)


def _check(name: str, input: Any, weight: Any, real: tuple[Any, ...] = ()) -> None:
    if any(map(jnp.iscomplexobj, real)):
        raise InputError(f"{name}: input or target is complex, expected real numbers, as PyTorch")
    if weight is not None and jnp.shape(weight) != jnp.shape(input):
        raise InputError(
            f"{name}: weight is of shape {jnp.shape(weight)}, expected input's {jnp.shape(input)}"
        )
