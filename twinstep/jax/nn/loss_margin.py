"""torch.nn's losses of what lacks to a margin.

Letters: N samples, D numbers of a vector. reduction, size_average and reduce are as in `loss`.
"""

from collections.abc import Callable

import jax

from twinstep.errors import check_arguments
from twinstep.jax.nn import functional
from twinstep.jax.nn.distance import PairwiseDistance
from twinstep.jax.nn.loss import Loss

__all__ = [
    "CosineEmbeddingLoss",
    "HingeEmbeddingLoss",
    "MarginRankingLoss",
    "SoftMarginLoss",
    "TripletMarginLoss",
    "TripletMarginWithDistanceLoss",
]


class SoftMarginLoss(Loss):
    """Mean of log(1 + exp(-target input)), which is infinite where that exponential is.

    Args:
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum" or "none".

    Shape:
        input, and target, 1 or -1, of one shape, to () or, of "none", that shape.

    Raises:
        InputError: For shapes that do not fit, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> round(float(nn.SoftMarginLoss()(jnp.zeros(2), jnp.array([1.0, -1.0]))), 4)
        0.6931

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.SoftMarginLoss.html
    """

    def forward(self, input: jax.Array, target: jax.Array) -> jax.Array:
        """As said above."""
        return functional.soft_margin_loss(input, target, reduction=self.reduction)


class _MarginLoss(Loss):
    """A loss with a margin that is 0 by default."""

    def __init__(
        self,
        margin: float = 0.0,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = margin


class MarginRankingLoss(_MarginLoss):
    """Mean of what lacks for one score to be above the other by a margin.

    Args:
        margin: By how much.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum" or "none".

    Shape:
        input1, input2, scores, and target, 1 where input1 should be above, else -1, of one shape,
        to () or, of "none", that shape.

    Raises:
        InputError: For shapes that do not fit, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> float(nn.MarginRankingLoss()(jnp.array([1.0]), jnp.array([3.0]), jnp.array([1.0])))
        2.0

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MarginRankingLoss.html
    """

    def forward(self, input1: jax.Array, input2: jax.Array, target: jax.Array) -> jax.Array:
        """As said above."""
        return functional.margin_ranking_loss(
            input1, input2, target, margin=self.margin, reduction=self.reduction
        )


class HingeEmbeddingLoss(Loss):
    """Mean of distances where things should be near, and of what lacks to a margin elsewhere.

    Args:
        margin: How far apart.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum" or "none".

    Shape:
        input, distances, and target, 1 where near, else -1, of one shape, to () or, of "none",
        that shape.

    Raises:
        InputError: For shapes that do not broadcast, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> float(nn.HingeEmbeddingLoss()(jnp.array([0.5, 0.75]), jnp.array([1.0, -1.0])))
        0.375

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.HingeEmbeddingLoss.html
    """

    def __init__(
        self,
        margin: float = 1.0,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = margin

    def forward(self, input: jax.Array, target: jax.Array) -> jax.Array:
        """As said above."""
        return functional.hinge_embedding_loss(
            input, target, margin=self.margin, reduction=self.reduction
        )


class CosineEmbeddingLoss(_MarginLoss):
    """Mean of 1 - cosine where vectors should point alike, and of cosine - margin elsewhere.

    Args:
        margin: The cosine up to which there is no loss where not alike.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum" or "none".

    Shape:
        input1, input2 (N, D) or (D,), and target, 1 where alike, else -1, (N,) or (), to () or, of
        "none", target's shape.

    Raises:
        InputError: For shapes that do not fit, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> x, y = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
        >>> float(nn.CosineEmbeddingLoss()(x, y, jnp.array(1.0)))
        1.0

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.CosineEmbeddingLoss.html
    """

    def forward(self, input1: jax.Array, input2: jax.Array, target: jax.Array) -> jax.Array:
        """As said above."""
        return functional.cosine_embedding_loss(
            input1, input2, target, margin=self.margin, reduction=self.reduction
        )


class TripletMarginLoss(Loss):
    """Mean of what lacks for the negative to be farther than the positive by a margin.

    Args:
        margin: By how much, above 0.
        p, eps: As of PairwiseDistance.
        swap: Whether the negative's distance is that from the positive, where that is smaller.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum" or "none".

    Shape:
        anchor, positive, negative (N, D) or (D,) to () or, of "none", (N,) or ().

    Raises:
        InputError: For a margin that is not above 0, and when called for shapes that do not fit,
            another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> a, b = jnp.zeros((1, 2)), jnp.array([[3.0, 4.0]])
        >>> round(float(nn.TripletMarginLoss()(a, b, b)), 4)
        1.0

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.TripletMarginLoss.html
    """

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        _check_margin("TripletMarginLoss", margin)
        self.margin, self.p, self.eps, self.swap = margin, p, eps, swap

    def forward(self, anchor: jax.Array, positive: jax.Array, negative: jax.Array) -> jax.Array:
        """As said above."""
        return functional.triplet_margin_loss(
            anchor,
            positive,
            negative,
            margin=self.margin,
            p=self.p,
            eps=self.eps,
            swap=self.swap,
            reduction=self.reduction,
        )


class TripletMarginWithDistanceLoss(Loss):
    """TripletMarginLoss with any distance.

    Args:
        distance_function: The distances of two arrays; None: PairwiseDistance().
        margin: By how much the negative should be farther, above 0.
        swap: Whether the negative's distance is that from the positive, where that is smaller.
        reduction: "mean", "sum" or "none".

    Shape:
        anchor, positive, negative (N, D) or (D,), or what the distance takes, to () or, of "none",
        the distances' shape.

    Raises:
        InputError: For a margin that is not above 0, and when called for shapes that do not fit,
            another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> a, b = jnp.zeros((1, 2)), jnp.array([[3.0, 4.0]])
        >>> far = lambda x, y: abs(x - y).sum(-1)
        >>> float(nn.TripletMarginWithDistanceLoss(distance_function=far)(a, b, b))
        1.0

    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.TripletMarginWithDistanceLoss.html
    """

    def __init__(
        self,
        *,
        distance_function: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
        margin: float = 1.0,
        swap: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        _check_margin("TripletMarginWithDistanceLoss", margin)
        self.distance_function = distance_function or PairwiseDistance()
        self.margin, self.swap = margin, swap

    def forward(self, anchor: jax.Array, positive: jax.Array, negative: jax.Array) -> jax.Array:
        """As said above."""
        return functional.triplet_margin_with_distance_loss(
            anchor,
            positive,
            negative,
            distance_function=self.distance_function,
            margin=self.margin,
            swap=self.swap,
            reduction=self.reduction,
        )


def _check_margin(name: str, margin: float) -> None:
    check_arguments(name, margin=(margin, "a number above 0", lambda v: v > 0))
