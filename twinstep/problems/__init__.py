"""The one list of the documents' examples: name -> what makes its spec.

A new example joins every command and every test by being listed here.
"""

from collections.abc import Callable, Sequence
from typing import Any

from twinstep.problems import closures, optimizers
from twinstep.problems.backprop import Backpropagation, ChainRule, WithoutZeroGrad, ZeroGrad
from twinstep.problems.base import Claim, Document, Spec
from twinstep.problems.groups import ParameterGroups, SelectiveUpdate
from twinstep.problems.mnist_rnn import MnistRnn
from twinstep.problems.regression import (
    AdamUpdate,
    GradientUpdate,
    LinearRegression,
    LinearRegressionAdam,
    LinearRegressionL1,
)
from twinstep.problems.sgd import SgdLinearModel, SgdSingleSample

__all__ = ["EXAMPLES", "SETS", "Claim", "Document", "Spec", "examples"]

EXAMPLES: dict[str, type[Spec]] = {
    spec.name: spec
    for spec in (
        GradientUpdate,
        LinearRegression,
        LinearRegressionL1,
        LinearRegressionAdam,
        AdamUpdate,
        ParameterGroups,
        SelectiveUpdate,
        MnistRnn,
        SgdLinearModel,
        SgdSingleSample,
        ZeroGrad,
        WithoutZeroGrad,
        ChainRule,
        Backpropagation,
    )
}


def _optimizer_rows(**flags: Any) -> list[Spec]:
    """The rows of torch.optim, all of these flags."""
    return [*optimizers.rows(**flags), *closures.rows(**flags)]


SETS: dict[str, Callable[..., Sequence[Spec]]] = {"optimizers": _optimizer_rows}
"""Tables of many small trainings: name -> what makes the specs of all rows."""


def examples() -> dict[str, type[Spec]]:
    """The documents' examples by name.

    Returns:
        {name: the class that makes its spec}; a spec's fields are its hyper-parameters.

    Example:
        >>> import twinstep
        >>> spec = twinstep.examples()["zero_grad"](seed=1)
        >>> spec.seed, spec.learning_rate, spec.total_steps
        (1, 0.01, 5)
    """
    return dict(EXAMPLES)
