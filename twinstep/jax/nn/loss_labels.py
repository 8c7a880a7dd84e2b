"""torch.nn's margin losses of class numbers and of several labels a sample.

Letters: N samples, C classes. reduction, size_average and reduce are as in `loss`.
"""

from typing import Any

import jax

from twinstep.errors import check_arguments
from twinstep.jax.nn import functional
from twinstep.jax.nn.functional.taking_in import value_of
from twinstep.jax.nn.loss import Loss, WeightedLoss

__all__ = ["MultiLabelMarginLoss", "MultiLabelSoftMarginLoss", "MultiMarginLoss"]


class MultiMarginLoss(WeightedLoss):
    """Mean of what lacks for the right class's score to be above the others' by a margin.

    Args:
        p: The exponent of what lacks, 1 or 2.
        margin: By how much the right class should be above.
        weight: Of each class, (C,). A buffer.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum" or "none".

    Shape:
        input, scores, (N, C) or (C,), and target, class numbers, (N,) or (), to () or, of "none",
        target's shape.

    Raises:
        InputError: For another p, a weight of more axes, and when called for shapes that do not
            fit, a class number that is known and none of the classes, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> float(nn.MultiMarginLoss()(jnp.array([[1.0, 0.5, 3.0]]), jnp.array([2])))
        0.0

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MultiMarginLoss.html
    """

    def __init__(
        self,
        p: int = 1,
        margin: float = 1.0,
        weight: Any = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        shape = None if weight is None else value_of(weight).shape
        check_arguments(
            "MultiMarginLoss",
            p=(p, "1 or 2", lambda v: v in (1, 2)),
            weight=(shape, "of one axis", lambda v: v is None or len(v) == 1),
        )
        self.p, self.margin = p, margin

    def forward(self, input: jax.Array, target: jax.Array) -> jax.Array:
        """As said above."""
        return functional.multi_margin_loss(
            input,
            target,
            p=self.p,
            margin=self.margin,
            weight=value_of(self.weight),
            reduction=self.reduction,
        )


class MultiLabelMarginLoss(Loss):
    """Mean of what lacks for every right class's score to be above every other's by 1.

    Args:
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum" or "none".

    Shape:
        input, scores, and target, the right classes' numbers, then -1, both (N, C) or (C,), to ()
        or, of "none", (N,) or ().

    Raises:
        InputError: For shapes that do not fit, a class number that is known and none of the
            classes, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> input, target = jnp.array([[0.1, 0.2, 0.4, 0.8]]), jnp.array([[3, 0, -1, 1]])
        >>> round(float(nn.MultiLabelMarginLoss()(input, target)), 4)
        0.85

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MultiLabelMarginLoss.html
    """

    def forward(self, input: jax.Array, target: jax.Array) -> jax.Array:
        """As said above."""
        return functional.multilabel_margin_loss(input, target, reduction=self.reduction)


class MultiLabelSoftMarginLoss(WeightedLoss):
    """Mean over the classes, which are the last axis, of the cross entropy of each one's logits.

    Args:
        weight: Of each class, (C,). A buffer.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum" or "none".

    Shape:
        input, logits, and target, 1 where a class is right, else 0, both (..., C), to () or, of
        "none", (...).

    Raises:
        InputError: For shapes that do not broadcast, an input without classes, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> round(float(nn.MultiLabelSoftMarginLoss()(jnp.zeros((2, 3)), jnp.ones((2, 3)))), 4)
        0.6931

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MultiLabelSoftMarginLoss.html
    """

    def forward(self, input: jax.Array, target: jax.Array) -> jax.Array:
        """As said above."""
        return functional.multilabel_soft_margin_loss(
            input, target, weight=value_of(self.weight), reduction=self.reduction
        )
