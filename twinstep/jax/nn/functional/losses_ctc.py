"""torch.nn.functional.ctc_loss, by PyTorch's own recursions forward and backward.

Letters: T steps, N sequences, C classes, S labels of the longest target, L = 2 S + 1 labels with a
blank before, between and after them.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn.functional._reduction import chosen, floats, known_to_be, reduced

__all__ = ["ctc_loss"]

_NEVER = -jnp.inf


def ctc_loss(
    log_probs: jax.Array,
    targets: jax.Array,
    input_lengths: jax.Array | Sequence[int],
    target_lengths: jax.Array | Sequence[int],
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> jax.Array:
    """Connectionist temporal classification: the cost of all alignments of labels to steps.

    The gradient is PyTorch's, which is not that of log_probs: it is as if a softmax came before
    them, whose gradient it has already. A length or a label that there cannot be is NaN in a
    compiled step.

    Args:
        log_probs: (T, N, C), or (T, C) without a batch; their exponentials sum up to 1 over C.
        targets: Labels, (N, S), or those of all sequences one after the other, int.
        input_lengths: Steps of each sequence, (N,), or () without a batch; a tuple or an array.
        target_lengths: Labels of each sequence, likewise.
        blank: The class that is no label.
        reduction: "mean" (each loss divided by its target's length first), "sum" or "none".
        zero_infinity: Whether the loss of a target that is too long for its steps is 0, and its
            gradient; else it is infinite, and its gradient NaN.

    Returns:
        The mean or the sum over the sequences, (), or each loss, (N,), or () without a batch.

    Raises:
        InputError: For shapes that do not fit, lengths and labels that are known and cannot be, a
            blank that is no class, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import ctc_loss
        >>> logs = jnp.log(jnp.full((3, 1, 2), 0.5))
        >>> round(float(ctc_loss(logs, jnp.array([[1]]), (3,), (1,))), 4)  # -log(6 / 8)
        0.2877

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.ctc_loss.html
    """
    reduction = chosen("ctc_loss", reduction)
    floats("ctc_loss", log_probs=log_probs)
    logs, targets = jnp.asarray(log_probs), jnp.asarray(targets).astype(int)
    batched = logs.ndim == 3
    logs = logs if batched else logs[:, None]
    check_arguments(
        "ctc_loss",
        log_probs=(jnp.shape(log_probs), "(T, N, C) or (T, C)", lambda _: logs.ndim == 3),
        blank=(blank, "a class's number", lambda v: 0 <= v < logs.shape[2]),
    )
    steps, count = (
        _lengths(name, lengths, logs.shape[1])
        for name, lengths in (("input_lengths", input_lengths), ("target_lengths", target_lengths))
    )
    labels, fine = _labels(logs, targets, steps, count)
    costs = _costs(logs, jnp.where(labels < 0, blank, labels), steps, count, blank, zero_infinity)
    costs = jnp.where(fine, costs, jnp.nan)
    if zero_infinity:
        costs = jnp.where(costs == jnp.inf, 0, costs)
    if reduction == "mean":
        costs = costs / jnp.maximum(count, 1)
    return reduced(costs if batched else costs[0], reduction)


def _lengths(name: str, lengths: Any, sequences: int) -> jax.Array:
    array = jnp.atleast_1d(jnp.asarray(lengths))
    integers = array.size == 0 or jnp.issubdtype(array.dtype, jnp.integer)
    if array.shape != (sequences,) or not integers:
        raise InputError(
            f"ctc_loss: {name} is {array.dtype}{np.shape(lengths)}, expected {sequences} integers"
        )
    return array.astype(int)


def _labels(
    logs: jax.Array, targets: jax.Array, steps: jax.Array, count: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Labels (N, S), -1 after the last one, and whether all of a sequence can be."""
    sequences, shape = len(steps), targets.shape
    joined = len(shape) == 1
    if not (joined or (len(shape) == 2 and shape[0] == sequences)):
        raise InputError(
            f"ctc_loss: targets is of shape {shape}, expected ({sequences}, S), or one after the "
            "other"
        )
    total = known_to_be(jnp.sum(count), lambda v: v != len(targets)) if joined else None
    if total is not None:
        raise InputError(
            f"ctc_loss: targets is of length {len(targets)}, expected target_lengths' sum, {total}"
        )
    longest = shape[-1]
    if joined and sequences and not isinstance(count, jax.core.Tracer):
        longest = max(int(np.max(np.asarray(count))), 0)
    _check_lengths("input_lengths", steps, len(logs))
    _check_lengths("target_lengths", count, longest)
    places = jnp.arange(longest)
    inside = places < count[:, None]
    if joined:
        start = jnp.cumsum(count) - count
        rows = targets[jnp.clip(start[:, None] + places, 0, max(len(targets) - 1, 0))]
    else:
        rows = targets
    known = (rows >= 0) & (rows < logs.shape[2])
    odd = known_to_be(jnp.where(inside, rows, 0), lambda v: (v < 0) | (v >= logs.shape[2]))
    if odd is not None:
        raise InputError(f"ctc_loss: targets has {odd}, expected 0 to {logs.shape[2] - 1}")
    fine = jnp.all(known | ~inside, axis=1) & (count >= 0) & (count <= longest)
    fine &= (steps >= 0) & (steps <= len(logs))
    if joined:
        fine &= jnp.sum(count) == len(targets)
    return jnp.where(inside & known, rows, -1), fine


def _check_lengths(name: str, lengths: jax.Array, most: int) -> None:
    odd = known_to_be(lengths, lambda v: (v < 0) | (v > most))
    if odd is not None:
        raise InputError(f"ctc_loss: {name} has {odd}, expected 0 to {most}")


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _costs(
    logs: jax.Array,
    labels: jax.Array,
    steps: jax.Array,
    count: jax.Array,
    blank: int,
    zero_infinity: bool,
) -> jax.Array:
    """Each sequence's loss, (N,)."""
    return _forward(logs, labels, steps, count, blank, zero_infinity)[0]


def _forward(
    logs: jax.Array,
    labels: jax.Array,
    steps: jax.Array,
    count: jax.Array,
    blank: int,
    zero_infinity: bool,
) -> tuple[jax.Array, Any]:
    spaced, skips = _spaced(labels, blank)
    here = _of_labels(logs, spaced)  # (T, N, L)
    place = jnp.arange(spaced.shape[1])
    first = jnp.where((place == 0) | ((place == 1) & (count[:, None] > 0)), 0.0, _NEVER)

    def step(alpha: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        here, t = now
        before = _log_sum(alpha, _moved(alpha, 1), jnp.where(skips, _moved(alpha, 2), _NEVER))
        alpha = jnp.where(t == 0, first, before) + here
        return alpha, alpha

    start = jnp.full(here.shape[1:], _NEVER, logs.dtype)
    _, alphas = jax.lax.scan(step, start, (here, jnp.arange(len(logs))))
    ends = jnp.where((jnp.arange(len(logs))[:, None] == steps - 1)[..., None], alphas, _NEVER)
    ends = jnp.where(_ends(place, count), jnp.max(ends, axis=0, initial=_NEVER), _NEVER)
    largest = jnp.max(ends, axis=1)
    largest = jnp.where(largest == _NEVER, 0, largest)
    likelihood = jnp.log(jnp.sum(jnp.exp(ends - largest[:, None]), axis=1)) + largest
    nothing = jnp.where(count == 0, 0.0, jnp.inf).astype(logs.dtype)
    cost = jnp.where(steps == 0, nothing, -likelihood)
    return cost, (logs, labels, steps, count, alphas, cost)


def _backward(
    blank: int, zero_infinity: bool, residuals: Any, cotangent: jax.Array
) -> tuple[jax.Array, None, None, None]:
    logs, labels, steps, count, alphas, cost = residuals
    spaced, _ = _spaced(labels, blank)
    here = _of_labels(logs, spaced)
    place = jnp.arange(spaced.shape[1])
    last = jnp.where(_ends(place, count), 0.0, _NEVER)
    skips = jnp.zeros(spaced.shape, bool).at[:, :-2].set(spaced[:, 2:] != spaced[:, :-2])

    def step(beta: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        here, t = now
        after = _log_sum(beta, _moved(beta, -1), jnp.where(skips, _moved(beta, -2), _NEVER))
        beta = jnp.where((t == steps - 1)[:, None], last, after) + here
        return beta, beta

    start = jnp.full(here.shape[1:], _NEVER, logs.dtype)
    _, betas = jax.lax.scan(step, start, (here, jnp.arange(len(logs))), reverse=True)
    paths = _by_class(alphas + betas, spaced, logs.shape[2])
    grad = (jnp.exp(logs) - jnp.exp(paths + cost[:, None] - logs)) * cotangent[:, None]
    none = jnp.arange(len(logs))[:, None] >= steps
    if zero_infinity:
        none |= cost == jnp.inf
    return jnp.where(none[..., None], 0, grad), None, None, None


_costs.defvjp(_forward, _backward)


def _spaced(labels: jax.Array, blank: int) -> tuple[jax.Array, jax.Array]:
    """Labels with blanks, (N, L), and where the blank before one may be left out."""
    spaced = jnp.full((len(labels), 2 * labels.shape[1] + 1), blank, labels.dtype)
    spaced = spaced.at[:, 1::2].set(labels)
    skips = jnp.zeros(spaced.shape, bool).at[:, 2:].set(spaced[:, 2:] != spaced[:, :-2])
    return spaced, skips


def _of_labels(logs: jax.Array, spaced: jax.Array) -> jax.Array:
    return jnp.take_along_axis(logs, jnp.broadcast_to(spaced, (len(logs), *spaced.shape)), axis=2)


def _ends(place: jax.Array, count: jax.Array) -> jax.Array:
    """Where an alignment may end: at the last label or at the blank after it."""
    end = 2 * count[:, None]
    return (place == end) | ((place == end - 1) & (end > 0))


def _moved(x: jax.Array, by: int) -> jax.Array:
    """What stands `by` places before, along the last axis."""
    padded = jnp.pad(x, ((0, 0), (max(by, 0), max(-by, 0))), constant_values=_NEVER)
    return padded[:, : x.shape[1]] if by > 0 else padded[:, -by:]


def _log_sum(*terms: jax.Array) -> jax.Array:
    largest = functools.reduce(jnp.maximum, terms)
    largest = jnp.where(largest == _NEVER, 0, largest)
    return jnp.log(sum(jnp.exp(t - largest) for t in terms)) + largest


def _by_class(paths: jax.Array, spaced: jax.Array, classes: int) -> jax.Array:
    """The logarithm of the sum of the paths over the places of each class, (T, N, C)."""
    where = (slice(None), np.arange(len(spaced))[:, None], spaced)
    empty = jnp.full((*paths.shape[:2], classes), _NEVER, paths.dtype)
    largest = empty.at[where].max(paths)
    largest = jnp.where(largest == _NEVER, 0, largest)
    terms = jnp.exp(paths - largest[where])
    return jnp.log(jnp.zeros_like(empty).at[where].add(terms)) + largest
