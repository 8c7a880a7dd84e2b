"""torch.nn.functional's dropouts: PyTorch's very masks, from its generator.

They draw from a `generator` (a layer's own, a Generator, a TorchGenerator), from a `key` of JAX's,
or from the default generator, which `manual_seed` seeds; where nothing is dropped nothing is drawn.
A function that is compiled takes a key or a generator that is an argument of it: numbers that are
drawn while it is traced would be the same in every call.
"""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn.drawing import drawing_for
from twinstep.jax.nn.functional.taking_in import floats, value_of, wide

__all__ = [
    "alpha_dropout",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "feature_alpha_dropout",
]

_ALPHA = 1.7580993408473766  # what selu tends to below 0, with the sign turned


def dropout(
    input: jax.Array,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Any = None,
    key: Any = None,
) -> jax.Array:
    """Entries at random made 0, and the others divided by 1 - p.

    Args:
        input: Floats, of any shape.
        p: With which probability each is made 0.
        training: Whether any is.
        inplace: Not looked at: arrays are not written into.
        generator: What draws: a layer's, a Generator or a TorchGenerator; None: the default one.
        key: A key of JAX's in its place.

    Returns:
        An array like the input.

    Raises:
        InputError: For no probability, no floats, and in a compiled function for a generator that
            is no argument of it.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax.nn.functional import dropout
        >>> dropout(jnp.ones(4), generator=TorchGenerator(0)).tolist()
        [0.0, 0.0, 2.0, 0.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.dropout.html
    """
    x = value_of(input)
    return dropped("dropout", x, x.shape, p, training, generator, key)


def dropout1d(
    input: jax.Array,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Any = None,
    key: Any = None,
) -> jax.Array:
    """Channels at random made 0, and the others divided by 1 - p.

    Args:
        input: Floats, (N, C, L) or (C, L).
        p, training, inplace, generator, key: See `dropout`.

    Returns:
        An array like the input.

    Raises:
        InputError: As dropout, and for another number of axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax.nn.functional import dropout1d
        >>> dropout1d(jnp.ones((3, 2)), generator=TorchGenerator(0)).tolist()
        [[0.0, 0.0], [0.0, 0.0], [2.0, 2.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.dropout1d.html
    """
    x = value_of(input)
    if x.ndim not in (2, 3):
        raise InputError(f"dropout1d: input is of shape {x.shape}, expected (N, C, L) or (C, L)")
    batched = x if x.ndim == 3 else x[None]
    out = _by_channel("dropout1d", batched, p, training, generator, key)
    return out.reshape(x.shape)


def dropout2d(
    input: jax.Array,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Any = None,
    key: Any = None,
) -> jax.Array:
    """Channels at random made 0, and the others divided by 1 - p.

    PyTorch takes three axes for (N, C, L), and warns of it, as of other numbers than 4.

    Args:
        input: Floats, (N, C, H, W).
        p, training, inplace, generator, key: See `dropout`.

    Returns:
        An array like the input.

    Raises:
        InputError: As dropout, and for fewer than 2 axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax.nn.functional import dropout2d
        >>> dropout2d(jnp.ones((1, 3, 1, 2)), generator=TorchGenerator(0)).tolist()
        [[[[0.0, 0.0]], [[0.0, 0.0]], [[2.0, 2.0]]]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.dropout2d.html
    """
    x = value_of(input)
    if x.ndim != 4:
        warnings.warn(
            f"dropout2d: input has {x.ndim} axes, expected (N, C, H, W); its axes 0 and 1 are "
            "taken for N and C, as PyTorch does for now",
            stacklevel=2,
        )
    return _by_channel("dropout2d", x, p, training, generator, key)


def dropout3d(
    input: jax.Array,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Any = None,
    key: Any = None,
) -> jax.Array:
    """Channels at random made 0, and the others divided by 1 - p.

    Args:
        input: Floats, (N, C, D, H, W) or (C, D, H, W); PyTorch warns of others, and takes them for
            inputs without N.
        p, training, inplace, generator, key: See `dropout`.

    Returns:
        An array like the input.

    Raises:
        InputError: As dropout.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax.nn.functional import dropout3d
        >>> dropout3d(jnp.ones((3, 1, 1, 2)), generator=TorchGenerator(0)).tolist()
        [[[[0.0, 0.0]]], [[[0.0, 0.0]]], [[[2.0, 2.0]]]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.dropout3d.html
    """
    x = value_of(input)
    if x.ndim not in (4, 5):
        warnings.warn(
            f"dropout3d: input has {x.ndim} axes, expected (N, C, D, H, W) or (C, D, H, W)",
            stacklevel=2,
        )
    batched = x if x.ndim == 5 else x[None]
    return _by_channel("dropout3d", batched, p, training, generator, key).reshape(x.shape)


