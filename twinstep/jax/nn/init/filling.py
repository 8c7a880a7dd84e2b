"""Fills: numbers that are all the same, uniform, normal, or those of an identity."""

import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from twinstep.errors import InputError
from twinstep.jax.nn.drawing import Drawing, Keyed, drawing


def uniform_(
    tensor: Any, a: float = 0.0, b: float = 1.0, generator: Any = None, *, key: Any = None
) -> Any:
    """Fills with numbers that are uniform from a to b.

    Args:
        tensor: A Param, which is filled, or an array.
        a, b: The bounds.
        generator: What draws: a TorchGenerator or a Generator.
        key: A key of JAX's in its place.

    Returns:
        The Param, or a new array.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax import nn
        >>> w = nn.init.uniform_(jnp.zeros(2), -1, 1, TorchGenerator(0))
        >>> [round(float(x), 4) for x in w]
        [-0.0075, 0.5364]

    Source: https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.uniform_
    """
    drawn = drawing(generator, key=key).uniform(tensor.shape, a, b, tensor.dtype)
    return filled(tensor, drawn)


def normal_(
    tensor: Any, mean: float = 0.0, std: float = 1.0, generator: Any = None, *, key: Any = None
) -> Any:
    """Fills with numbers of a normal distribution.

    Args:
        tensor: A Param, which is filled, or an array.
        mean, std: Of the distribution.
        generator: What draws: a TorchGenerator or a Generator.
        key: A key of JAX's in its place.

    Returns:
        The Param, or a new array.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax import nn
        >>> w = nn.init.normal_(jnp.zeros(2), 0.0, 0.02, TorchGenerator(0))
        >>> [round(float(x), 4) for x in w]
        [0.0308, -0.0059]

    Source: https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.normal_
    """
    drawn = drawing(generator, key=key).normal(tensor.shape, mean, std, tensor.dtype)
    return filled(tensor, drawn)


def trunc_normal_(
    tensor: Any,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Any = None,
    *,
    key: Any = None,
) -> Any:
    """Fills with numbers of a normal distribution, those outside bounds drawn anew.

    Args:
        tensor: A Param, which is filled, or an array.
        mean, std: Of the distribution.
        a, b: The bounds, numbers and not multiples of std.
        generator: What draws: a TorchGenerator or a Generator.
        key: A key of JAX's in its place.

    Returns:
        The Param, or a new array.

    Raises:
        InputError: In a compiled function that draws from a Generator: how often is not known.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax import nn
        >>> nn.init.trunc_normal_(jnp.zeros(2), std=0.02, generator=TorchGenerator(0)).shape
        (2,)

    Source: https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.trunc_normal_
    """
    draws = drawing(generator, key=key)
    if mean < a - 2 * std or mean > b + 2 * std:
        warnings.warn(
            f"trunc_normal_: mean {mean} is more than 2 std from [{a}, {b}]", stacklevel=2
        )
    if isinstance(draws, Keyed):
        low, high = (a - mean) / std, (b - mean) / std
        values = jax.random.truncated_normal(draws.stream(), low, high, tensor.shape, tensor.dtype)
        return filled(tensor, values * std + mean)
    inside = _normal_cdf((b - mean) / std) - _normal_cdf((a - mean) / std)
    by = _by_redrawing if inside > 0.3 else _by_acceptance
    return filled(tensor, by(draws, tensor, mean, std, a, b))


def _by_redrawing(
    draws: Drawing, tensor: Any, mean: float, std: float, a: float, b: float
) -> NDArray[Any]:
    """The whole tensor is drawn anew, and taken where it was outside."""
    low, high = (np.asarray(bound, tensor.dtype) for bound in (a, b))
    values = known(draws.normal(tensor.shape, mean, std, tensor.dtype))
    while (outside := (values < low) | (values > high)).any():
        values = np.where(outside, draws.normal(tensor.shape, mean, std, tensor.dtype), values)
    return values


