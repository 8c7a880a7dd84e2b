"""The one list of the documents' examples: name -> what makes its spec.

A new example joins every command and every test by being listed here.
"""

from collections.abc import Callable, Sequence
from typing import Any

from twinstep.specs import closures, optimizers
from twinstep.specs.backprop import Backpropagation, ChainRule, WithoutZeroGrad, ZeroGrad
from twinstep.specs.base import Claim, Document, Spec
from twinstep.specs.groups import ParameterGroups, SelectiveUpdate
from twinstep.specs.mnist_rnn import MnistRnn
from twinstep.specs.regression import (
    AdamUpdate,
    GradientUpdate,
    LinearRegression,
    LinearRegressionAdam,
    LinearRegressionL1,
)
from twinstep.specs.sgd import SgdLinearModel, SgdSingleSample

__all__ = ["EXAMPLES", "SETS", "Claim", "Document", "Spec"]

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
