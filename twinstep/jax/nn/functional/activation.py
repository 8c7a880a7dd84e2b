"""torch.nn.functional's activations that are lines between kinks, with its derivatives there."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn.functional.taking_in import floats, value_of, wide, with_slope

__all__ = [
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "prelu",
    "relu",
    "relu6",
    "softshrink",
    "threshold",
]


def relu(input: jax.Array, inplace: bool = False) -> jax.Array:
    """max(x, 0), whose derivative at 0 is 0.

    Args:
        input: Real numbers, of any shape.
        inplace: Not looked at: arrays are not written into.

    Returns:
        An array like the input.

    Raises:
        InputError: For bools and complex numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import relu
        >>> relu(jnp.array([-1.0, 2.0])).tolist()
        [0.0, 2.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.relu.html
    """
    x = _numbers("relu", input)
    return jnp.where(x <= 0, 0, x)


def relu6(input: jax.Array, inplace: bool = False) -> jax.Array:
    """min(max(x, 0), 6), whose derivative at 0 and at 6 is 0.

    Args:
        input: Real numbers, of any shape.
        inplace: Not looked at: arrays are not written into.

    Returns:
        An array like the input.

    Raises:
        InputError: For bools and complex numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import relu6
        >>> relu6(jnp.array([-1.0, 2.0, 7.0])).tolist()
        [0.0, 2.0, 6.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.relu6.html
    """
    return _clamped(_numbers("relu6", input), 0, 6)


def hardtanh(
    input: jax.Array, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> jax.Array:
    """x between two bounds, whose derivative at them is 0; jax.nn.hard_tanh's is 1 there.

    Args:
        input: Real numbers, of any shape.
        min_val, max_val: The bounds; among integers their whole parts.
        inplace: Not looked at: arrays are not written into.

    Returns:
        An array like the input.

    Raises:
        InputError: For min_val above max_val, a bound below 0 among unsigned integers, bools and
            complex numbers.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import hardtanh
        >>> hardtanh(jnp.array([-3.0, 0.5, 3.0])).tolist()
        [-1.0, 0.5, 1.0]
        >>> float(jax.grad(hardtanh)(1.0))
        0.0

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.hardtanh.html
    """
    x = _numbers("hardtanh", input)
    check_arguments("hardtanh", min_val=(min_val, f"{max_val} at most", lambda v: v <= max_val))
    if jnp.issubdtype(x.dtype, jnp.unsignedinteger) and min(min_val, max_val) < 0:
        raise InputError(f"hardtanh: min_val is {min_val}, expected 0 or more for {x.dtype}")
    return _clamped(x, min_val, max_val)


def hardsigmoid(input: jax.Array, inplace: bool = False) -> jax.Array:
    """min(max(x + 3, 0), 6) / 6, whose derivative is PyTorch's 1/6, of float32, and 0 at kinks.

    Args:
        input: Floats, of any shape.
        inplace: Not looked at: arrays are not written into.

    Returns:
        An array like the input.

    Raises:
        InputError: For no floats.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import hardsigmoid
        >>> hardsigmoid(jnp.array([-4.0, 0.0, 4.0])).tolist()
        [0.0, 0.5, 1.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.hardsigmoid.html
    """
    (given,) = floats("hardsigmoid", input=input)
    x = wide(given)
    sixth = float(np.float32(1 / 6))
    slope = jnp.where((x > -3) & (x < 3), jnp.asarray(sixth, x.dtype), 0)
    return with_slope(x, jnp.clip(x + 3, 0, 6) / 6, slope).astype(given.dtype)


def hardswish(input: jax.Array, inplace: bool = False) -> jax.Array:
    """x min(max(x + 3, 0), 6) / 6, whose derivative is 0 at -3 and 1 at 3.

    Args:
        input: Floats, of any shape.
        inplace: Not looked at: arrays are not written into.

    Returns:
        An array like the input.

    Raises:
        InputError: For no floats.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import hardswish
        >>> hardswish(jnp.array([-4.0, 0.0, 4.0])).tolist()
        [-0.0, 0.0, 4.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.hardswish.html
    """
    (given,) = floats("hardswish", input=input)
    x = wide(given)
    slope = jnp.where(x <= -3, 0, jnp.where(x < 3, x / 3 + 0.5, 1))
    return with_slope(x, x * jnp.clip(x + 3, 0, 6) / 6, slope).astype(given.dtype)


def leaky_relu(input: jax.Array, negative_slope: float = 0.01, inplace: bool = False) -> jax.Array:
    """x above 0, else a part of it; the derivative at 0 is that part, jax.nn.leaky_relu's is 1.

    Args:
        input: Floats, of any shape.
        negative_slope: What x is multiplied with up to 0.
        inplace: Not looked at: arrays are not written into.

    Returns:
        An array like the input.

    Raises:
        InputError: For no floats.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import leaky_relu
        >>> leaky_relu(jnp.array([-2.0, 2.0]), 0.25).tolist()
        [-0.5, 2.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.leaky_relu.html
    """
    (given,) = floats("leaky_relu", input=input)
    x = wide(given)
    return jnp.where(x > 0, x, x * negative_slope).astype(given.dtype)


def prelu(input: jax.Array, weight: jax.Array) -> jax.Array:
    """x above 0, else a learned part of it, of each channel.

    Args:
        input: Floats, (N, C, ...) or any shape; the channels are axis 1.
        weight: What x is multiplied with up to 0: a number, (1,) or (C,).

    Returns:
        An array like the input.

    Raises:
        InputError: For another shape of the weight, no floats, two dtypes.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import prelu
        >>> prelu(jnp.array([[-2.0, -2.0]]), jnp.array([0.25, 0.5])).tolist()
        [[-0.5, -1.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.prelu.html
    """
    given, part = floats("prelu", input=input, weight=weight)
    channels = given.shape[1] if given.ndim > 1 else 1
    if part.ndim > 1 or part.size not in (1, channels):
        raise InputError(
            f"prelu: weight is of shape {part.shape}, expected a number or ({channels},): input is "
            f"of shape {given.shape}, its channels are axis 1"
        )
    if part.size != 1:
        part = part.reshape(-1, *[1] * (given.ndim - 2))
    elif part.ndim:
        part = part[0]
    x = wide(given)
    below = jnp.where(x > 0, 0, x)  # or an infinite x would make the weight's gradient NaN
    return jnp.where(x > 0, x, wide(part) * below).astype(given.dtype)


def threshold(input: jax.Array, threshold: float, value: float, inplace: bool = False) -> jax.Array:
    """x above a threshold, else a value.

    Args:
        input: Real numbers, of any shape.
        threshold: Up to which the value stands; among integers its whole part.
        value: What stands there; among integers its whole part.
        inplace: Not looked at: arrays are not written into.

    Returns:
        An array like the input.

    Raises:
        InputError: For bools and complex numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> import twinstep.jax.nn.functional as F
        >>> F.threshold(jnp.array([0.1, 0.5, 2.0]), 0.5, -1.0).tolist()
        [-1.0, -1.0, 2.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.threshold.html
    """
    x = _numbers("threshold", input)
    return jnp.where(x <= _like(threshold, x), _like(value, x), x)


def softshrink(input: jax.Array, lambd: float = 0.5) -> jax.Array:
    """x moved towards 0 by lambda, and 0 where it would cross.

    Args:
        input: Floats, of any shape.
        lambd: How far, 0 or more.

    Returns:
        An array like the input.

    Raises:
        InputError: For a lambda below 0, no floats.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import softshrink
        >>> softshrink(jnp.array([-2.0, 0.25, 2.0])).tolist()
        [-1.5, 0.0, 1.5]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.softshrink.html
    """
    (given,) = floats("softshrink", input=input)
    check_arguments("softshrink", lambd=(lambd, "0 or more", lambda v: v >= 0))
    x = wide(given)
    moved = jnp.where(x < 0, x + lambd, x - lambd)
    return jnp.where((x >= -lambd) & (x <= lambd), 0, moved).astype(given.dtype)


def hardshrink(input: jax.Array, lambd: float = 0.5) -> jax.Array:
    """x, and 0 from -lambda to lambda.

    Args:
        input: Floats, of any shape.
        lambd: How far from 0; below 0 nothing is changed.

    Returns:
        An array like the input.

    Raises:
        InputError: For no floats.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import hardshrink
        >>> hardshrink(jnp.array([-2.0, 0.5, 2.0])).tolist()
        [-2.0, 0.0, 2.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.hardshrink.html
    """
    (given,) = floats("hardshrink", input=input)
    x = wide(given)
    return jnp.where((x >= -lambd) & (x <= lambd), 0, x).astype(given.dtype)


def _numbers(name: str, array: Any) -> jax.Array:
    """Integers or floats."""
    x = value_of(array)
    if x.dtype == bool or jnp.iscomplexobj(x):
        raise InputError(f"{name}: input is {x.dtype}, expected integers or floats, as PyTorch")
    return jnp.asarray(x)


def _like(number: float, x: jax.Array) -> jax.Array:
    """A number in an array's dtype: its whole part among integers."""
    return jnp.asarray(int(number) if jnp.issubdtype(x.dtype, jnp.integer) else number, x.dtype)


def _clamped(x: jax.Array, low: float, high: float) -> jax.Array:
    """With a derivative of 0 at the bounds."""
    least, most = _like(low, x), _like(high, x)
    return jnp.where(x <= least, least, jnp.where(x >= most, most, x))
