"""torch.nn.functional's losses of a margin between classes, one or several of them right."""

from typing import Any

import jax
import jax.numpy as jnp

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn.functional._reduction import (
    broadcast,
    chosen,
    floats,
    known_to_be,
    reduced,
)

__all__ = ["multi_margin_loss", "multilabel_margin_loss", "multilabel_soft_margin_loss"]


def multi_margin_loss(
    input: jax.Array,
    target: jax.Array,
    p: int = 1,
    margin: float = 1.0,
    weight: jax.Array | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> jax.Array:
    """Mean of what lacks for the right class's score to be above the others' by a margin.

    A class number that is none of the classes is NaN in a compiled step.

    Args:
        input: Scores, (N, C) or (C,).
        target: Class numbers, (N,), or () or (1,), int.
        p: The exponent of what lacks, 1 or 2.
        margin: By how much the right class should be above.
        weight: Of each class, (C,).
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum" or "none".

    Returns:
        The mean or the sum over the samples, (), or each loss, of target's shape.

    Raises:
        InputError: For shapes that do not fit, another p, a class number that is known and none of
            the classes, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import multi_margin_loss
        >>> float(multi_margin_loss(jnp.array([[1.0, 0.5, 3.0]]), jnp.array([2])))
        0.0

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.multi_margin_loss.html
    """
    name = "multi_margin_loss"
    reduction = chosen(name, reduction, size_average, reduce)
    floats(name, input=input)
    rows, target = _rows(name, input), jnp.asarray(target)
    classes = rows.shape[1]
    check_arguments(
        name,
        p=(p, "1 or 2", lambda v: v in (1, 2)),
        weight=(
            weight,
            f"a number for each of the {classes} classes",
            lambda v: v is None or jnp.shape(v) == (classes,),
        ),
    )
    if target.ndim > 1 or target.size != len(rows) or not jnp.issubdtype(target.dtype, jnp.integer):
        raise InputError(
            f"{name}: target is {target.dtype}{target.shape}, expected {len(rows)} class numbers"
        )
    _check_numbers(name, target, 0, classes)
    known = (target >= 0) & (target < classes)
    label = jnp.where(known, target, 0).reshape(-1, 1)
    lacks = margin - jnp.take_along_axis(rows, label, axis=1) + rows
    lacks = jnp.where((lacks > 0) & (jnp.arange(classes) != label), lacks, 0)
    lacks = lacks if p == 1 else lacks * lacks
    lacks = lacks if weight is None else lacks * jnp.asarray(weight, lacks.dtype)[label]
    each = (jnp.sum(lacks, axis=1) / classes).reshape(target.shape)
    return reduced(each * jnp.where(known, 1, jnp.nan).astype(each.dtype), reduction)


def multilabel_margin_loss(
    input: jax.Array,
    target: jax.Array,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> jax.Array:
    """Mean of what lacks for every right class's score to be above every other's by 1.

    A class number that is below -1 or none of the classes is NaN in a compiled step.

    Args:
        input: Scores, (N, C) or (C,).
        target: Of each sample the right classes' numbers, then -1, int, of the same shape; what
            stands after a -1 is not read.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum" or "none".

    Returns:
        The mean or the sum over the samples, (), or each loss, (N,) or ().

    Raises:
        InputError: For shapes that do not fit, a class number that is known and none of the
            classes, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import multilabel_margin_loss
        >>> input, target = jnp.array([[0.1, 0.2, 0.4, 0.8]]), jnp.array([[3, 0, -1, 1]])
        >>> round(float(multilabel_margin_loss(input, target)), 4)
        0.85

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.multilabel_margin_loss.html
    """
    name = "multilabel_margin_loss"
    reduction = chosen(name, reduction, size_average, reduce)
    floats(name, input=input)
    rows, target = _rows(name, input), jnp.asarray(target)
    samples, classes = rows.shape
    flat = jnp.ndim(input) < 2 and target.ndim < 2 and target.size == classes
    integer = jnp.issubdtype(target.dtype, jnp.integer)
    if not integer or not (flat or target.shape == jnp.shape(input)):
        raise InputError(
            f"{name}: target is {target.dtype}{target.shape}, expected class numbers of input's "
            f"shape {jnp.shape(input)}"
        )
    _check_numbers(name, target, -1, classes)
    labels = target.reshape(samples, classes)
    fine = jnp.all((labels >= -1) & (labels < classes), axis=1)
    read = jnp.cumsum(labels < 0, axis=1) == 0
    label = jnp.where(read & fine[:, None], labels, 0)
    right = jnp.any(read[..., None] & (label[..., None] == jnp.arange(classes)), axis=1)
    scores = jnp.take_along_axis(rows, label, axis=1)
    lacks = 1 - scores[:, :, None] + rows[:, None, :]
    counted = (lacks > 0) & read[:, :, None] & ~right[:, None, :]
    each = jnp.sum(jnp.where(counted, lacks, 0), axis=(1, 2)) / classes
    each = each * jnp.where(fine, 1, jnp.nan).astype(each.dtype)
    return reduced(each.reshape(()) if flat else each, reduction)


def multilabel_soft_margin_loss(
    input: jax.Array,
    target: jax.Array,
    weight: jax.Array | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> jax.Array:
    """Mean over the classes, which are the last axis, of the cross entropy of each one's logits.

    Args:
        input: Logits, (..., C).
        target: 1 where a class is right, else 0; broadcast with input.
        weight: Of each class, (C,), or of anything else that broadcasts.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum" or "none".

    Returns:
        The mean or the sum over the samples, (), or each loss, of the shape without C.

    Raises:
        InputError: For shapes that do not broadcast, an input without classes, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import multilabel_soft_margin_loss
        >>> round(float(multilabel_soft_margin_loss(jnp.zeros((2, 3)), jnp.ones((2, 3)))), 4)
        0.6931

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.multilabel_soft_margin_loss.html
    """
    name = "multilabel_soft_margin_loss"
    reduction = chosen(name, reduction, size_average, reduce)
    shape = jnp.shape(input)
    check_arguments(name, input=(shape, "of shape (..., C)", bool))
    input, target = broadcast(name, input=input, target=target)
    each = -(target * jax.nn.log_sigmoid(input) + (1 - target) * jax.nn.log_sigmoid(-input))
    if weight is not None:
        each, weight = broadcast(name, input=each, weight=weight)
        each = each * weight
    return reduced(jnp.sum(each, axis=len(shape) - 1) / shape[-1], reduction)


def _rows(name: str, input: Any) -> jax.Array:
    """Scores as (N, C)."""
    shape = jnp.shape(input)
    if len(shape) > 2 or shape[-1:] == (0,):
        raise InputError(
            f"{name}: input is of shape {shape}, expected (N, C) or (C,), with classes"
        )
    return jnp.reshape(input, shape if len(shape) == 2 else (1, -1))


def _check_numbers(name: str, target: jax.Array, low: int, classes: int) -> None:
    odd = known_to_be(target, lambda t: (t < low) | (t >= classes))
    if odd is not None:
        raise InputError(f"{name}: target has {odd}, expected {low} to {classes - 1}")
