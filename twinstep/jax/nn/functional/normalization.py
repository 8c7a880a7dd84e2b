"""torch.nn.functional's normalizations that keep no statistics."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn.functional.taking_in import axis_of, floats, value_of, wide

__all__ = ["group_norm", "layer_norm", "local_response_norm", "normalize", "rms_norm"]


def layer_norm(
    input: jax.Array,
    normalized_shape: Sequence[int],
    weight: jax.Array | None = None,
    bias: jax.Array | None = None,
    eps: float = 1e-5,
) -> jax.Array:
    """The last axes at mean 0 and variance 1; flax.nnx.LayerNorm's eps is 1e-6.

    Args:
        input: Floats, (..., *normalized_shape).
        normalized_shape: The last axes' lengths.
        weight, bias: What the result is multiplied with and what is added, of that shape.
        eps: What is added to the variance.

    Returns:
        An array like the input.

    Raises:
        InputError: For shapes that do not fit, no floats, two dtypes.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import layer_norm
        >>> layer_norm(jnp.array([[1.0, 3.0]]), [2], eps=0.0).tolist()
        [[-1.0, 1.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.layer_norm.html
    """
    given, scale, shift = affine("layer_norm", input, weight, bias)
    axes = _last_axes("layer_norm", given, normalized_shape, weight=scale, bias=shift)
    return scaled(standardized(wide(given), axes, eps), scale, shift).astype(given.dtype)


def rms_norm(
    input: jax.Array,
    normalized_shape: Sequence[int],
    weight: jax.Array | None = None,
    eps: float | None = None,
) -> jax.Array:
    """The last axes divided by the root of their mean square; flax.nnx.RMSNorm's eps is 1e-6.

    Args:
        input: Floats, (..., *normalized_shape).
        normalized_shape: The last axes' lengths.
        weight: What the result is multiplied with, of that shape.
        eps: What is added to the mean square; None: the machine epsilon, float32's for shorter
            floats.

    Returns:
        An array like the input.

    Raises:
        InputError: For shapes that do not fit, no floats.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import rms_norm
        >>> [round(float(x), 4) for x in rms_norm(jnp.array([1.0, 7.0]), [2])]
        [0.2, 1.4]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.rms_norm.html
    """
    (given,) = floats("rms_norm", input=input)
    scale = None if weight is None else floats("rms_norm", weight=weight)[0]
    axes = _last_axes("rms_norm", given, normalized_shape, weight=scale)
    x = wide(given)
    added = float(np.finfo(x.dtype).eps) if eps is None else eps
    x = x * jax.lax.rsqrt(jnp.mean(x * x, axes, keepdims=True) + added) if x.size else x
    return scaled(x, scale, None).astype(given.dtype)


def group_norm(
    input: jax.Array,
    num_groups: int,
    weight: jax.Array | None = None,
    bias: jax.Array | None = None,
    eps: float = 1e-5,
) -> jax.Array:
    """Each sample's groups of channels at mean 0 and variance 1; flax.nnx.GroupNorm's eps is 1e-6.

    Args:
        input: Floats, (N, C, ...).
        num_groups: How many groups, by which C is divided.
        weight, bias: What the result is multiplied with and what is added, (C,).
        eps: What is added to the variance.

    Returns:
        An array like the input.

    Raises:
        InputError: For shapes that do not fit, one value in all of each group, no floats, two
            dtypes.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import group_norm
        >>> group_norm(jnp.array([[1.0, 3.0, 5.0, 9.0]]), 2, eps=0.0).tolist()
        [[-1.0, 1.0, -1.0, 1.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.group_norm.html
    """
    given, scale, shift = affine("group_norm", input, weight, bias)
    if given.ndim < 2:
        raise InputError(f"group_norm: input is of shape {given.shape}, expected (N, C, ...)")
    samples, channels, *rest = given.shape
    check_arguments(
        "group_norm",
        num_groups=(
            num_groups,
            f"1 or more, by which the {channels} channels are divided",
            lambda v: v > 0 and channels % v == 0,
        ),
    )
    for name, array in {"weight": scale, "bias": shift}.items():
        check_of_channels("group_norm", name, array, channels)
    if int(np.prod([samples * channels // num_groups, *rest])) == 1:
        raise InputError(
            f"group_norm: input is of shape {given.shape}, expected more than 1 value in a group"
        )
    if not given.size:
        return wide(given).astype(given.dtype)
    grouped = wide(given).reshape(samples, num_groups, -1)
    x = standardized(grouped, (2,), eps).reshape(given.shape)
    return scaled(x, of_channels(scale, given), of_channels(shift, given)).astype(given.dtype)


def local_response_norm(
    input: jax.Array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> jax.Array:
    """x divided by a power of the mean square of its neighbouring channels, 0 beyond the ends.

    Args:
        input: Numbers, (N, C, ...) with an axis or more behind.
        size: How many channels: size // 2 before and (size - 1) // 2 behind.
        alpha: What the mean square is multiplied with.
        beta: The power.
        k: What is added.

    Returns:
        An array of the input's shape.

    Raises:
        InputError: For fewer than 3 axes, a size below 1.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import local_response_norm
        >>> x = jnp.array([[[1.0], [3.0]]])
        >>> local_response_norm(x, 2, alpha=2.0, beta=1.0, k=0.0).tolist()
        [[[1.0], [0.3...]]]

    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.local_response_norm.html
    """
    x = value_of(input)
    if x.ndim < 3:
        raise InputError(
            f"local_response_norm: input is of shape {x.shape}, expected (N, C, d1, ...)"
        )
    check_arguments("local_response_norm", size=(size, "1 or more", lambda v: v >= 1))
    if not x.size:
        return jnp.asarray(x)
    rest = [(0, 0)] * (x.ndim - 2)
    padded = jnp.pad(x * x, [(0, 0), (size // 2, (size - 1) // 2), *rest])
    near = sum(padded[:, i : i + x.shape[1]] for i in range(size)) / size
    return jnp.asarray(x / (near * alpha + k) ** beta)


def normalize(
    input: jax.Array,
    p: float = 2.0,
    dim: int | Sequence[int] | None = 1,
    eps: float = 1e-12,
    out: None = None,
) -> jax.Array:
    """x divided by its norm along axes; of a null vector the gradient is finite.

    Args:
        input: Floats or complex numbers, of any shape.
        p: Which norm: any number, 0, inf and -inf too.
        dim: Along which axes; None or () for all.
        eps: The norm's least value.
        out: None: an array is not written into.

    Returns:
        An array like the input.

    Raises:
        InputError: For axes that there are not, an out, integers, the maximum of nothing.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import normalize
        >>> normalize(jnp.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6..., 0.8...], [0.0, 0.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.normalize.html
    """
    (given,) = floats("normalize", complex_too=True, input=input)
    check_arguments(
        "normalize",
        p=(p, "a number", lambda v: isinstance(float(v), float)),
        out=(out, "None: an array is not written into", lambda v: v is None),
    )
    every: Sequence[int] = range(given.ndim) if dim is None or dim == () else ()
    dims = every or ([dim] if isinstance(dim, int) else list(dim or ()))
    axes = tuple(axis_of("normalize", d, given.ndim) for d in dims)
    if len(set(axes)) < len(axes):
        raise InputError(f"normalize: dim is {dim!r}, expected each axis once")
    x = wide(given).reshape(given.shape or (1,))
    if np.isinf(p) and 0 in (x.shape[axis] for axis in axes):
        raise InputError(f"normalize: input is of shape {given.shape}, whose norm {p} is none")
    null = x == 0
    size = jnp.where(null, 0, jnp.abs(jnp.where(null, 1, x)))
    norm = vector_norm(float(p), axes or (0,), size)
    x = x / jnp.where(norm < eps, eps, norm).astype(x.dtype)
    return x.reshape(given.shape).astype(given.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def vector_norm(p: float, axes: tuple[int, ...], size: jax.Array) -> jax.Array:
    """The p-norm of numbers that are not negative, along axes that stay."""
    if p == 0:
        return jnp.sum(size != 0, axes, size.dtype, keepdims=True)
    if p == 2:
        return jnp.sqrt(jnp.sum(size * size, axes, keepdims=True))
    if np.isinf(p):
        return (jnp.max if p > 0 else jnp.min)(size, axes, keepdims=True)
    return jnp.sum(size**p, axes, keepdims=True) ** (1 / p)


@vector_norm.defjvp
def _(p: float, axes: tuple[int, ...], sizes: Any, moves: Any) -> tuple[jax.Array, jax.Array]:
    """PyTorch's derivatives: 0 for a null vector, and shared by all that are the largest."""
    (size,), (move,) = sizes, moves
    norm = vector_norm(p, axes, size)
    null, safe = norm == 0, jnp.where(norm == 0, 1, norm)
    if p == 0:
        slope = jnp.zeros_like(size)
    elif p == 1:
        slope = jnp.ones_like(size)
    elif np.isinf(p):
        extreme = (size == norm) | jnp.isnan(size)
        slope = extreme / jnp.sum(extreme, axes, size.dtype, keepdims=True)
    elif p < 1:
        slope = jnp.where(size == 0, 0, jnp.where(size == 0, 1, size) ** (p - 1) * norm ** (1 - p))
    else:
        slope = jnp.where(null, 0, (size / safe) ** (p - 1))
    return norm, jnp.sum(slope * move, axes, keepdims=True)


# --------------------------------------------------------------------- what norms have in common


def standardized(x: jax.Array, axes: tuple[int, ...], eps: float) -> jax.Array:
    """At mean 0 and variance 1 along axes; the variance in two passes, as in PyTorch."""
    if not x.size:
        return x
    centered = x - jnp.mean(x, axes, keepdims=True)
    return centered * jax.lax.rsqrt(jnp.mean(centered * centered, axes, keepdims=True) + eps)


def of_channels(array: jax.Array | None, x: jax.Array) -> jax.Array | None:
    """What each channel has, (C,), along axis 1 of an array."""
    return None if array is None else array.reshape(-1, *[1] * (x.ndim - 2))


def check_of_channels(name: str, argument: str, array: jax.Array | None, channels: int) -> None:
    """Refuses all but one number for each channel."""
    if array is not None and array.shape != (channels,):
        raise InputError(
            f"{name}: {argument} is of shape {array.shape}, expected ({channels},), the channels"
        )


def affine(name: str, input: Any, weight: Any, bias: Any) -> list[Any]:
    """Of one dtype, or short floats with parameters of float32, as in PyTorch."""
    (x,) = floats(name, input=input)
    arrays = {"weight": value_of(weight), "bias": value_of(bias)}
    if wide(x).dtype != x.dtype and all(
        a is None or a.dtype == jnp.float32 for a in arrays.values()
    ):
        return [x, *arrays.values()]
    return floats(name, input=x, **arrays)


def scaled(x: jax.Array, weight: jax.Array | None, bias: jax.Array | None) -> jax.Array:
    """Times the weight, plus the bias, as far as they are there."""
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _last_axes(name: str, x: jax.Array, shape: Sequence[int], **arrays: Any) -> tuple[int, ...]:
    if isinstance(shape, int) or not len(shape) or x.shape[-len(shape) :] != tuple(shape):
        raise InputError(
            f"{name}: normalized_shape is {shape!r}, expected the last axes of input, which is of "
            f"shape {x.shape}"
        )
    for argument, array in arrays.items():
        if array is not None and array.shape != tuple(shape):
            raise InputError(
                f"{name}: {argument} is of shape {array.shape}, expected normalized_shape, "
                f"{tuple(shape)}"
            )
    return tuple(range(x.ndim - len(shape), x.ndim))
