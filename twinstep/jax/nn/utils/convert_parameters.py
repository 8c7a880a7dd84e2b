"""torch.nn.utils.convert_parameters: parameters as one vector, and back."""

import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from twinstep.errors import InputError
from twinstep.jax.nn.functional.taking_in import value_of

__all__ = ["parameters_to_vector", "vector_to_parameters"]


def parameters_to_vector(parameters: Iterable[Any]) -> jax.Array:
    """All entries of parameters in a row.

    Args:
        parameters: What a module's `parameters()` gives, or arrays; one or more.

    Returns:
        The vector.

    Raises:
        InputError: Where there are none.

    Example:
        >>> from twinstep.jax import nn
        >>> nn.utils.parameters_to_vector(nn.Linear(3, 2).parameters()).shape
        (8,)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.parameters_to_vector.html
    """
    rows = [value_of(parameter).reshape(-1) for parameter in parameters]
    if not rows:
        raise InputError("parameters_to_vector: parameters are none, expected one or more")
    return jnp.concatenate(rows)


def vector_to_parameters(vec: jax.Array, parameters: Iterable[nnx.Variable[Any]]) -> None:
    """Gives parameters the entries of a vector, in the vector's dtype; what is over is left out.

    Args:
        vec: The vector.
        parameters: What a module's `parameters()` gives; an array cannot be written into.

    Raises:
        InputError: For what is no vector, one that is too short, and arrays as parameters; none is
            changed then.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> layer = nn.Linear(3, 2)
        >>> nn.utils.vector_to_parameters(jnp.arange(8.0), layer.parameters())
        >>> layer.bias[...].tolist()
        [6.0, 7.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.vector_to_parameters.html
    """
    held = list(parameters)
    for i, parameter in enumerate(held):
        if not isinstance(parameter, nnx.Variable):
            kind = type(parameter).__name__
            raise InputError(
                f"vector_to_parameters: parameters[{i}] is a {kind}, expected a parameter: an "
                "array cannot be written into"
            )
    if not isinstance(vec, jax.Array):
        raise InputError(f"vector_to_parameters: vec is {type(vec).__name__}, expected an array")
    ends = [0]
    for parameter in held:
        ends.append(ends[-1] + math.prod(parameter.shape))
    if vec.ndim != 1 or vec.size < ends[-1]:
        raise InputError(
            f"vector_to_parameters: vec has shape {vec.shape}, expected ({ends[-1]},) as all "
            "parameters have entries"
        )
    for parameter, start, end in zip(held, ends, ends[1:], strict=False):
        parameter.set_value(vec[start:end].reshape(parameter.shape))
