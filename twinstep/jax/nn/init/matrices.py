"""Fills of whole matrices."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError
from twinstep.jax.nn.drawing import Keyed, default_generator, drawing
from twinstep.jax.nn.init.filling import filled, known


def orthogonal_(tensor: Any, gain: float = 1, generator: Any = None, *, key: Any = None) -> Any:
    """Fills with an orthogonal matrix, the axes behind the first one taken together.

    Args:
        tensor: A Param, which is filled, or an array, of two axes or more.
        gain: What it is multiplied with.
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
        >>> matrix = nn.init.orthogonal_(jnp.zeros((2, 2)), generator=TorchGenerator(0))
        >>> bool(jnp.allclose(matrix @ matrix.T, jnp.eye(2), atol=1e-6))
        True

    Source: https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.orthogonal_
    """
    shape = tuple(tensor.shape)
    if len(shape) < 2:
        raise InputError(f"orthogonal_: tensor is of shape {shape}, expected two axes or more")
    if 0 in shape:
        return tensor
    rows, columns = shape[0], math.prod(shape[1:])
    draws = drawing(generator, key=key)
    flat = draws.normal((rows, columns), 0.0, 1.0, tensor.dtype)
    numpy = jnp if isinstance(flat, jax.core.Tracer) else np  # whose LAPACK is PyTorch's
    q, r = numpy.linalg.qr(flat.T if rows < columns else flat)
    q = q * numpy.sign(numpy.diagonal(r))
    return filled(tensor, jnp.asarray(q.T if rows < columns else q).reshape(shape) * gain)


def sparse_(
    tensor: Any, sparsity: float, std: float = 0.01, generator: Any = None, *, key: Any = None
) -> Any:
    """Fills a matrix with normal numbers, of which a part of each column is 0.

    Args:
        tensor: A Param, which is filled, or an array, of two axes.
        sparsity: Which part, from 0 to 1, rounded up.
        std: Of the normal numbers.
        generator: What draws the numbers: a TorchGenerator or a Generator. Which are 0 is drawn
            from the default one, as PyTorch does.
        key: A key of JAX's in its place.

    Returns:
        The Param, or a new array.

    Raises:
        InputError: For another number of axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax import nn
        >>> matrix = nn.init.sparse_(jnp.zeros((4, 2)), 0.5, generator=TorchGenerator(0))
        >>> (matrix == 0).sum(0).tolist()
        [2, 2]

    Source: https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.sparse_
    """
    if tensor.ndim != 2:
        raise InputError(f"sparse_: tensor is of shape {tuple(tensor.shape)}, expected two axes")
    rows, columns = tensor.shape
    draws = drawing(generator, key=key)
    values = np.array(known(draws.normal((rows, columns), 0.0, std, tensor.dtype)))
    chooses = draws if isinstance(draws, Keyed) else default_generator()
    for column in range(columns):
        order = known(chooses.randperm(rows))
        values[order[: math.ceil(sparsity * rows)], column] = 0
    return filled(tensor, values)
