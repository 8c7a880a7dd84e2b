"""Fills whose spread keeps the size of what passes through a layer: Glorot's and He's."""

import math
from collections.abc import Sequence
from typing import Any

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn.init.filling import normal_, uniform_

_LINEAR = (
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "sigmoid",
)  # fmt: skip
_GAINS = {"tanh": 5.0 / 3, "relu": math.sqrt(2.0), "selu": 3.0 / 4}


def xavier_uniform_(
    tensor: Any, gain: float = 1.0, generator: Any = None, *, key: Any = None
) -> Any:
    """Fills with uniform numbers whose bound is gain * sqrt(6 / (fan_in + fan_out)).

    Args:
        tensor: A Param, which is filled, or an array; (out, in, ...).
        gain: What the bound is multiplied with.
        generator: What draws: a TorchGenerator or a Generator.
        key: A key of JAX's in its place.

    Returns:
        The Param, or a new array.

    Raises:
        InputError: For less than two axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax import nn
        >>> w = nn.init.xavier_uniform_(jnp.zeros((1, 2)), generator=TorchGenerator(0))
        >>> [round(float(x), 4) for x in w.ravel()]
        [-0.0106, 0.7586]

    Source: https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.xavier_uniform_
    """
    fan_in, fan_out = fans("xavier_uniform_", tensor.shape)
    std = gain * math.sqrt(2.0 / float(fan_in + fan_out))
    bound = math.sqrt(3.0) * std
    return uniform_(tensor, -bound, bound, generator, key=key)


def xavier_normal_(
    tensor: Any, gain: float = 1.0, generator: Any = None, *, key: Any = None
) -> Any:
    """Fills with normal numbers whose std is gain * sqrt(2 / (fan_in + fan_out)).

    Args:
        tensor: A Param, which is filled, or an array; (out, in, ...).
        gain: What std is multiplied with.
        generator: What draws: a TorchGenerator or a Generator.
        key: A key of JAX's in its place.

    Returns:
        The Param, or a new array.

    Raises:
        InputError: For less than two axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax import nn
        >>> nn.init.xavier_normal_(jnp.zeros((1, 2)), generator=TorchGenerator(0)).shape
        (1, 2)

    Source: https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.xavier_normal_
    """
    fan_in, fan_out = fans("xavier_normal_", tensor.shape)
    std = gain * math.sqrt(2.0 / float(fan_in + fan_out))
    return normal_(tensor, 0.0, std, generator, key=key)


def kaiming_uniform_(
    tensor: Any,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Any = None,
    *,
    key: Any = None,
) -> Any:
    """Fills with uniform numbers whose bound is gain * sqrt(3 / fan).

    Args:
        tensor: A Param, which is filled, or an array; (out, in, ...).
        a: The slope of leaky_relu below 0.
        mode: "fan_in" or "fan_out".
        nonlinearity: Whose gain it is, as `calculate_gain` has it.
        generator: What draws: a TorchGenerator or a Generator.
        key: A key of JAX's in its place.

    Returns:
        The Param, or a new array.

    Raises:
        InputError: For less than two axes, another mode, another nonlinearity.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax import nn
        >>> w = nn.init.kaiming_uniform_(jnp.zeros((1, 2)), generator=TorchGenerator(0))
        >>> [round(float(x), 4) for x in w.ravel()]
        [-0.013, 0.9291]

    Source: https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.kaiming_uniform_
    """
    if 0 in tensor.shape:
        return tensor
    fan = fan_of("kaiming_uniform_", tensor.shape, mode)
    std = calculate_gain(nonlinearity, a) / math.sqrt(fan)
    bound = math.sqrt(3.0) * std
    return uniform_(tensor, -bound, bound, generator, key=key)


def kaiming_normal_(
    tensor: Any,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Any = None,
    *,
    key: Any = None,
) -> Any:
    """Fills with normal numbers whose std is gain / sqrt(fan).

    Args:
        tensor: A Param, which is filled, or an array; (out, in, ...).
        a: The slope of leaky_relu below 0.
        mode: "fan_in" or "fan_out".
        nonlinearity: Whose gain it is, as `calculate_gain` has it.
        generator: What draws: a TorchGenerator or a Generator.
        key: A key of JAX's in its place.

    Returns:
        The Param, or a new array.

    Raises:
        InputError: For less than two axes, another mode, another nonlinearity.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax import nn
        >>> nn.init.kaiming_normal_(jnp.zeros((1, 2)), generator=TorchGenerator(0)).shape
        (1, 2)

    Source: https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.kaiming_normal_
    """
    if 0 in tensor.shape:
        return tensor
    fan = fan_of("kaiming_normal_", tensor.shape, mode)
    std = calculate_gain(nonlinearity, a) / math.sqrt(fan)
    return normal_(tensor, 0.0, std, generator, key=key)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """By how much an activation shrinks what it is given: what weights are multiplied with.

    Args:
        nonlinearity: Its name in functional.
        param: The slope of leaky_relu below 0; None: 0.01.

    Returns:
        The gain.

    Raises:
        InputError: For another nonlinearity, and a slope that is no number.

    Example:
        >>> from twinstep.jax import nn
        >>> round(nn.init.calculate_gain("leaky_relu", 0.2), 4)
        1.3868

    Source: https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.calculate_gain
    """
    if nonlinearity in _LINEAR:
        return 1.0
    if nonlinearity in _GAINS:
        return _GAINS[nonlinearity]
    known = "leaky_relu", *_GAINS, *_LINEAR
    check_arguments(
        "calculate_gain",
        nonlinearity=(nonlinearity, f"one of {', '.join(known)}", lambda v: v == "leaky_relu"),
        param=(param, "a number", lambda v: v is None or not isinstance(v, bool | str)),
    )
    slope = 0.01 if param is None else param
    return math.sqrt(2.0 / (1 + slope**2))


def fans(what: str, shape: Sequence[int]) -> tuple[int, int]:
    """How many numbers go into an output and come from an input. InputError for under two axes."""
    if len(shape) < 2:
        raise InputError(f"{what}: tensor is of shape {tuple(shape)}, expected two axes or more")
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def fan_of(what: str, shape: Sequence[int], mode: str) -> int:
    """The fan that a mode names."""
    modes = "fan_in", "fan_out"
    check_arguments(what, mode=(mode, f"one of {modes}", lambda value: value.lower() in modes))
    return fans(what, shape)[modes.index(mode.lower())]
