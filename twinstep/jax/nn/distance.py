"""torch.nn's distances."""

import jax

from twinstep.jax.nn import functional
from twinstep.jax.nn.module import Module

__all__ = ["CosineSimilarity", "PairwiseDistance"]


class PairwiseDistance(Module):
    """The p-norm of differences, over the last axis.

    Args:
        p: The norm's exponent; kept as `norm`.
        eps: What is added to each difference.
        keepdim: Whether the last axis stays, with length 1.

    Shape:
        Called with x1 and x2, (N, D) or (D,), to (N,) or (); with keepdim to (N, 1) or (1,).

    Raises:
        InputError: For shapes that do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> round(float(nn.PairwiseDistance()(jnp.array([3.0, 4.0]), jnp.zeros(2))), 4)
        5.0

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.PairwiseDistance.html
    """

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        self.norm, self.eps, self.keepdim = p, eps, keepdim

    def forward(self, x1: jax.Array, x2: jax.Array) -> jax.Array:
        """As said above."""
        return functional.pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)


class CosineSimilarity(Module):
    """The cosine of the angle between vectors.

    Args:
        dim: The axis of the vectors' entries.
        eps: What a norm is at least.

    Shape:
        Called with x1 and x2, (..., D, ...), to (..., ...).

    Raises:
        InputError: For shapes that do not fit, an axis that there is not.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.CosineSimilarity(dim=0)(jnp.array([3.0, 4.0]), jnp.array([6.0, 8.0])).tolist()
        1.0

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.CosineSimilarity.html
    """

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        self.dim, self.eps = dim, eps

    def forward(self, x1: jax.Array, x2: jax.Array) -> jax.Array:
        """As said above."""
        return functional.cosine_similarity(x1, x2, self.dim, self.eps)
