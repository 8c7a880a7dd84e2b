"""What an optimizer made of a port's gradients: what PyTorch's rule and causes are held to."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from twinstep.trace.ledger import Leaves


@dataclass(frozen=True)
class Clipping:
    """What PyTorch does to all gradients before its optimizer sees them.

    kind: "norm" (`clip_grad_norm_`) or "value" (`clip_grad_value_`)
    limit: max_norm, or clip_value
    norm_type: of the norm
    """

    kind: str
    limit: float
    norm_type: float = 2.0


@dataclass(frozen=True)
class Updates:
    """T consecutive updates of the leaves of one optimizer, in PyTorch's names and layout.

    rule: the class in torch.optim, such as "AdamW"
    settings: {leaf: {keyword: (T,)}}, PyTorch's at each update, as its groups have them: "lr",
        "betas.0", "betas.1", "eps", "weight_decay", "momentum", "nesterov", ...
    grads: {leaf: (T, ...)}, what the port backpropagated, before any clipping
    params: {leaf: (T + 1, ...)}, the port's, the initial ones first
    clipping: PyTorch's; None: none
    norms: (T,), the norm of all of the port's gradients that are clipped together, in this
        optimizer and beside it; None: of `grads`
    passes: how many backward passes PyTorch sums to one gradient, that is the mean of them
    unsure: whether the recorder has summed the port's gradients of several micro-steps itself
    groups: {"leaf" or "unit": {leaf: (...)}}, the number of the port's own leaf that each entry is
        of, and of the unit in it; empty: the port's leaves are PyTorch's
    """

    rule: str
    settings: Mapping[str, Mapping[str, np.ndarray]]
    grads: Leaves
    params: Leaves
    clipping: Clipping | None = None
    norms: np.ndarray | None = None
    passes: int = 1
    unsure: bool = False
    groups: Mapping[str, Leaves] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.grads.values())))


@dataclass(frozen=True)
class Cause:
    """A known difference that reproduces what a port did, to rounding.

    kind: of differences, such as "eps inside the root"
    says: it in a sentence, with the values that fit
    values: {what: the number that was solved for}
    ratio: the largest distance from what it makes, as a part of what rounding explains
    """

    kind: str
    says: str
    values: Mapping[str, float]
    ratio: float
