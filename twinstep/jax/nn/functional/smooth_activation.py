"""torch.nn.functional's activations that are curves, with its derivatives at infinity."""

import jax
import jax.numpy as jnp

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn.functional.taking_in import axis_of, floats, value_of, wide, with_slope

__all__ = [
    "celu",
    "elu",
    "gelu",
    "glu",
    "logsigmoid",
    "mish",
    "selu",
    "sigmoid",
    "silu",
    "softplus",
    "softsign",
    "tanh",
    "tanhshrink",
]

_ALPHA, _SCALE = 1.6732632423543772, 1.0507009873554805  # selu's


def elu(input: jax.Array, alpha: float = 1.0, inplace: bool = False) -> jax.Array:
    """x above 0, else alpha (exp(x) - 1), whose derivative at 0 is alpha.

    Args:
        input: Floats, of any shape.
        alpha: The size of what is below 0.
        inplace: Not looked at: arrays are not written into.

    Returns:
        An array like the input.

    Raises:
        InputError: For no floats.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import elu
        >>> elu(jnp.array([-jnp.inf, 2.0]), 0.5).tolist()
        [-0.5, 2.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.elu.html
    """
    (given,) = floats("elu", input=input)
    x = wide(given)
    return _elu(x, alpha, 1).astype(given.dtype)


def selu(input: jax.Array, inplace: bool = False) -> jax.Array:
    """The elu whose outputs keep mean 0 and variance 1: PyTorch's two constants.

    Args:
        input: Floats, of any shape.
        inplace: Not looked at: arrays are not written into.

    Returns:
        An array like the input.

    Raises:
        InputError: For no floats.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import selu
        >>> [round(float(x), 4) for x in selu(jnp.array([-1.0, 1.0]))]
        [-1.1113, 1.0507]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.selu.html
    """
    (given,) = floats("selu", input=input)
    x = wide(given)
    return (_SCALE * _elu(x, _ALPHA, 1)).astype(given.dtype)


def celu(input: jax.Array, alpha: float = 1.0, inplace: bool = False) -> jax.Array:
    """x above 0, else alpha (exp(x / alpha) - 1), whose derivative at 0 is 1.

    Args:
        input: Floats, of any shape.
        alpha: The size of what is below 0; not 0.
        inplace: Not looked at: arrays are not written into.

    Returns:
        An array like the input.

    Raises:
        InputError: For an alpha of 0, no floats.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import celu
        >>> celu(jnp.array([-jnp.inf, 2.0]), 0.5).tolist()
        [-0.5, 2.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.celu.html
    """
    (given,) = floats("celu", input=input)
    x = wide(given)
    check_arguments("celu", alpha=(alpha, "not 0", lambda v: v != 0))
    return _elu(x, alpha, alpha).astype(given.dtype)


def gelu(input: jax.Array, approximate: str = "none") -> jax.Array:
    """x times the normal distribution's share below x; jax.nn.gelu's default is the tanh form.

    Args:
        input: Floats, of any shape.
        approximate: "none", or "tanh" for a formula with tanh.

    Returns:
        An array like the input.

    Raises:
        InputError: For another approximation, no floats.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import gelu
        >>> [round(float(x), 4) for x in gelu(jnp.array([-1.0, 1.0]))]
        [-0.1587, 0.8413]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.gelu.html
    """
    (given,) = floats("gelu", input=input)
    x = wide(given)
    check_arguments(
        "gelu", approximate=(approximate, "none or tanh", lambda v: v in ("none", "tanh"))
    )
    return jax.nn.gelu(x, approximate=approximate == "tanh").astype(given.dtype)


def silu(input: jax.Array, inplace: bool = False) -> jax.Array:
    """x times its sigmoid.

    Args:
        input: Floats or complex numbers, of any shape.
        inplace: Not looked at: arrays are not written into.

    Returns:
        An array like the input.

    Raises:
        InputError: For other dtypes.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import silu
        >>> [round(float(x), 4) for x in silu(jnp.array([-1.0, 1.0]))]
        [-0.2689, 0.7311]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.silu.html
    """
    (given,) = floats("silu", complex_too=True, input=input)
    x = wide(given)
    return (x * jax.nn.sigmoid(x)).astype(given.dtype)


def mish(input: jax.Array, inplace: bool = False) -> jax.Array:
    """x tanh(log(1 + exp(x))).

    Args:
        input: Floats, of any shape.
        inplace: Not looked at: arrays are not written into.

    Returns:
        An array like the input.

    Raises:
        InputError: For no floats.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import mish
        >>> [round(float(x), 4) for x in mish(jnp.array([-1.0, 1.0]))]
        [-0.3034, 0.8651]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.mish.html
    """
    (given,) = floats("mish", input=input)
    x = wide(given)
    return (x * jnp.tanh(jax.nn.softplus(x))).astype(given.dtype)


