"""torch.nn.functional's losses of many classes, which are axis 1; optax has them last."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn.functional._reduction import chosen, known_to_be, reduced

__all__ = ["cross_entropy", "linear_cross_entropy", "nll_loss"]

_NARROW = (jnp.bfloat16, jnp.float16)


def cross_entropy(
    input: jax.Array,
    target: jax.Array,
    weight: jax.Array | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> jax.Array:
    """Mean cross entropy of logits and class numbers, or class probabilities.

    PyTorch raises where a class number is none of the classes; a compiled step does not know its
    value: its loss is NaN, and its gradient too.

    Args:
        input: Logits, (C,), (N, C) or (N, C, d1, ...).
        target: Class numbers, the same shape without C, int; or probabilities, the same shape,
            float.
        weight: Of each class, (C,); the mean of class numbers' losses is divided by theirs.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        ignore_index: The class number that stands for no loss.
        reduction: "mean" (over those that are not ignored), "sum" or "none".
        label_smoothing: What part of a target goes to all classes alike, from 0 to 1.

    Returns:
        The mean or the sum over the samples, (), or each loss, of the shape without C.

    Raises:
        InputError: For shapes that do not fit, dtypes that are neither, a class number that is
            known and none of the classes, and a value that PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import cross_entropy
        >>> logits = jnp.array([[2.0, 0.0], [0.0, 2.0]])
        >>> round(float(cross_entropy(logits, jnp.array([0, 1]))), 4)
        0.1269
        >>> round(float(cross_entropy(logits, jnp.array([0, -100]))), 4)  # one is ignored
        0.1269

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.cross_entropy.html
    """
    reduction = chosen("cross_entropy", reduction, size_average, reduce)
    return _cross_entropy(
        "cross_entropy", input, target, weight, ignore_index, reduction, label_smoothing
    )


def nll_loss(
    input: jax.Array,
    target: jax.Array,
    weight: jax.Array | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> jax.Array:
    """Mean negative log-probability of the classes that should be.

    A class number that is none of the classes is NaN in a compiled step, as in `cross_entropy`.

    Args:
        input: Log-probabilities, (C,), (N, C) or (N, C, d1, ...).
        target: Class numbers, the same shape without C, int.
        weight: Of each class, (C,); the mean is divided by those of the targets.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        ignore_index: The class number that stands for no loss.
        reduction: "mean" (over those that are not ignored), "sum" or "none".

    Returns:
        The mean or the sum over the samples, (), or each loss, of the shape without C.

    Raises:
        InputError: For shapes that do not fit, dtypes that are neither, a class number that is
            known and none of the classes, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import nll_loss
        >>> float(nll_loss(jnp.array([[-1.0, -2.0], [-3.0, -4.0]]), jnp.array([1, 0])))
        2.5

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.nll_loss.html
    """
    reduction = chosen("nll_loss", reduction, size_average, reduce)
    input, target = jnp.asarray(input), jnp.asarray(target)
    _check_classes("nll_loss", input, target, weight, ignore_index, numbers_only=True)
    logs = jnp.moveaxis(input, min(input.ndim - 1, 1), -1)
    ignored, known, label = _labels(target, logs.shape[-1], ignore_index)
    each = -jnp.take_along_axis(logs, label[..., None], axis=-1)[..., 0]
    each, kept = _kept(each, ignored, known, label, weight)
    return _divided(each, kept, reduction, weight is not None)


def linear_cross_entropy(
    input: jax.Array,
    linear_weight: jax.Array,
    target: jax.Array,
    *,
    linear_bias: jax.Array | None = None,
    weight: jax.Array | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: Any = None,
) -> jax.Array:
    """The cross entropy of a linear layer's outputs.

    Args:
        input: What goes into the layer, (N, in) or (in,).
        linear_weight: (C, in), or (C, d1, ..., in) with N.
        target: Class numbers, (N, d1, ...) or (), int; or probabilities, (N, C, d1, ...) or (C,).
        linear_bias: (C, d1, ...).
        weight: Of each class, (C,); the mean of class numbers' losses is divided by theirs.
        reduction: "mean" (over those that are not ignored), "sum" or "none".
        ignore_index: The class number that stands for no loss; None: -100.
        label_smoothing: What part of a target goes to all classes alike, from 0 to 1.
        options: How PyTorch cuts the work into pieces; ignored.

    Returns:
        The mean or the sum over the samples, (), or each loss.

    Raises:
        InputError: For shapes that do not fit, and what `cross_entropy` refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import linear_cross_entropy
        >>> input, weight = jnp.array([[1.0, 0.0]]), jnp.array([[2.0, 5.0], [0.0, 5.0]])
        >>> round(float(linear_cross_entropy(input, weight, jnp.array([0]))), 4)
        0.1269

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.linear_cross_entropy.html
    """
    name = "linear_cross_entropy"
    reduction = chosen(name, reduction)
    input, linear_weight = jnp.asarray(input), jnp.asarray(linear_weight)
    shape, columns = input.shape, linear_weight.shape
    outputs = columns[:-1]
    check_arguments(
        name,
        input=(shape, "of shape (N, in) or (in,)", lambda v: len(v) in (1, 2)),
        linear_weight=(
            columns,
            f"of shape (C, ..., {shape[-1:]}), and no more than (C, in) without N",
            lambda v: v[-1] == shape[-1] and 2 <= len(v) <= (9 if len(shape) == 2 else 2),
        ),
        linear_bias=(
            None if linear_bias is None else jnp.shape(linear_bias),
            f"of shape {outputs}",
            lambda v: v is None or v == outputs,
        ),
    )
    logits = jnp.tensordot(input, linear_weight, axes=(-1, -1))
    logits = logits if linear_bias is None else logits + linear_bias
    if ignore_index is not None and jnp.shape(target) == logits.shape:
        raise InputError(
            f"{name}: ignore_index is {ignore_index}, expected None with probabilities, which it "
            "cannot stand among"
        )
    ignore_index = -100 if ignore_index is None else ignore_index
    return _cross_entropy(name, logits, target, weight, ignore_index, reduction, label_smoothing)


# ---------------------------------------------------------------------------------------- parts


def _cross_entropy(
    name: str,
    input: Any,
    target: Any,
    weight: Any,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> jax.Array:
    input, target = jnp.asarray(input), jnp.asarray(target)
    check_arguments(
        name, label_smoothing=(label_smoothing, "a number from 0 to 1", lambda v: 0 <= v <= 1)
    )
    _check_classes(name, input, target, weight, ignore_index)
    axis, dtype = min(input.ndim - 1, 1), input.dtype
    # bfloat16 and float16 are computed in float32, as in PyTorch
    logits = jnp.moveaxis(input.astype(jnp.float32) if dtype in _NARROW else input, axis, -1)
    if target.shape == input.shape:
        share = jnp.moveaxis(target, axis, -1)
        loss = _of_probabilities(logits, share, weight, reduction, label_smoothing)
        return loss.astype(jnp.promote_types(dtype, target.dtype))
    loss = _of_numbers(logits, target, weight, ignore_index, reduction, label_smoothing)
    return loss.astype(dtype)


def _of_numbers(
    logits: jax.Array,
    target: jax.Array,
    weight: jax.Array | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> jax.Array:
    """The classes last, and their numbers."""
    classes = logits.shape[-1]
    ignored, known, label = _labels(target, classes, ignore_index)
    each = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    # PyTorch's softmax of a row with an infinity is NaN
    fine = known & (jnp.max(logits, axis=-1) < jnp.inf)
    each, kept = _kept(each, ignored, fine, label, weight)
    loss = _divided(each, kept, reduction, weight is not None)
    if not label_smoothing:
        return loss
    logs = jax.nn.log_softmax(logits)
    smooth = -jnp.sum(logs if weight is None else logs * weight, axis=-1)
    smooth = _divided(jnp.where(ignored, 0, smooth), kept, reduction, weight is not None)
    return (1 - label_smoothing) * loss + smooth * (label_smoothing / classes)


def _labels(
    target: jax.Array, classes: int, ignore_index: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Which are ignored, which are classes, and their numbers, 0 for what is none."""
    known = (target >= 0) & (target < classes)
    return target == ignore_index, known, jnp.where(known, target, 0)


