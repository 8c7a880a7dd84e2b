"""torch.nn.functional's losses of a margin between two things, with its gradients at the margin."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn.functional._reduction import (
    broadcast,
    chosen,
    clamp_min_0,
    fits,
    reduced,
    same_rank,
    shapes,
)
from twinstep.jax.nn.functional.distance import pairwise_distance

__all__ = [
    "cosine_embedding_loss",
    "hinge_embedding_loss",
    "margin_ranking_loss",
    "soft_margin_loss",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
]

_EPSILON = float(np.float32(1e-12))
"""PyTorch's constant is a float32, in float64 too."""


def soft_margin_loss(
    input: jax.Array,
    target: jax.Array,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> jax.Array:
    """Mean of log(1 + exp(-target input)), which is infinite where that exponential is.

    Args:
        input: Scores.
        target: 1 or -1; broadcast to input's shape.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum" or "none".

    Returns:
        The mean or the sum over all entries, (), or all of them.

    Raises:
        InputError: For shapes that do not fit, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import soft_margin_loss
        >>> round(float(soft_margin_loss(jnp.zeros(2), jnp.array([1.0, -1.0]))), 4)
        0.6931

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.soft_margin_loss.html
    """
    reduction = chosen("soft_margin_loss", reduction, size_average, reduce)
    fits("soft_margin_loss", "input", jnp.shape(input), target=target)
    return reduced(jnp.log1p(jnp.exp(-input * target)), reduction)


def margin_ranking_loss(
    input1: jax.Array,
    input2: jax.Array,
    target: jax.Array,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> jax.Array:
    """Mean of what lacks for one score to be above the other by a margin.

    Args:
        input1, input2: Scores, with as many axes.
        target: 1 where input1 should be above, -1 where it should be below; as many axes.
        margin: By how much.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum" or "none".

    Returns:
        The mean or the sum over all entries, (), or all of them.

    Raises:
        InputError: For shapes that do not fit, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import margin_ranking_loss
        >>> float(margin_ranking_loss(jnp.array([1.0]), jnp.array([3.0]), jnp.array([1.0])))
        2.0

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.margin_ranking_loss.html
    """
    name = "margin_ranking_loss"
    reduction = chosen(name, reduction, size_average, reduce)
    same_rank(name, input1=input1, input2=input2, target=target)
    input1, input2, target = broadcast(name, input1=input1, input2=input2, target=target)
    return reduced(clamp_min_0(-target * (input1 - input2) + margin), reduction)


def hinge_embedding_loss(
    input: jax.Array,
    target: jax.Array,
    margin: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> jax.Array:
    """Mean of distances where things should be near, and of what lacks to a margin elsewhere.

    Args:
        input: Distances.
        target: 1 where near, -1 where apart; broadcast with input. What is neither has both terms.
        margin: How far apart.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum" or "none".

    Returns:
        The mean or the sum over all entries, (), or all of them.

    Raises:
        InputError: For shapes that do not broadcast, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import hinge_embedding_loss
        >>> float(hinge_embedding_loss(jnp.array([0.5, 0.75]), jnp.array([1.0, -1.0])))
        0.375

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.hinge_embedding_loss.html
    """
    reduction = chosen("hinge_embedding_loss", reduction, size_average, reduce)
    input, target = broadcast("hinge_embedding_loss", input=input, target=target)
    apart = jnp.where(target != 1, clamp_min_0(margin - input), 0)
    return reduced(apart + jnp.where(target != -1, input, 0), reduction)


def cosine_embedding_loss(
    input1: jax.Array,
    input2: jax.Array,
    target: jax.Array,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> jax.Array:
    """Mean of 1 - cosine where vectors should point alike, and of cosine - margin elsewhere.

    1e-12 is added to each squared norm.

    Args:
        input1, input2: Vectors, (N, D) or (D,); broadcast.
        target: 1 where alike, -1 where not, (N,) or (). What is neither has no loss.
        margin: The cosine up to which there is no loss where not alike.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum" or "none".

    Returns:
        The mean or the sum over all vectors, (), or all of them.

    Raises:
        InputError: For shapes that do not fit, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import cosine_embedding_loss
        >>> x, y = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
        >>> float(cosine_embedding_loss(x, y, jnp.array(1.0)))
        1.0

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.cosine_embedding_loss.html
    """
    name = "cosine_embedding_loss"
    reduction = chosen(name, reduction, size_average, reduce)
    given = {"input1": input1, "input2": input2}
    rank = jnp.ndim(target)
    if rank > 1 or any(jnp.ndim(x) != rank + 1 for x in given.values()):
        raise InputError(
            f"{name}: {shapes(**given, target=target)}, expected (N, D) twice and (N,), or (D,) "
            "twice and ()"
        )
    x1, x2 = broadcast(name, **given)
    product = jnp.sum(x1 * x2, axis=-1)
    squares = [jnp.sum(x * x, axis=-1) + _EPSILON for x in (x1, x2)]
    cosine = product / jnp.sqrt(squares[0] * squares[1])
    cosine, target = broadcast(name, input1=cosine, target=target)
    alike = jnp.where(target == 1, 1 - cosine, 0)
    return reduced(alike + jnp.where(target == -1, clamp_min_0(cosine - margin), 0), reduction)


def triplet_margin_loss(
    anchor: jax.Array,
    positive: jax.Array,
    negative: jax.Array,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> jax.Array:
    """Mean of what lacks for the negative to be farther than the positive by a margin.

    eps is added to each difference; `optax.losses.triplet_margin_loss` adds it to their sum.

    Args:
        anchor, positive, negative: Vectors, (N, D) or (D,); broadcast, with as many axes.
        margin: By how much, above 0.
        p, eps: As of `pairwise_distance`.
        swap: Whether the negative's distance is that from the positive, where that is smaller.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum" or "none".

    Returns:
        The mean or the sum over all triplets, (), or all of them.

    Raises:
        InputError: For shapes that do not fit, a margin that is not above 0, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import triplet_margin_loss
        >>> a, b = jnp.zeros((1, 2)), jnp.array([[3.0, 4.0]])
        >>> round(float(triplet_margin_loss(a, b, b)), 4)
        1.0

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.triplet_margin_loss.html
    """
    name = "triplet_margin_loss"
    reduction = chosen(name, reduction, size_average, reduce)
    given = {"anchor": anchor, "positive": positive, "negative": negative}
    same_rank(name, **given)
    broadcast(name, **given)

    def distance(x1: jax.Array, x2: jax.Array) -> jax.Array:
        return pairwise_distance(x1, x2, p, eps)

    return _triplet(name, given, distance, margin, swap, reduction)


def triplet_margin_with_distance_loss(
    anchor: jax.Array,
    positive: jax.Array,
    negative: jax.Array,
    *,
    distance_function: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> jax.Array:
    """`triplet_margin_loss` with any distance.

    Args:
        anchor, positive, negative: What the distance takes, with as many axes.
        distance_function: The distances of two of them; None: `pairwise_distance`.
        margin: By how much the negative should be farther, above 0.
        swap: Whether the negative's distance is that from the positive, where that is smaller.
        reduction: "mean", "sum" or "none".

    Returns:
        The mean or the sum over all triplets, (), or all of them.

    Raises:
        InputError: For shapes that do not fit, a margin that is not above 0, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import triplet_margin_with_distance_loss
        >>> a, b = jnp.zeros((1, 2)), jnp.array([[3.0, 4.0]])
        >>> far = lambda x, y: abs(x - y).sum(-1)
        >>> float(triplet_margin_with_distance_loss(a, b, b, distance_function=far))
        1.0

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.triplet_margin_with_distance_loss.html
    """
    name = "triplet_margin_with_distance_loss"
    reduction = chosen(name, reduction)
    given = {"anchor": anchor, "positive": positive, "negative": negative}
    same_rank(name, **given)
    if distance_function is None:
        broadcast(name, **given)
        distance_function = pairwise_distance
    return _triplet(name, given, distance_function, margin, swap, reduction)


def _triplet(
    name: str,
    given: dict[str, Any],
    distance: Callable[[Any, Any], jax.Array],
    margin: float,
    swap: bool,
    reduction: str,
) -> jax.Array:
    check_arguments(name, margin=(margin, "above 0", lambda value: value > 0))
    anchor, positive, negative = given.values()
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = jnp.minimum(far, distance(positive, negative))
    return reduced(clamp_min_0(margin + near - far), reduction)