def alpha_dropout(
    input: jax.Array,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    *,
    generator: Any = None,
    key: Any = None,
) -> jax.Array:
    """Entries at random set to what selu tends to, with mean and variance kept.

    Args:
        input: Floats, of any shape.
        p, training, inplace, generator, key: See `dropout`.

    Returns:
        An array like the input.

    Raises:
        InputError: As dropout.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax.nn.functional import alpha_dropout
        >>> out = alpha_dropout(jnp.ones(3), training=True, generator=TorchGenerator(0))
        >>> [round(float(x), 4) for x in out]
        [-0.7792, -0.7792, 1.6656]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.alpha_dropout.html
    """
    x = value_of(input)
    return dropped("alpha_dropout", x, x.shape, p, training, generator, key, alpha=True)


def feature_alpha_dropout(
    input: jax.Array,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    *,
    generator: Any = None,
    key: Any = None,
) -> jax.Array:
    """Channels at random set to what selu tends to, with mean and variance kept.

    Args:
        input: Floats, (N, C, ...).
        p, training, inplace, generator, key: See `dropout`.

    Returns:
        An array like the input.

    Raises:
        InputError: As dropout, and for fewer than 2 axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax.nn.functional import feature_alpha_dropout
        >>> x = jnp.ones((1, 3, 1))
        >>> out = feature_alpha_dropout(x, training=True, generator=TorchGenerator(0))
        >>> [round(float(x), 4) for x in out.ravel()]
        [-0.7792, -0.7792, 1.6656]

    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.feature_alpha_dropout.html
    """
    x = value_of(input)
    return _by_channel("feature_alpha_dropout", x, p, training, generator, key, alpha=True)


def _by_channel(
    name: str, x: Any, p: float, training: bool, generator: Any, key: Any, alpha: bool = False
) -> jax.Array:
    """One draw for all of a channel."""
    drops = training and p != 0 and p != 1 and x.size
    if drops and x.ndim < 2:
        raise InputError(f"{name}: input is of shape {x.shape}, expected (N, C, ...)")
    shape = (*x.shape[:2], *[1] * (x.ndim - 2))
    return dropped(name, x, shape, p, training, generator, key, alpha)


def dropped(
    name: str,
    x: Any,
    shape: Sequence[int],
    p: float,
    training: bool,
    generator: Any,
    key: Any,
    alpha: bool = False,
    argument: str = "p",
) -> jax.Array:
    """Dropout of a function's.

    name: the function's
    shape: of the mask
    alpha: whether dropped ones are set to what selu tends to
    argument: what the function calls p
    """
    check_arguments(name, **{argument: (p, "a probability, 0 to 1", lambda v: 0 <= float(v) <= 1)})
    if not training or p == 0 or not x.size:
        return jnp.asarray(x)
    if p == 1:
        return jnp.asarray(x * jnp.zeros((), x.dtype))  # NaN stays NaN
    (x,) = floats(name, input=x)
    kept = drawing_for(name, x, generator, key).bernoulli(shape, 1 - p, jnp.float32) > 0
    if not alpha:
        scale = jnp.where(kept, _in(x.dtype, 1 / _in(wide(x).dtype, 1 - p)), 0)
        return jnp.asarray(x * scale.astype(x.dtype))
    a = 1 / math.sqrt((_ALPHA * _ALPHA * p + 1) * (1 - p))
    low, high = (_in(x.dtype, v + _ALPHA * a * p) for v in (_in(x.dtype, -_ALPHA * a), 0.0))
    scale = jnp.where(kept, _in(x.dtype, a), 0).astype(x.dtype)
    return jnp.asarray(x * scale + jnp.where(kept, high, low).astype(x.dtype))


def _in(dtype: Any, number: float) -> float:
    """A number rounded to a dtype, as PyTorch rounds what the mask is made of."""
    return float(np.asarray(number, dtype))