def softplus(input: jax.Array, beta: float = 1, threshold: float = 20) -> jax.Array:
    """log(1 + exp(beta x)) / beta, and x where beta x is above a threshold.

    Args:
        input: Floats, of any shape.
        beta: How sharp the bend is.
        threshold: From which beta x on it is x itself.

    Returns:
        An array like the input.

    Raises:
        InputError: For no floats.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import softplus
        >>> softplus(jnp.array([0.0, 3.0]), beta=2, threshold=5).tolist()
        [0.34657..., 3.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.softplus.html
    """
    (given,) = floats("softplus", input=input)
    x = wide(given)
    line = x * beta > threshold
    power = jnp.exp(jnp.where(line, 0, x * beta))
    value = jnp.where(line, x, jnp.log1p(power) / beta)
    slope = jnp.where(line, 1, power / (power + 1))
    return with_slope(x, value, slope).astype(given.dtype)


def softsign(input: jax.Array) -> jax.Array:
    """x / (|x| + 1).

    Args:
        input: Numbers but bools, of any shape.

    Returns:
        An array of the input's shape: integers give floats.

    Raises:
        InputError: For bools.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import softsign
        >>> softsign(jnp.array([-1.0, 3.0])).tolist()
        [-0.5, 0.75]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.softsign.html
    """
    x = value_of(input)
    if x.dtype == bool:
        raise InputError("softsign: input is bool, expected numbers, as PyTorch")
    return jnp.asarray(x / (jnp.abs(x) + 1))


def tanhshrink(input: jax.Array) -> jax.Array:
    """x - tanh(x).

    Args:
        input: Numbers but bools, of any shape.

    Returns:
        An array of the input's shape: integers give floats.

    Raises:
        InputError: For bools.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import tanhshrink
        >>> round(float(tanhshrink(jnp.array(1.0))), 4)
        0.2384

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.tanhshrink.html
    """
    x = value_of(input)
    if x.dtype == bool:
        raise InputError("tanhshrink: input is bool, expected numbers, as PyTorch")
    return jnp.asarray(x - jnp.tanh(x))


def logsigmoid(input: jax.Array) -> jax.Array:
    """log(1 / (1 + exp(-x))).

    Args:
        input: Floats, of any shape.

    Returns:
        An array like the input.

    Raises:
        InputError: For no floats.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import logsigmoid
        >>> logsigmoid(jnp.array([-800.0, 0.0])).tolist()
        [-800.0, -0.6931...]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.logsigmoid.html
    """
    (given,) = floats("logsigmoid", input=input)
    x = wide(given)
    return jax.nn.log_sigmoid(x).astype(given.dtype)


def sigmoid(input: jax.Array) -> jax.Array:
    """1 / (1 + exp(-x)).

    Args:
        input: Numbers, of any shape.

    Returns:
        An array of the input's shape: integers and bools give floats.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import sigmoid
        >>> sigmoid(jnp.array([0.0, jnp.inf])).tolist()
        [0.5, 1.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.sigmoid.html
    """
    given = value_of(input)
    x = wide(given if jnp.issubdtype(given.dtype, jnp.inexact) else given.astype(float))
    narrow = given.dtype if jnp.issubdtype(given.dtype, jnp.inexact) else x.dtype
    return jax.nn.sigmoid(x).astype(narrow)


def tanh(input: jax.Array) -> jax.Array:
    """The hyperbolic tangent.

    Args:
        input: Numbers, of any shape.

    Returns:
        An array of the input's shape: integers and bools give floats.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import tanh
        >>> tanh(jnp.array([0.0, jnp.inf])).tolist()
        [0.0, 1.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.tanh.html
    """
    given = value_of(input)
    x = wide(given if jnp.issubdtype(given.dtype, jnp.inexact) else given.astype(float))
    narrow = given.dtype if jnp.issubdtype(given.dtype, jnp.inexact) else x.dtype
    return jnp.tanh(x).astype(narrow)


def glu(input: jax.Array, dim: int = -1) -> jax.Array:
    """The first half of an axis times the sigmoid of the second.

    Args:
        input: Floats, of an even length along the axis.
        dim: Which axis.

    Returns:
        An array of half the length along the axis.

    Raises:
        InputError: For an odd length, an axis that there is not, a number without axes, no floats.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import glu
        >>> glu(jnp.array([1.0, 2.0, 0.0, 0.0])).tolist()
        [0.5, 1.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.glu.html
    """
    (given,) = floats("glu", input=input)
    if not given.ndim:
        raise InputError("glu: input has no axes, expected one of even length")
    axis = axis_of("glu", dim, given.ndim)
    if given.shape[axis] % 2:
        raise InputError(
            f"glu: input is of shape {given.shape}, expected an even length along axis {axis}"
        )
    first, second = jnp.split(wide(given), 2, axis=axis)
    return (first * jax.nn.sigmoid(second)).astype(given.dtype)


def _elu(x: jax.Array, size: float, width: float) -> jax.Array:
    below = jnp.where(x <= 0, x, 0)  # or exp(x) would overflow where it does not stand
    return jnp.where(x <= 0, size * jnp.expm1(below / width), x)
