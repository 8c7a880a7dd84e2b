"""torch.nn's losses: what all of them share, and those of errors.

`reduction` is "mean", "sum" or "none"; size_average and reduce are PyTorch's former words for it,
and go first.
"""

from typing import Any

import jax

from twinstep.errors import check_arguments
from twinstep.jax.nn import functional
from twinstep.jax.nn.functional._reduction import chosen
from twinstep.jax.nn.module import Module

__all__ = ["HuberLoss", "L1Loss", "MSELoss", "SmoothL1Loss"]


class Loss(Module):
    """A loss, with its reduction."""

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        known = (reduction,)  # one that is unknown is refused by the call, as in PyTorch
        self.reduction = chosen(type(self).__name__, reduction, size_average, reduce, known)


class WeightedLoss(Loss):
    """A loss whose weight is a buffer, which the state_dict has."""

    weight: Any

    def __init__(
        self,
        weight: Any = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)


class L1Loss(Loss):
    """Mean absolute error; at an exact tie the gradient is 0, where jnp.abs gives 1.

    Args:
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum" or "none".

    Shape:
        input and target, of one shape, to () or, of "none", that shape.

    Raises:
        InputError: For shapes that do not fit, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> float(nn.L1Loss()(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0])))
        1.0

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.L1Loss.html
    """

    def forward(self, input: jax.Array, target: jax.Array) -> jax.Array:
        """As said above."""
        return functional.l1_loss(input, target, reduction=self.reduction)


class MSELoss(Loss):
    """Mean squared error; `optax.l2_loss` is half of it, sample by sample.

    Args:
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum" or "none".

    Shape:
        input and target, of one shape, to () or, of "none", that shape.

    Raises:
        InputError: For shapes that do not fit, complex numbers, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> float(nn.MSELoss()(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0])))
        2.0

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MSELoss.html
    """

    def forward(self, input: jax.Array, target: jax.Array) -> jax.Array:
        """As said above."""
        return functional.mse_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(Loss):
    """Mean of a squared error up to beta, and of the absolute one beyond it.

    Args:
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum" or "none".
        beta: The error from which on it is a line, at least 0; at 0 it is L1Loss.

    Shape:
        input and target, of one shape, to () or, of "none", that shape.

    Raises:
        InputError: When called, for a beta below 0, shapes that do not fit, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> float(nn.SmoothL1Loss()(jnp.array([1.0, 4.0]), jnp.array([0.5, 1.0])))
        1.3125

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.SmoothL1Loss.html
    """

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        beta: float = 1.0,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.beta = beta

    def forward(self, input: jax.Array, target: jax.Array) -> jax.Array:
        """As said above."""
        return functional.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class HuberLoss(Loss):
    """Mean of half the squared error up to delta, and of a line beyond it.

    Args:
        reduction: "mean", "sum" or "none".
        delta: The error from which on it is a line, above 0.

    Shape:
        input and target, of one shape, to () or, of "none", that shape.

    Raises:
        InputError: For a delta that is no number, and when called for one that is not above 0,
            shapes that do not fit, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> float(nn.HuberLoss()(jnp.array([1.0, 4.0]), jnp.array([0.5, 1.0])))
        1.3125

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.HuberLoss.html
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        check_arguments(
            "HuberLoss", delta=(delta, "a number", lambda v: isinstance(v, float | int))
        )
        super().__init__(reduction=reduction)
        self.delta = delta

    def forward(self, input: jax.Array, target: jax.Array) -> jax.Array:
        """As said above."""
        return functional.huber_loss(input, target, reduction=self.reduction, delta=self.delta)
