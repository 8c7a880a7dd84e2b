"""torch.nn.utils.clip_grad: gradients clipped. They are values here: what is clipped is given back.

`twinstep.jax.optim` has the same as parts of an optimizer.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.experimental import checkify

from twinstep.errors import InputError
from twinstep.jax.optim.clipping import clip_grad_value, clipped_to_norm, total_norm

__all__ = ["clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "get_total_norm"]


def get_total_norm(
    tensors: Any,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> jax.Array:
    """The p-norm of all arrays as one vector, (), by way of each array's own.

    Args:
        tensors: A tree of arrays.
        norm_type: p of any sign; inf is the largest entry; 0 counts the arrays that are not all 0.
        error_if_nonfinite: Whether a norm that is not finite is refused; under jit by
            `jax.experimental.checkify`, through which the function has to go.
        foreach: Ignored.

    Returns:
        The norm; 0 of no arrays.

    Raises:
        InputError: For a norm that is not finite, if that is asked for.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.utils.get_total_norm([jnp.array([3.0, 0.0]), jnp.array(4.0)])
        Array(5., dtype=float32)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.get_total_norm.html
    """
    norm = total_norm(tensors, float(norm_type))
    if not error_if_nonfinite:
        return norm
    finite = jnp.isfinite(norm)
    if isinstance(norm, jax.core.Tracer):
        checkify.check(finite, "the total norm of the gradients is not finite")
    elif not finite:
        raise InputError(f"get_total_norm: the norm is {norm}, expected a finite one")
    return norm


def clip_grads_with_norm_(
    grads: Any, max_norm: float, total_norm: jax.Array, foreach: bool | None = None
) -> Any:
    """Gradients of a known norm times min(1, max_norm / (norm + 1e-6)).

    Args:
        grads: A tree of arrays.
        max_norm: What the norm is brought down to.
        total_norm: Their norm, as `get_total_norm` gives it.
        foreach: Ignored.

    Returns:
        The gradients, clipped.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> grads = nn.utils.clip_grads_with_norm_([jnp.array(8.0)], 2.0, jnp.array(4.0))
        >>> round(float(grads[0]), 4)
        4.0

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grads_with_norm_.html
    """
    return clipped_to_norm(grads, float(max_norm), jnp.asarray(total_norm))


def clip_grad_norm_(
    grads: Any,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> tuple[Any, jax.Array]:
    """Gradients times min(1, max_norm / (norm + 1e-6)), and their norm before.

    Args:
        grads: A tree of arrays, as `nnx.grad` gives it.
        max_norm: What the norm is brought down to.
        norm_type, error_if_nonfinite: As for `get_total_norm`.
        foreach: Ignored.

    Returns:
        (the gradients, clipped; the norm that they had).

    Raises:
        InputError: As `get_total_norm`.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> grads, norm = nn.utils.clip_grad_norm_([jnp.array(3.0), jnp.array(4.0)], 1.0)
        >>> [round(float(g), 4) for g in grads], float(norm)
        ([0.6, 0.8], 5.0)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html
    """
    norm = get_total_norm(grads, norm_type, error_if_nonfinite)
    return clip_grads_with_norm_(grads, max_norm, norm), norm


def clip_grad_value_(grads: Any, clip_value: float, foreach: bool | None = None) -> Any:
    """Each entry of gradients kept between -clip_value and clip_value; a NaN stays one.

    Args:
        grads: A tree of arrays.
        clip_value: The bound.
        foreach: Ignored.

    Returns:
        The gradients, clipped.

    Raises:
        InputError: For complex gradients, which have no order.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> print(nn.utils.clip_grad_value_(jnp.array([3.0, -0.25]), 0.5))
        [ 0.5  -0.25]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_value_.html
    """
    clipped, _ = clip_grad_value(clip_value).update(grads, optax.EmptyState())
    return clipped
