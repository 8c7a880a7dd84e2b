"""torch.nn.functional's losses of a distribution: two classes, divergence, Poisson and Gauss."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError
from twinstep.jax.nn.functional._reduction import (
    REDUCTIONS,
    broadcast,
    chosen,
    fits,
    floats,
    known_to_be,
    raised,
    reduced,
    same_shape,
)

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "gaussian_nll_loss",
    "kl_div",
    "poisson_nll_loss",
]

_EPSILON = float(np.float32(1e-12))
"""PyTorch's constant is a float32, in float64 too."""


def binary_cross_entropy(
    input: jax.Array,
    target: jax.Array,
    weight: jax.Array | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> jax.Array:
    """Mean cross entropy of probabilities of one class and what they should be.

    The logarithms are at least -100, and the gradient of input is PyTorch's own, which is finite at
    0 and 1: (input - target) / max(input (1 - input), 1e-12).

    Args:
        input, target: Probabilities, of one shape; what is not from 0 to 1 is NaN in a compiled
            step.
        weight: What multiplies each entry's loss; broadcast to that shape.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum" or "none".

    Returns:
        The mean or the sum over all entries, (), or all of them.

    Raises:
        InputError: For shapes that do not fit, what is known and no probability, another
            reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import binary_cross_entropy
        >>> float(binary_cross_entropy(jnp.array([0.0, 1.0]), jnp.array([1.0, 1.0])))
        50.0

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.binary_cross_entropy.html
    """
    name = "binary_cross_entropy"
    reduction = chosen(name, reduction, size_average, reduce)
    floats(name, input=input, target=target)
    same_shape(name, input=input, target=target)
    for what, array in {"input": input, "target": target}.items():
        odd = known_to_be(array, lambda x: ~((x >= 0) & (x <= 1)))
        if odd is not None:
            raise InputError(f"{name}: {what} has {odd}, expected numbers from 0 to 1")
    each = _binary(jnp.asarray(input), jnp.asarray(target))
    if weight is not None:
        fits(name, "input", each.shape, weight=weight)
        each = each * weight
    return reduced(each, reduction)


@jax.custom_jvp
def _binary(input: jax.Array, target: jax.Array) -> jax.Array:
    log, other = jnp.maximum(jnp.log(input), -100), jnp.maximum(jnp.log1p(-input), -100)
    return jnp.where(_probable(input, target), (target - 1) * other - target * log, jnp.nan)


def _probable(*arrays: jax.Array) -> jax.Array:
    """Whether all are from 0 to 1."""
    return functools.reduce(jnp.logical_and, [(x >= 0) & (x <= 1) for x in arrays])


def _binary_tangent(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    input, target = primals
    probable = _probable(input, target)
    slopes = (
        (input - target) / jnp.maximum((1 - input) * input, _EPSILON),
        jnp.log1p(-input) - jnp.log(input),  # not clamped there
    )
    terms = [
        jnp.where(probable, slope, jnp.nan) * tangent
        for slope, tangent in zip(slopes, tangents, strict=True)
        # an infinite slope times the 0 of what is not derived would be NaN
        if not isinstance(tangent, jax.custom_derivatives.SymbolicZero)
    ]
    return _binary(input, target), sum(terms, start=jnp.zeros_like(input))


_binary.defjvp(_binary_tangent, symbolic_zeros=True)


def binary_cross_entropy_with_logits(
    input: jax.Array,
    target: jax.Array,
    weight: jax.Array | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: jax.Array | None = None,
) -> jax.Array:
    """Mean cross entropy of logits of one class and its probabilities.

    Args:
        input: Logits.
        target: Probabilities, of the same shape.
        weight: What multiplies each entry's loss; broadcast to that shape.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum" or "none".
        pos_weight: What multiplies the losses of the class itself; broadcast to that shape.

    Returns:
        The mean or the sum over all entries, (), or all of them.

    Raises:
        InputError: For shapes that do not fit, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import binary_cross_entropy_with_logits
        >>> round(float(binary_cross_entropy_with_logits(jnp.zeros(3), jnp.ones(3))), 4)
        0.6931

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.binary_cross_entropy_with_logits.html
    """
    name = "binary_cross_entropy_with_logits"
    reduction = chosen(name, reduction, size_average, reduce)
    floats(name, input=input, target=target)
    same_shape(name, input=input, target=target)
    log = jax.nn.log_sigmoid(input)
    if pos_weight is not None:
        fits(name, "input", jnp.shape(input), pos_weight=pos_weight)
        log = ((pos_weight - 1) * target + 1) * log
    each = (1 - target) * input - log
    if weight is not None:
        fits(name, "input", jnp.shape(input), weight=weight)
        each = each * weight
    return reduced(each, reduction)


def kl_div(
    input: jax.Array,
    target: jax.Array,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> jax.Array:
    """Kullback-Leibler divergence of log-probabilities from what they should be.

    The mean is that over all entries, classes too; "batchmean" is the divergence by its definition.

    Args:
        input: Log-probabilities, (N, ...).
        target: Probabilities; broadcast with input.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum", "none", or "batchmean": the sum divided by N.
        log_target: Whether target has log-probabilities.

    Returns:
        One number, (), or all entries'.

    Raises:
        InputError: For shapes that do not broadcast, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import kl_div
        >>> input, target = jnp.log(jnp.array([[0.5, 0.5]])), jnp.array([[1.0, 0.0]])
        >>> round(float(kl_div(input, target, reduction="batchmean")), 4)
        0.6931

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.kl_div.html
    """
    means = "sum" if reduction == "batchmean" else reduction
    means = chosen("kl_div", means, size_average, reduce, known=(*REDUCTIONS, "batchmean"))
    shape = jnp.shape(input)
    input, target = broadcast("kl_div", input=input, target=target)
    if log_target:
        each = jnp.exp(target) * (target - input)
    else:
        each = jnp.where(target == 0, 0, target * jnp.log(target)) - target * input
    loss = reduced(each, means)
    return loss / shape[0] if reduction == "batchmean" and shape else loss


def poisson_nll_loss(
    input: jax.Array,
    target: jax.Array,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-8,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> jax.Array:
    """Mean negative log likelihood of counts that are distributed as Poisson's.

    Args:
        input: The logarithms of what is expected.
        target: Counts; broadcast with input.
        log_input: Whether input has logarithms; else it has what is expected itself.
        full: Whether Stirling's approximation of log(target!) is added, where target is above 1.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        eps: What is added before a logarithm, where input has none.
        reduction: "mean", "sum" or "none".

    Returns:
        The mean or the sum over all entries, (), or all of them.

    Raises:
        InputError: For shapes that do not broadcast, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import poisson_nll_loss
        >>> float(poisson_nll_loss(jnp.array([0.0, 0.0]), jnp.array([1.0, 2.0])))
        1.0

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.poisson_nll_loss.html
    """
    reduction = chosen("poisson_nll_loss", reduction, size_average, reduce)
    input, target = broadcast("poisson_nll_loss", input=input, target=target)
    each = jnp.exp(input) - target * input if log_input else input - target * jnp.log(input + eps)
    if full:
        stirling = target * jnp.log(target) - target + 0.5 * jnp.log(2 * math.pi * target)
        each = each + jnp.where(target <= 1, 0, stirling)
    return reduced(each, reduction)


def gaussian_nll_loss(
    input: jax.Array,
    target: jax.Array,
    var: jax.Array | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> jax.Array:
    """Mean negative log likelihood of numbers that are distributed as Gauss's.

    Args:
        input, target: What is expected and what is; broadcast.
        var: Variances, at least 0: of input's shape, of it with one axis of length 1, of it without
            the last axis, or one float. What is below 0 is NaN in a compiled step.
        full: Whether the constant is added.
        eps: What a variance is at least; its gradient is as if it were not.
        reduction: "mean", "sum" or "none".

    Returns:
        The mean or the sum over all entries, (), or all of them.

    Raises:
        InputError: For shapes that do not fit, a variance that is known and below 0, another
            reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import gaussian_nll_loss
        >>> float(gaussian_nll_loss(jnp.array([0.0, 0.0]), jnp.array([1.0, 2.0]), jnp.ones(2)))
        1.25

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.gaussian_nll_loss.html
    """
    name = "gaussian_nll_loss"
    reduction = chosen(name, reduction)
    input = jnp.asarray(input)
    if isinstance(var, int):
        raise InputError(f"{name}: var is {var}, expected a float or an array")
    spread = jnp.full_like(input, var) if isinstance(var, float) else _spread(name, input, var)
    low = known_to_be(var, lambda v: v < 0)
    if low is not None:
        raise InputError(f"{name}: var has {low}, expected at least 0")
    spread = jnp.where(spread < 0, jnp.nan, raised(spread, eps))
    input, target = broadcast(name, input=input, target=target)
    each = 0.5 * (jnp.log(spread) + (input - target) ** 2 / spread)
    if full:
        each = each + 0.5 * math.log(2 * math.pi)
    return reduced(each, reduction)


def _spread(name: str, input: jax.Array, var: Any) -> jax.Array:
    """The variances in a shape that broadcasts to input's."""
    shape, found = input.shape, jnp.shape(var)
    if shape == found:
        return jnp.asarray(var)
    if shape[:-1] == found:
        return jnp.expand_dims(var, -1)
    if len(shape) == len(found):
        others = [b for a, b in zip(shape, found, strict=True) if a != b]
        if sum(others) == 1:
            return jnp.asarray(var)
    raise InputError(
        f"{name}: var is of shape {found}, expected input's {shape}, with one axis of length 1, or "
        "without the last one"
    )
