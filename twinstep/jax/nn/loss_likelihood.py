"""torch.nn's losses of probabilities and of numbers that are distributed.

reduction, size_average and reduce are as in `loss`.
"""

from typing import Any

import jax

from twinstep.jax.nn import functional
from twinstep.jax.nn.functional.taking_in import value_of
from twinstep.jax.nn.loss import Loss, WeightedLoss

__all__ = ["BCELoss", "BCEWithLogitsLoss", "GaussianNLLLoss", "KLDivLoss", "PoissonNLLLoss"]


class BCELoss(WeightedLoss):
    """Mean cross entropy of probabilities of one class, with logarithms of at least -100.

    Args:
        weight: What multiplies each entry's loss; a buffer.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum" or "none".

    Shape:
        input and target, of one shape, to () or, of "none", that shape; weight: what broadcasts
        to it.

    Raises:
        InputError: For shapes that do not fit, what is known and no probability, another
            reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> float(nn.BCELoss()(jnp.array([0.0, 1.0]), jnp.array([1.0, 1.0])))
        50.0

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.BCELoss.html
    """

    def forward(self, input: jax.Array, target: jax.Array) -> jax.Array:
        """As said above."""
        return functional.binary_cross_entropy(
            input, target, weight=value_of(self.weight), reduction=self.reduction
        )


class BCEWithLogitsLoss(Loss):
    """Mean cross entropy of logits of one class.

    Args:
        weight: What multiplies each entry's loss; a buffer.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum" or "none".
        pos_weight: What multiplies the losses of the class itself; a buffer.

    Shape:
        input and target, of one shape, to () or, of "none", that shape; weight and pos_weight:
        what broadcasts to it.

    Raises:
        InputError: For shapes that do not fit, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> loss = nn.BCEWithLogitsLoss(pos_weight=jnp.array([2.0]))
        >>> round(float(loss(jnp.zeros(3), jnp.ones(3))), 4)
        1.3863

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.BCEWithLogitsLoss.html
    """

    weight: Any
    pos_weight: Any

    def __init__(
        self,
        weight: Any = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        pos_weight: Any = None,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: jax.Array, target: jax.Array) -> jax.Array:
        """As said above."""
        return functional.binary_cross_entropy_with_logits(
            input,
            target,
            value_of(self.weight),
            pos_weight=value_of(self.pos_weight),
            reduction=self.reduction,
        )


class KLDivLoss(Loss):
    """Kullback-Leibler divergence of log-probabilities; its mean is over all entries.

    Args:
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        reduction: "mean", "sum", "none", or "batchmean": the sum divided by N.
        log_target: Whether target has log-probabilities.

    Shape:
        input, log-probabilities, (N, ...), and target, probabilities, to () or, of "none", their
        shape.

    Raises:
        InputError: For shapes that do not broadcast, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> input, target = jnp.log(jnp.array([[0.5, 0.5]])), jnp.array([[1.0, 0.0]])
        >>> round(float(nn.KLDivLoss(reduction="batchmean")(input, target)), 4)
        0.6931

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.KLDivLoss.html
    """

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        log_target: bool = False,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.log_target = log_target

    def forward(self, input: jax.Array, target: jax.Array) -> jax.Array:
        """As said above."""
        return functional.kl_div(
            input, target, reduction=self.reduction, log_target=self.log_target
        )


class PoissonNLLLoss(Loss):
    """Mean negative log likelihood of counts that are distributed as Poisson's.

    Args:
        log_input: Whether input has logarithms of what is expected; else it has that itself.
        full: Whether Stirling's approximation of log(target!) is added, where target is above 1.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        eps: What is added before a logarithm, where input has none.
        reduction: "mean", "sum" or "none".

    Shape:
        log_input and target, of one shape, to () or, of "none", that shape.

    Raises:
        InputError: For shapes that do not broadcast, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> float(nn.PoissonNLLLoss()(jnp.array([0.0, 0.0]), jnp.array([1.0, 2.0])))
        1.0

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.PoissonNLLLoss.html
    """

    def __init__(
        self,
        log_input: bool = True,
        full: bool = False,
        size_average: bool | None = None,
        eps: float = 1e-8,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.log_input, self.full, self.eps = log_input, full, eps

    def forward(self, log_input: jax.Array, target: jax.Array) -> jax.Array:
        """As said above."""
        return functional.poisson_nll_loss(
            log_input,
            target,
            log_input=self.log_input,
            full=self.full,
            eps=self.eps,
            reduction=self.reduction,
        )


class GaussianNLLLoss(Loss):
    """Mean negative log likelihood of numbers that are distributed as Gauss's.

    Args:
        full: Whether the constant is added.
        eps: What a variance is at least; its gradient is as if it were not.
        reduction: "mean", "sum" or "none".

    Shape:
        input and target, of one shape, to () or, of "none", that shape; var: variances, of it,
        of it with a last axis of 1 or without it, or a float.

    Raises:
        InputError: For shapes that do not fit, a variance that is known and below 0, another
            reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> float(nn.GaussianNLLLoss()(jnp.zeros(2), jnp.array([1.0, 2.0]), jnp.ones(2)))
        1.25

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GaussianNLLLoss.html
    """

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.full, self.eps = full, eps

    def forward(self, input: jax.Array, target: jax.Array, var: jax.Array | float) -> jax.Array:
        """As said above."""
        return functional.gaussian_nll_loss(
            input, target, var, full=self.full, eps=self.eps, reduction=self.reduction
        )
