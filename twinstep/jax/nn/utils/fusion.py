"""torch.nn.utils.fusion: a layer and the batch norm behind it as one layer, for use after training.

Letters: O outputs, C inputs, k sizes of a kernel.
"""

import copy
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from twinstep.errors import InputError
from twinstep.jax.nn.functional.taking_in import value_of
from twinstep.jax.nn.module import Module, Parameter

__all__ = [
    "fuse_conv_bn_eval",
    "fuse_conv_bn_weights",
    "fuse_linear_bn_eval",
    "fuse_linear_bn_weights",
]

M = TypeVar("M", bound=Module)


def fuse_conv_bn_eval(conv: M, bn: Any, transpose: bool = False) -> M:
    """A convolution that gives what another one and the batch norm behind it give.

    Args:
        conv: The convolution, not in training.
        bn: The batch norm, not in training, with running statistics.
        transpose: Whether the convolution is a transposed one.

    Returns:
        A new convolution; conv is left as it is.

    Raises:
        InputError: For one in training, and a batch norm without running statistics.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> conv, bn = nn.Conv1d(2, 3, 1).eval(), nn.BatchNorm1d(3).eval()
        >>> fused, x = nn.utils.fuse_conv_bn_eval(conv, bn), jnp.ones((1, 2, 4))
        >>> bool(jnp.allclose(fused(x), bn(conv(x)), atol=1e-6))
        True

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.fuse_conv_bn_eval.html
    """
    fused = _checked("fuse_conv_bn_eval", conv, bn)
    held: Any = fused
    held.weight, held.bias = fuse_conv_bn_weights(
        held.weight, held.bias, *_settings(bn), transpose=transpose
    )
    return fused


def fuse_conv_bn_weights(
    conv_w: Any,
    conv_b: Any,
    bn_rm: Any,
    bn_rv: Any,
    bn_eps: float,
    bn_w: Any,
    bn_b: Any,
    transpose: bool = False,
) -> tuple[Parameter, Parameter]:
    """Weight and bias of a convolution that does what a batch norm behind it did.

    Args:
        conv_w: Its weight, (O, C, k...), or of a transposed one (C, O, k...).
        conv_b: Its bias, (O,), or None.
        bn_rm, bn_rv: The batch norm's running mean and variance, (O,).
        bn_eps: What is added to the variance.
        bn_w, bn_b: Its weight and bias, (O,), or None.
        transpose: Whether the convolution is a transposed one.

    Returns:
        (weight, bias).

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> zeros, ones = jnp.zeros(3), jnp.ones(3)
        >>> weight, bias = nn.utils.fuse_conv_bn_weights(
        ...     jnp.ones((3, 2, 1)), None, ones, 4 * ones, 0.0, ones, zeros
        ... )
        >>> weight[0, 0, 0], bias[0]
        (Array(0.5, dtype=float32), Array(-0.5, dtype=float32))

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.fuse_conv_bn_weights.html
    """
    weight, mean, var = value_of(conv_w), value_of(bn_rm), value_of(bn_rv)
    bias = jnp.zeros_like(mean) if conv_b is None else value_of(conv_b)
    scale = jnp.ones_like(mean) if bn_w is None else value_of(bn_w)
    shift = jnp.zeros_like(mean) if bn_b is None else value_of(bn_b)
    shape = ((1, -1) if transpose else (-1, 1)) + (1,) * (weight.ndim - 2)
    inverse = jax.lax.rsqrt(var + bn_eps)
    new_weight = weight * (scale * inverse).reshape(shape)
    new_bias = (bias - mean) * inverse * scale + shift
    return _parameters(conv_w, conv_b, new_weight, new_bias)


