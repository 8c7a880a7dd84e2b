"""torch.nn.functional's rrelu and gumbel_softmax, which draw as its dropouts do."""

import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn.drawing import drawing_for
from twinstep.jax.nn.functional.activation import leaky_relu
from twinstep.jax.nn.functional.softmaxes import softmax
from twinstep.jax.nn.functional.taking_in import axis_of, floats, wide

__all__ = ["gumbel_softmax", "rrelu"]


def rrelu(
    input: jax.Array,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
    *,
    generator: Any = None,
    key: Any = None,
) -> jax.Array:
    """x above 0, else a part of it, which is drawn for each; the mean part without training.

    Args:
        input: Floats, of any shape.
        lower, upper: The bounds of the part.
        training: Whether the parts are drawn: so many as there are numbers up to 0.
        inplace, generator, key: See `dropout`.

    Returns:
        An array like the input.

    Raises:
        InputError: For bounds that are none, no floats, and as dropout for a generator.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax.nn.functional import rrelu
        >>> x = jnp.array([3.0, -1.0])
        >>> [round(float(x), 4) for x in rrelu(x, training=True, generator=TorchGenerator(0))]
        [3.0, -0.3271]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.rrelu.html
    """
    (given,) = floats("rrelu", input=input)
    check_arguments(
        "rrelu",
        lower=(lower, "a finite number", math.isfinite),
        upper=(upper, f"a finite number, {lower} or more", lambda v: math.isfinite(v - lower)),
    )
    if lower > upper:
        raise InputError(f"rrelu: upper is {upper}, expected {lower} or more, which lower is")
    if not training:
        return leaky_relu(given, (lower + upper) / 2)
    x = wide(given)
    draws = drawing_for("rrelu", x, generator, key)
    part = draws.uniform_at(jax.lax.stop_gradient(x) <= 0, lower, upper).astype(x.dtype)
    return jnp.where(x <= 0, x * part, x).astype(given.dtype)


def gumbel_softmax(
    logits: jax.Array,
    tau: float = 1,
    hard: bool = False,
    eps: float = 1e-10,
    dim: int = -1,
    *,
    generator: Any = None,
    key: Any = None,
) -> jax.Array:
    """A draw from a categorical distribution that has a gradient: a softmax with Gumbel noise.

    Args:
        logits: Floats, of any shape: the logarithms of what is as likely.
        tau: The temperature.
        hard: Whether 1 stands for the likeliest and 0 elsewhere; the gradient is the softmax's.
        eps: Not looked at.
        dim: Along which axis.
        generator, key: See `dropout`.

    Returns:
        An array like the logits.

    Raises:
        InputError: For no floats, an axis that there is not, and as dropout for a generator.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax.nn.functional import gumbel_softmax
        >>> gumbel_softmax(jnp.zeros(3), hard=True, generator=TorchGenerator(0)).tolist()
        [0.0, 0.0, 1.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.gumbel_softmax.html
    """
    (x,) = floats("gumbel_softmax", logits=logits)
    axis = axis_of("gumbel_softmax", dim, x.ndim)
    if hard and x.ndim and not x.shape[axis]:
        raise InputError(f"gumbel_softmax: logits are of shape {x.shape}, which have no largest")
    if eps != 1e-10:
        warnings.warn(f"gumbel_softmax: eps is {eps}, which has no effect", stacklevel=2)
    draws = drawing_for("gumbel_softmax", x, generator, key)
    gumbels = -jnp.log(draws.exponential(x.shape, wide(x).dtype).astype(x.dtype))
    soft = softmax((x + gumbels) / tau, dim)
    if not hard:
        return soft
    flat = soft.reshape(soft.shape or (1,))
    first = jnp.expand_dims(jnp.argmax(flat, axis), axis)
    ones = jnp.put_along_axis(jnp.zeros_like(flat), first, 1, axis, inplace=False)
    return ones.reshape(x.shape) - jax.lax.stop_gradient(soft) + soft
