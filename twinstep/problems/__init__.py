"""The one list of the documents' examples and of the whole models: name -> what makes its spec.

What is new joins every command and every test by being listed here.
"""

from collections.abc import Callable, Sequence
from typing import Any

from twinstep.problems import closures, optimizers
from twinstep.problems.backprop import Backpropagation, ChainRule, WithoutZeroGrad, ZeroGrad
from twinstep.problems.base import Claim, Document, Spec
from twinstep.problems.groups import ParameterGroups, SelectiveUpdate
from twinstep.problems.layers import layer_rows, loss_rows
from twinstep.problems.mnist_rnn import MnistRnn
from twinstep.problems.nets import MODELS
from twinstep.problems.regression import (
    AdamUpdate,
    GradientUpdate,
    LinearRegression,
    LinearRegressionAdam,
    LinearRegressionL1,
)
from twinstep.problems.sgd import SgdLinearModel, SgdSingleSample

__all__ = [
    "EXAMPLES",
    "MODELS",
    "PROGRAMS",
    "SETS",
    "Claim",
    "Document",
    "Spec",
    "examples",
    "models",
]

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

PROGRAMS: dict[str, type[Spec]] = {**EXAMPLES, **MODELS}
"""All that have a file of their own on both sides."""


def _models(**flags: Any) -> list[Spec]:
    """The whole models, all of these flags."""
    return [kind(**{n: v for n, v in flags.items() if v is not None}) for kind in MODELS.values()]


def _optimizer_rows(**flags: Any) -> list[Spec]:
    """The rows of torch.optim, all of these flags."""
    return [*optimizers.rows(**flags), *closures.rows(**flags)]


SETS: dict[str, Callable[..., Sequence[Spec]]] = {
    "optimizers": _optimizer_rows,
    "layers": layer_rows,
    "losses": loss_rows,
    "models": _models,
}
"""Tables of many small trainings: name -> what makes the specs of all rows."""


def models() -> dict[str, type[Spec]]:
    """The whole models by name.

    Returns:
        {name: the class that makes its spec}; a spec's fields are its hyper-parameters.

    Example:
        >>> import twinstep
        >>> spec = twinstep.models()["mnist_convnet"](channels=4)
        >>> spec.initial_params()["conv2.weight"].shape
        (8, 4, 3, 3)
    """
    return dict(MODELS)


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