def fuse_linear_bn_eval(linear: M, bn: Any) -> M:
    """A linear layer that gives what another one and the batch norm behind it give.

    Args:
        linear: The linear layer, not in training.
        bn: The batch norm, not in training, with running statistics: of O features, or of one.

    Returns:
        A new linear layer; linear is left as it is.

    Raises:
        InputError: For one in training, other features, and a batch norm without running
            statistics or weight.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> linear, bn = nn.Linear(2, 3).eval(), nn.BatchNorm1d(3).eval()
        >>> fused, x = nn.utils.fuse_linear_bn_eval(linear, bn), jnp.ones((4, 2))
        >>> bool(jnp.allclose(fused(x), bn(linear(x)), atol=1e-6))
        True

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.fuse_linear_bn_eval.html
    """
    fused = _checked("fuse_linear_bn_eval", linear, bn)
    held: Any = fused
    if bn.num_features not in (held.out_features, 1):
        raise InputError(
            f"fuse_linear_bn_eval: bn has {bn.num_features} features, expected "
            f"{held.out_features}, as linear has outputs, or 1"
        )
    held.weight, held.bias = fuse_linear_bn_weights(held.weight, held.bias, *_settings(bn))
    return fused


def fuse_linear_bn_weights(
    linear_w: Any, linear_b: Any, bn_rm: Any, bn_rv: Any, bn_eps: float, bn_w: Any, bn_b: Any
) -> tuple[Parameter, Parameter]:
    """Weight and bias of a linear layer that does what a batch norm behind it did.

    Args:
        linear_w: Its weight, (O, C).
        linear_b: Its bias, (O,), or None.
        bn_rm, bn_rv: The batch norm's running mean and variance, (O,) or (1,).
        bn_eps: What is added to the variance.
        bn_w, bn_b: Its weight and bias, as bn_rm.

    Returns:
        (weight, bias).

    Raises:
        InputError: Without bn_w and bn_b, as PyTorch.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> zeros, ones = jnp.zeros(3), jnp.ones(3)
        >>> weight, bias = nn.utils.fuse_linear_bn_weights(
        ...     jnp.ones((3, 2)), None, ones, 4 * ones, 0.0, ones, zeros
        ... )
        >>> weight[0, 0], bias[0]
        (Array(0.5, dtype=float32), Array(-0.5, dtype=float32))

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.fuse_linear_bn_weights.html
    """
    if bn_w is None or bn_b is None:
        raise InputError("fuse_linear_bn_weights: bn_w or bn_b is None, expected arrays")
    weight, mean = value_of(linear_w), value_of(bn_rm)
    bias = jnp.zeros_like(mean) if linear_b is None else value_of(linear_b)
    scale = value_of(bn_w) * jax.lax.rsqrt(value_of(bn_rv) + bn_eps)
    new_weight = weight * scale[..., None].astype(weight.dtype)
    new_bias = (bias - mean) * scale + value_of(bn_b)
    return _parameters(linear_w, linear_b, new_weight, new_bias)


def _checked(what: str, layer: M, bn: Any) -> M:
    """A copy of the layer, if both are fit."""
    for name, module in (("layer", layer), ("bn", bn)):
        if module.training:
            raise InputError(f"{what}: {name} {type(module).__name__} trains, expected eval()")
    if bn.running_mean is None or bn.running_var is None:
        raise InputError(f"{what}: bn has no running statistics, expected them")
    return copy.deepcopy(layer)


def _settings(bn: Any) -> tuple[Any, Any, float, Any, Any]:
    return bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias


def _parameters(weight: Any, bias: Any, *new: jax.Array) -> tuple[Parameter, Parameter]:
    """Parameters in the dtypes of those that there were, trained as those were."""
    kind = value_of(weight).dtype
    made = (
        (new[0].astype(kind), _is_trained(weight)),
        (new[1].astype(kind if bias is None else value_of(bias).dtype), _is_trained(bias)),
    )
    first, second = (Parameter(array, requires_grad=trained) for array, trained in made)
    return first, second


def _is_trained(array: Any) -> bool:
    is_param = isinstance(array, nnx.Param)
    return is_param and bool(array.get_metadata().get("requires_grad", True))
