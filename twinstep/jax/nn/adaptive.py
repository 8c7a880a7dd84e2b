"""torch.nn.AdaptiveLogSoftmaxWithLoss.

Letters: N samples, I inputs, C classes.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn import functional
from twinstep.jax.nn.container import ModuleList, Sequential
from twinstep.jax.nn.functional._reduction import known_to_be
from twinstep.jax.nn.linear import Linear
from twinstep.jax.nn.module import Module

__all__ = ["AdaptiveLogSoftmaxWithLoss"]


class ASMoutput(NamedTuple):
    """What the layer gives.

    output: of each sample the log-probability of its class, (N,) or ()
    loss: minus their mean, ()
    """

    output: jax.Array
    loss: jax.Array


class AdaptiveLogSoftmaxWithLoss(Module):
    """Log-probabilities of many classes: of frequent ones by themselves, of rare ones by clusters.

    All clusters are computed for all samples, where PyTorch computes a cluster for those whose
    class is in it: shapes stay the same.

    Args:
        in_features: I, an int.
        n_classes: C, an int; from the most frequent one to the rarest.
        cutoffs: At which class each cluster starts, ascending, 1 to C - 1.
        div_value: By what part the clusters' inputs get fewer, each from the one before.
        head_bias: Whether the head, whose classes are the frequent ones and the clusters, has one.
        device: Ignored.
        dtype: Of its parameters; None: float64 under x64, else float32.
        generator: What draws its first values: a TorchGenerator or a Generator; None: the default
            one, which `manual_seed` seeds.
        rngs: nnx.Rngs in its place.

    Shape:
        input_ (N, I) or (I,), and target_, class numbers, (N,) or (), to (output, loss): the
        log-probabilities of those, (N,) or (), and minus their mean. A class number that is none
        of the classes is NaN in a compiled step. head, a Linear, and tail, two Linears a cluster.

    Raises:
        InputError: For cutoffs that are none, shapes that do not fit, a class number that is known
            and none of the classes.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> layer = nn.AdaptiveLogSoftmaxWithLoss(4, 10, [3, 6], div_value=2.0)
        >>> output, loss = layer(jnp.ones((2, 4)), jnp.array([0, 9]))
        >>> output.shape, loss.shape, layer.log_prob(jnp.ones((2, 4))).shape
        ((2,), (), (2, 10))

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveLogSoftmaxWithLoss.html
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        generator: Any = None,
        rngs: Any = None,
    ) -> None:
        expected = f"whole numbers from 1 to {n_classes - 1} that ascend, at least one"
        check_arguments(
            "AdaptiveLogSoftmaxWithLoss",
            cutoffs=(
                list(cutoffs),
                expected,
                lambda v: v == sorted({int(c) for c in v}) and v[0] > 0 and v[-1] < n_classes,
            ),
        )
        self.in_features, self.n_classes = in_features, n_classes
        self.cutoffs = (*cutoffs, n_classes)
        self.div_value, self.head_bias = div_value, head_bias
        self.shortlist_size, self.n_clusters = self.cutoffs[0], len(self.cutoffs) - 1
        self.head_size = self.shortlist_size + self.n_clusters

        def linear(inputs: int, outputs: int, bias: bool = False) -> Linear:
            return Linear(inputs, outputs, bias, dtype=dtype, generator=generator, rngs=rngs)

        self.head = linear(in_features, self.head_size, head_bias)
        self.tail = ModuleList()
        for i, (low, high) in enumerate(pairwise(self.cutoffs), 1):
            hidden = int(in_features // div_value**i)
            self.tail.append(Sequential(linear(in_features, hidden), linear(hidden, high - low)))

    def forward(self, input_: jax.Array, target_: jax.Array) -> ASMoutput:
        """As said above."""
        input_, target_ = jnp.asarray(input_), jnp.asarray(target_)
        self._check(input_, target_)
        every = self.log_prob(jnp.atleast_2d(input_))  # (N, C)
        target = jnp.atleast_1d(target_)
        fine = (target >= 0) & (target < self.n_classes)
        picked = jnp.take_along_axis(every, jnp.where(fine, target, 0)[:, None], 1)[:, 0]
        output = jnp.where(fine, picked, jnp.nan)
        return ASMoutput(output if target_.ndim else output[0], jnp.mean(-output))

    def _check(self, input_: jax.Array, target_: jax.Array) -> None:
        if target_.ndim > 1 or input_.shape[:-1] != target_.shape or not input_.ndim:
            raise InputError(
                f"AdaptiveLogSoftmaxWithLoss: input_ is of shape {input_.shape} and target_ of "
                f"{target_.shape}, expected (N, {self.in_features}) and (N,), or both without N"
            )
        odd = known_to_be(target_, lambda v: (v < 0) | (v >= self.n_classes))
        if odd is not None:
            raise InputError(
                f"AdaptiveLogSoftmaxWithLoss: target_ has {odd}, expected 0 to {self.n_classes - 1}"
            )

    def log_prob(self, input: jax.Array) -> jax.Array:
        """The log-probabilities of all classes.

        Args:
            input: (N, I).

        Returns:
            (N, C).
        """
        head = functional.log_softmax(self.head(input), dim=1)  # (N, frequent classes + clusters)
        parts = [head[:, : self.shortlist_size]]
        for cluster, logits in enumerate(self.tail, self.shortlist_size):
            within = functional.log_softmax(logits(input), dim=1)
            parts.append(within + head[:, cluster, None])
        return jnp.concatenate(parts, axis=1)

    def predict(self, input: jax.Array) -> jax.Array:
        """The classes whose probability is highest, as PyTorch finds them.

        Where a frequent class has more than every cluster has as a whole, it is that.

        Args:
            input: (N, I).

        Returns:
            Class numbers, (N,).
        """
        first = jnp.argmax(self.head(input), axis=1)
        every = jnp.argmax(self.log_prob(input), axis=1)
        return jnp.where(first < self.shortlist_size, first, every)