def _kept(
    each: jax.Array, ignored: jax.Array, fine: jax.Array, label: jax.Array, weight: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Losses by their classes' weights: 0 where ignored, NaN where not fine; and those weights."""
    scale = jnp.ones_like(each) if weight is None else jnp.asarray(weight, each.dtype)[label]
    weighted = each * jnp.where(ignored, 0, jnp.where(fine, scale, jnp.nan))
    return jnp.where(ignored, 0, weighted), jnp.where(ignored, 0, scale)


def _divided(each: jax.Array, kept: jax.Array, reduction: str, weighted: bool) -> jax.Array:
    if reduction == "none":
        return each
    total = jnp.sum(each)
    if reduction == "sum":
        return total
    # as jnp.mean is compiled: a product with 1 / N
    return total / jnp.sum(kept) if weighted else total * (1 / jnp.sum(kept))


def _of_probabilities(
    logits: jax.Array,
    share: jax.Array,
    weight: jax.Array | None,
    reduction: str,
    label_smoothing: float,
) -> jax.Array:
    """The classes last, and what is expected of each."""
    classes = logits.shape[-1]
    if label_smoothing:
        share = share * (1 - label_smoothing) + label_smoothing / classes
    each = jax.nn.log_softmax(logits) * share
    return reduced(-jnp.sum(each if weight is None else each * weight, axis=-1), reduction)


def _check_classes(
    name: str,
    input: jax.Array,
    target: jax.Array,
    weight: Any,
    ignore_index: int,
    numbers_only: bool = False,
) -> None:
    shape = input.shape
    if not shape or not jnp.issubdtype(input.dtype, jnp.floating):
        raise InputError(f"{name}: input is {input.dtype}{shape}, expected floats, classes second")
    classes = shape[min(len(shape) - 1, 1)]
    numbers = shape[:1][: len(shape) - 1] + shape[2:]
    probabilities = target.shape == shape and not numbers_only
    kind = jnp.floating if probabilities else jnp.integer
    if not (probabilities or target.shape == numbers) or not jnp.issubdtype(target.dtype, kind):
        also = "" if numbers_only else f" or probabilities (float) of shape {shape}"
        raise InputError(
            f"{name}: input is of shape {shape} and target {target.dtype}{target.shape}, expected "
            f"class numbers (int) of shape {numbers}{also}"
        )
    check_arguments(
        name,
        weight=(
            weight,
            f"a number for each of the {classes} classes",
            lambda v: v is None or jnp.shape(v) == (classes,),
        ),
        ignore_index=(
            ignore_index,
            "below 0 with probabilities, which it cannot stand among",
            lambda v: not (probabilities and v >= 0),
        ),
    )
    if not probabilities:
        if weight is not None and jnp.asarray(weight).dtype != input.dtype:
            raise InputError(
                f"{name}: weight is {jnp.asarray(weight).dtype}, expected {input.dtype}, input's"
            )
        odd = known_to_be(target, lambda t: ((t < 0) | (t >= classes)) & (t != ignore_index))
        if odd is not None:
            raise InputError(
                f"{name}: target has {odd}, expected 0 to {classes - 1}, or {ignore_index} for "
                "what is ignored"
            )