def _by_acceptance(
    draws: Drawing, tensor: Any, mean: float, std: float, a: float, b: float
) -> NDArray[Any]:
    """Uniform candidates, each accepted as likely as the distribution has it."""
    peak = -0.5 * ((max(a, min(mean, b)) - mean) / std) ** 2
    values, pending = np.zeros(tensor.shape, tensor.dtype), np.ones(tensor.shape, bool)
    while pending.any():
        candidates = known(draws.uniform(tensor.shape, a, b, tensor.dtype))
        values = np.where(pending, candidates, values)
        scaled = (candidates - values.dtype.type(mean)) / values.dtype.type(std)
        log_density = scaled * scaled * values.dtype.type(-0.5) - values.dtype.type(peak)
        with np.errstate(divide="ignore"):
            chance = np.log(known(draws.uniform(tensor.shape, 0, 1, tensor.dtype)))
        pending &= chance > log_density
    return values


def _normal_cdf(x: float) -> float:
    return (1.0 + math.erf(x / math.sqrt(2.0))) / 2.0


def known(values: Any) -> NDArray[Any]:
    """Drawn numbers in NumPy. InputError where they are those of a compiled function."""
    if isinstance(values, jax.core.Tracer):
        raise InputError(
            "init: what is drawn decides how much is drawn, and is not known in a compiled "
            "function; expected a call outside of it, or a key"
        )
    return np.asarray(values)


def constant_(tensor: Any, val: float) -> Any:
    """Fills with a number.

    Args:
        tensor: A Param, which is filled, or an array.
        val: The number.

    Returns:
        The Param, or a new array.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.init.constant_(jnp.zeros(2), 0.5)
        Array([0.5, 0.5], dtype=float32)

    Source: https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.constant_
    """
    return filled(tensor, jnp.full(tensor.shape, val, tensor.dtype))


def ones_(tensor: Any) -> Any:
    """Fills with 1.

    Args:
        tensor: A Param, which is filled, or an array.

    Returns:
        The Param, or a new array.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.init.ones_(jnp.zeros(2))
        Array([1., 1.], dtype=float32)

    Source: https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.ones_
    """
    return constant_(tensor, 1.0)


def zeros_(tensor: Any) -> Any:
    """Fills with 0.

    Args:
        tensor: A Param, which is filled, or an array.

    Returns:
        The Param, or a new array.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.init.zeros_(jnp.ones(2))
        Array([0., 0.], dtype=float32)

    Source: https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.zeros_
    """
    return constant_(tensor, 0.0)


def eye_(tensor: Any) -> Any:
    """Fills a matrix with 1 where row and column have the same number, else 0.

    Args:
        tensor: A Param, which is filled, or an array, of two axes.

    Returns:
        The Param, or a new array.

    Raises:
        InputError: For another number of axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.init.eye_(jnp.zeros((2, 2))).tolist()
        [[1.0, 0.0], [0.0, 1.0]]

    Source: https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.eye_
    """
    if tensor.ndim != 2:
        raise InputError(f"eye_: tensor is of shape {tuple(tensor.shape)}, expected two axes")
    return filled(tensor, jnp.eye(tensor.shape[0], tensor.shape[1], dtype=tensor.dtype))


def dirac_(tensor: Any, groups: int = 1) -> Any:
    """Fills a convolution's weight so that it passes on what it is given, channel by channel.

    Args:
        tensor: A Param, which is filled, or an array, of three to five axes.
        groups: Of the convolution: each passes on its own first channels.

    Returns:
        The Param, or a new array.

    Raises:
        InputError: For another number of axes, or of output channels that groups do not divide.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.init.dirac_(jnp.zeros((1, 1, 3))).tolist()
        [[[0.0, 1.0, 0.0]]]

    Source: https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.dirac_
    """
    shape = tuple(tensor.shape)
    if not 3 <= len(shape) <= 5:
        raise InputError(f"dirac_: tensor is of shape {shape}, expected three to five axes")
    if shape[0] % groups:
        raise InputError(f"dirac_: groups is {groups}, expected a divisor of {shape[0]}")
    values, each = np.zeros(shape, tensor.dtype), shape[0] // groups
    middle = tuple(size // 2 for size in shape[2:])
    for group in range(groups):
        for channel in range(min(each, shape[1])):
            values[(group * each + channel, channel, *middle)] = 1
    return filled(tensor, values)


def filled(tensor: Any, values: Any) -> Any:
    """The Param with new values, or the values."""
    if isinstance(tensor, nnx.Variable):
        tensor[...] = jnp.asarray(values, tensor.dtype)
        return tensor
    return jnp.asarray(values, tensor.dtype)
