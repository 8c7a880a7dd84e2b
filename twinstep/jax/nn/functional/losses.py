"""torch.nn.functional's losses, with its names, its reductions and its gradients at kinks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from twinstep.errors import InputError, check_arguments

__all__ = ["cross_entropy", "huber_loss", "l1_loss", "mse_loss"]

_REDUCTIONS = ("mean", "sum", "none")
_NARROW = (jnp.bfloat16, jnp.float16)


def mse_loss(
    output: jax.Array,
    target: jax.Array,
    *,
    reduction: str = "mean",
    weight: jax.Array | None = None,
) -> jax.Array:
    """Mean squared error.

    `optax.l2_loss` is half of it, sample by sample. PyTorch warns where the shapes differ, and
    broadcasts; here that is refused.

    Args:
        output, target: What is and what should be, of one shape.
        reduction: "mean", "sum" or "none".
        weight: What multiplies each entry's loss, of that shape; the mean is divided by its sum.

    Returns:
        The mean or the sum over all entries, (), or all of them.

    Raises:
        InputError: For two shapes, complex numbers, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import mse_loss
        >>> float(mse_loss(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0])))
        2.0

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MSELoss.html
    """
    _check("mse_loss", output, target, reduction, weight)
    _refuse_complex("mse_loss", output, target)
    return _reduced(optax.squared_error(output, target), reduction, weight)


def huber_loss(
    output: jax.Array,
    target: jax.Array,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: jax.Array | None = None,
) -> jax.Array:
    """Mean of half the squared error up to delta, and of a line beyond it.

    `optax.huber_loss` is the same, sample by sample.

    Args:
        output, target: What is and what should be, of one shape.
        reduction: "mean", "sum" or "none".
        delta: The error from which on it is a line, above 0.
        weight: What multiplies each entry's loss, of that shape; the mean is still divided by the
            number of entries, other than that of the other losses.

    Returns:
        The mean or the sum over all entries, (), or all of them.

    Raises:
        InputError: For a delta that is not above 0, two shapes, complex numbers, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import huber_loss
        >>> float(huber_loss(jnp.array([1.0, 4.0]), jnp.array([0.5, 1.0])))
        1.3125

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.HuberLoss.html
    """
    _check("huber_loss", output, target, reduction, weight)
    _refuse_complex("huber_loss", output, target)
    check_arguments("huber_loss", delta=(delta, "above 0", lambda value: value > 0))
    error = jnp.abs(output - target)
    line = error >= delta
    square = jnp.where(line, 0, error)  # or an infinite error's gradient would be NaN
    each = jnp.where(line, delta * (error - 0.5 * delta), 0.5 * square * square)
    return _reduced(each if weight is None else each * weight, reduction, None)


def l1_loss(
    output: jax.Array,
    target: jax.Array,
    *,
    reduction: str = "mean",
    weight: jax.Array | None = None,
) -> jax.Array:
    """Mean absolute error.

    At an exact tie the gradient is 0, where jnp.abs gives 1; and at NaN, where the loss is NaN.

    Args:
        output, target: What is and what should be, of one shape.
        reduction: "mean", "sum" or "none".
        weight: What multiplies each entry's loss, of that shape; the mean is divided by its sum.

    Returns:
        The mean or the sum over all entries, (), or all of them.

    Raises:
        InputError: For two shapes, another reduction.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import l1_loss
        >>> output, target = jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0])
        >>> float(l1_loss(output, target))
        1.0
        >>> jax.grad(l1_loss)(output, target).tolist()
        [0.0, 0.5]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.L1Loss.html
    """
    _check("l1_loss", output, target, reduction, weight)
    error = jnp.asarray(output - target)
    flat = (error == 0) | jnp.isnan(error)
    each = jnp.where(
        flat, jax.lax.stop_gradient(jnp.abs(error)), jnp.abs(jnp.where(flat, 1, error))
    )
    return _reduced(each, reduction, weight)


def cross_entropy(
    output: jax.Array,
    target: jax.Array,
    weight: jax.Array | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> jax.Array:
    """Mean cross entropy of logits and class numbers, or class probabilities.

    The classes are axis 1, as in PyTorch; in optax they are the last one. PyTorch raises where a
    class number is none of the classes; a compiled step does not know its value: its loss is NaN,
    and its gradient too.

    Args:
        output: Logits, (C,), (N, C) or (N, C, d1, ...).
        target: Class numbers, the same shape without C, int; or probabilities, the same shape,
            float.
        weight: Of each class, (C,); the mean of class numbers' losses is divided by theirs.
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

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html
    """
    output, target = jnp.asarray(output), jnp.asarray(target)
    _check_classes(output, target, weight, ignore_index, reduction, label_smoothing)
    axis, dtype = min(output.ndim - 1, 1), output.dtype
    # bfloat16 and float16 are computed in float32, as in PyTorch
    logits = jnp.moveaxis(output.astype(jnp.float32) if dtype in _NARROW else output, axis, -1)
    if target.shape == output.shape:
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
    classes, ignored = logits.shape[-1], target == ignore_index
    known = (target >= 0) & (target < classes)
    label = jnp.where(known, target, 0)
    each = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    scale = jnp.ones_like(each) if weight is None else jnp.asarray(weight, each.dtype)[label]
    # PyTorch's softmax of a row with an infinity is NaN
    fine = known & (jnp.max(logits, axis=-1) < jnp.inf)
    each = jnp.where(ignored, 0, each * jnp.where(ignored, 0, jnp.where(fine, scale, jnp.nan)))
    kept = jnp.where(ignored, 0, scale)
    loss = _divided(each, kept, reduction, weight is not None)
    if not label_smoothing:
        return loss
    logs = jax.nn.log_softmax(logits)
    smooth = -jnp.sum(logs if weight is None else logs * weight, axis=-1)
    smooth = _divided(jnp.where(ignored, 0, smooth), kept, reduction, weight is not None)
    return (1 - label_smoothing) * loss + smooth * (label_smoothing / classes)


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
    each = -jnp.sum(each if weight is None else each * weight, axis=-1)
    return _reduced(each, reduction, None)


def _reduced(each: jax.Array, reduction: str, weight: jax.Array | None) -> jax.Array:
    weighted = each if weight is None else each * weight
    if reduction == "none":
        return weighted
    if reduction == "sum":
        return jnp.sum(weighted)
    return jnp.mean(each) if weight is None else jnp.sum(weighted) / jnp.sum(weight)


# ------------------------------------------------------------------------------------ refusals


def _check(name: str, output: Any, target: Any, reduction: str, weight: Any) -> None:
    check_arguments(
        name, reduction=(reduction, f"one of {_REDUCTIONS}", lambda v: v in _REDUCTIONS)
    )
    shape = jnp.shape(output)
    for other, array in {"target": target, "weight": output if weight is None else weight}.items():
        if jnp.shape(array) != shape:
            raise InputError(
                f"{name}: output is of shape {shape} and {other} of {jnp.shape(array)}, expected "
                "one shape"
            )


def _refuse_complex(name: str, *arrays: Any) -> None:
    if any(map(jnp.iscomplexobj, arrays)):
        raise InputError(f"{name}: output or target is complex, expected real numbers, as PyTorch")


def _check_classes(
    output: jax.Array,
    target: jax.Array,
    weight: Any,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> None:
    name, shape = "cross_entropy", output.shape
    if not shape or not jnp.issubdtype(output.dtype, jnp.floating):
        raise InputError(
            f"{name}: output is {output.dtype}{shape}, expected floats, classes second"
        )
    classes, probabilities = shape[min(len(shape) - 1, 1)], target.shape == shape
    numbers = shape[:1][: len(shape) - 1] + shape[2:]
    kind = jnp.floating if probabilities else jnp.integer
    if not (probabilities or target.shape == numbers) or not jnp.issubdtype(target.dtype, kind):
        raise InputError(
            f"{name}: output is of shape {shape} and target {target.dtype}{target.shape}, expected "
            f"class numbers (int) of shape {numbers} or probabilities (float) of shape {shape}"
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
        reduction=(reduction, f"one of {_REDUCTIONS}", lambda v: v in _REDUCTIONS),
        label_smoothing=(label_smoothing, "a number from 0 to 1", lambda v: 0 <= v <= 1),
    )
    if not (probabilities or isinstance(target, jax.core.Tracer)):
        given = np.asarray(target)
        odd = given[((given < 0) | (given >= classes)) & (given != ignore_index)]
        if odd.size:
            raise InputError(
                f"{name}: target has {odd[0]}, expected 0 to {classes - 1}, or {ignore_index} for "
                "what is ignored"
            )
