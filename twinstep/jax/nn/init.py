"""torch.nn.init: what parameters start from, PyTorch's very numbers from its generator.

Each function fills a Param and returns it; of a plain array it returns a new one. It draws from a
`generator` (a TorchGenerator, or a layer's own), from a `key` of JAX's, or from the default
generator, which `manual_seed` seeds.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn.drawing import drawing

__all__ = [
    "calculate_gain",
    "constant_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "uniform_",
    "xavier_uniform_",
    "zeros_",
]

_LINEAR = (
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "sigmoid",
)  # fmt: skip
_GAINS = {"tanh": 5.0 / 3, "relu": math.sqrt(2.0), "selu": 3.0 / 4}


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
        >>> nn.init.uniform_(jnp.zeros(2), -1, 1, TorchGenerator(0))
        Array([-0.00748682,  0.53644359], dtype=float32)

    Source: https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.uniform_
    """
    drawn = drawing(generator, key=key).uniform(tensor.shape, a, b, tensor.dtype)
    return _filled(tensor, drawn)


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
        >>> nn.init.normal_(jnp.zeros(2), 0.0, 0.02, TorchGenerator(0))
        Array([ 0.03081992, -0.00586858], dtype=float32)

    Source: https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.normal_
    """
    drawn = drawing(generator, key=key).normal(tensor.shape, mean, std, tensor.dtype)
    return _filled(tensor, drawn)


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
    return _filled(tensor, jnp.full(tensor.shape, val, tensor.dtype))


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
        >>> nn.init.xavier_uniform_(jnp.zeros((1, 2)), generator=TorchGenerator(0))
        Array([[-0.01058793,  0.7586459 ]], dtype=float32)

    Source: https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.xavier_uniform_
    """
    fan_in, fan_out = fans("xavier_uniform_", tensor.shape)
    std = gain * math.sqrt(2.0 / float(fan_in + fan_out))
    bound = math.sqrt(3.0) * std
    return uniform_(tensor, -bound, bound, generator, key=key)


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
        >>> nn.init.kaiming_uniform_(jnp.zeros((1, 2)), generator=TorchGenerator(0))
        Array([[-0.0129675,  0.9291477]], dtype=float32)

    Source: https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.kaiming_uniform_
    """
    if 0 in tensor.shape:
        return tensor
    fan = fan_of("kaiming_uniform_", tensor.shape, mode)
    std = calculate_gain(nonlinearity, a) / math.sqrt(fan)
    bound = math.sqrt(3.0) * std
    return uniform_(tensor, -bound, bound, generator, key=key)


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


def _filled(tensor: Any, values: Any) -> Any:
    """The Param with new values, or the values."""
    if isinstance(tensor, nnx.Variable):
        tensor[...] = values
        return tensor
    return values
