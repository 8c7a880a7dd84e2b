"""torch.nn's losses of classes and of labels in a sequence.

Letters: N samples, C classes, T time steps, S labels. reduction, size_average and reduce are as in
`loss`.
"""

import math
from typing import Any

import jax

from twinstep.errors import check_arguments
from twinstep.jax.nn import functional
from twinstep.jax.nn.functional.taking_in import value_of
from twinstep.jax.nn.linear import Linear
from twinstep.jax.nn.loss import Loss, WeightedLoss

__all__ = ["CTCLoss", "CrossEntropyLoss", "LinearCrossEntropyLoss", "NLLLoss", "NLLLoss2d"]


class NLLLoss(WeightedLoss):
    """Mean negative log-probability of the classes that should be.

    Args:
        weight: Of each class, (C,); the mean is divided by those of the targets. A buffer.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        ignore_index: The class number that stands for no loss.
        reduction: "mean" (over those that are not ignored), "sum" or "none".

    Shape:
        input, log-probabilities, (C,), (N, C) or (N, C, d1, ...), and target, class numbers, the
        same without C, to () or, of "none", target's shape.

    Raises:
        InputError: For shapes that do not fit, a class number that is known and none of the
            classes, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> float(nn.NLLLoss()(jnp.array([[-1.0, -2.0], [-3.0, -4.0]]), jnp.array([1, 0])))
        2.5

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.NLLLoss.html
    """

    def __init__(
        self,
        weight: Any = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index = ignore_index

    def forward(self, input: jax.Array, target: jax.Array) -> jax.Array:
        """As said above."""
        return functional.nll_loss(
            input,
            target,
            weight=value_of(self.weight),
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )


class NLLLoss2d(NLLLoss):
    """NLLLoss by its former name for images.

    Args:
        weight: Of each class, (C,); the mean is divided by those of the targets. A buffer.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        ignore_index: The class number that stands for no loss.
        reduction: "mean" (over those that are not ignored), "sum" or "none".

    Shape:
        As NLLLoss.

    Raises:
        InputError: As NLLLoss.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> float(nn.NLLLoss2d()(jnp.full((1, 2, 3, 3), -1.0), jnp.zeros((1, 3, 3), int)))
        1.0

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.NLLLoss.html
    """


class CrossEntropyLoss(WeightedLoss):
    """Mean cross entropy of logits and class numbers, or class probabilities.

    Args:
        weight: Of each class, (C,); the mean of class numbers' losses is divided by theirs. A
            buffer.
        size_average, reduce: PyTorch's former words for the reduction; they go first.
        ignore_index: The class number that stands for no loss.
        reduction: "mean" (over those that are not ignored), "sum" or "none".
        label_smoothing: What part of a target goes to all classes alike, from 0 to 1.

    Shape:
        input, logits, (C,), (N, C) or (N, C, d1, ...), and target, class numbers, the same without
        C, or probabilities, the same, to () or, of "none", the shape without C.

    Raises:
        InputError: For shapes that do not fit, a class number that is known and none of the
            classes, a label_smoothing or reduction that is none.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> logits = jnp.array([[2.0, 0.0], [0.0, 2.0]])
        >>> round(float(nn.CrossEntropyLoss()(logits, jnp.array([0, 1]))), 4)
        0.1269

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html
    """

    def __init__(
        self,
        weight: Any = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, input: jax.Array, target: jax.Array) -> jax.Array:
        """As said above."""
        return functional.cross_entropy(
            input,
            target,
            weight=value_of(self.weight),
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class LinearCrossEntropyLoss(WeightedLoss):
    """The cross entropy of a linear layer's outputs; the layer is `linear`.

    Args:
        in_features: What goes into the layer, I, an int.
        num_classes: C, an int.
        out_features: (d1, ...) of what has several targets a sample.
        bias: Whether the layer has one.
        device: Ignored.
        dtype: Of its parameters; None: float64 under x64, else float32.
        reduction: "mean" (over those that are not ignored), "sum" or "none".
        weight: Of each class, (C,). A buffer.
        ignore_index: The class number that stands for no loss; None: -100.
        label_smoothing: What part of a target goes to all classes alike, from 0 to 1.
        options: How PyTorch cuts the work into pieces; ignored.
        generator: What draws its first values: a TorchGenerator or a Generator; None: the default
            one, which `manual_seed` seeds.
        rngs: nnx.Rngs in its place.

    Shape:
        input (N, I) or (I,), and target, class numbers, (N, d1, ...) or (), or probabilities,
        (N, C, d1, ...) or (C,), to () or, of "none", (N, d1, ...) or (). linear.weight
        (C d1 ..., I), linear.bias (C d1 ...,).

    Raises:
        InputError: For a weight of another shape, a label_smoothing that is none, and when called
            for shapes that do not fit, a class number that is none, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> loss = nn.LinearCrossEntropyLoss(3, 2, generator=nn.Generator(0))
        >>> loss(jnp.zeros((4, 3)), jnp.zeros(4, int)).item()
        0.6931471824645996

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LinearCrossEntropyLoss.html
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: Any = None,
        dtype: Any = None,
        reduction: str = "mean",
        weight: Any = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        options: Any = None,
        generator: Any = None,
        rngs: Any = None,
    ) -> None:
        shape = None if weight is None else value_of(weight).shape
        check_arguments(
            "LinearCrossEntropyLoss",
            weight=(shape, f"of shape {(num_classes,)}", lambda v: v in (None, (num_classes,))),
            label_smoothing=(label_smoothing, "0 to 1", lambda v: 0 <= v <= 1),
        )
        super().__init__(weight, reduction=reduction)
        self.num_classes, self.out_features = num_classes, tuple(out_features)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing
        self.options = options
        outputs = math.prod(self.out_features, start=num_classes)
        self.linear = Linear(
            in_features, outputs, bias, device, dtype, generator=generator, rngs=rngs
        )

    def forward(self, input: jax.Array, target: jax.Array) -> jax.Array:
        """As said above."""
        outputs = (self.num_classes, *self.out_features)
        bias = value_of(self.linear.bias)
        return functional.linear_cross_entropy(
            input,
            value_of(self.linear.weight).reshape(*outputs, self.linear.in_features),
            target,
            linear_bias=None if bias is None else bias.reshape(outputs),
            weight=value_of(self.weight),
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
        )


class CTCLoss(Loss):
    """Connectionist temporal classification: the cost of all alignments of labels to steps.

    Args:
        blank: The class that is no label.
        reduction: "mean" (each loss divided by its target's length first), "sum" or "none".
        zero_infinity: Whether the loss of a target that is too long for its steps is 0, and its
            gradient; else it is infinite, and its gradient NaN.

    Shape:
        log_probs (T, N, C), or (T, C); targets, labels, (N, S), or all one after the other;
        input_lengths and target_lengths (N,), or (); to () or, of "none", (N,).

    Raises:
        InputError: For shapes that do not fit, lengths and labels that are known and cannot be, a
            blank that is no class, another reduction.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> logs = jnp.log(jnp.full((3, 1, 2), 0.5))
        >>> round(float(nn.CTCLoss()(logs, jnp.array([[1]]), (3,), (1,))), 4)  # -log(6 / 8)
        0.2877

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.CTCLoss.html
    """

    def __init__(
        self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False
    ) -> None:
        super().__init__(reduction=reduction)
        self.blank, self.zero_infinity = blank, zero_infinity

    def forward(
        self, log_probs: jax.Array, targets: jax.Array, input_lengths: Any, target_lengths: Any
    ) -> jax.Array:
        """As said above."""
        return functional.ctc_loss(
            log_probs,
            targets,
            input_lengths,
            target_lengths,
            self.blank,
            self.reduction,
            self.zero_infinity,
        )
