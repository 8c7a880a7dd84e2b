"""The rows of torch.optim whose step evaluates the loss itself, by a closure: LBFGS.

PyTorch's own rows, and each option once more at a value that shows it.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from twinstep.device_config import Dtype
from twinstep.problems.base import Arrays
from twinstep.problems.optimizers import OptimizerTraining, Options, in_installed_torch
from twinstep.problems.torch_random import TorchGenerator

SAMPLES, STEPS = 256, 5

_WOLFE = {"line_search_fn": "strong_wolfe"}

CONFIGURATIONS: dict[str, list[Options]] = {
    "LBFGS": [
        {},
        {"lr": 0.01},
        {"lr": 1e-3},
        {"tolerance_grad": 1e-6},
        {**_WOLFE},
        {"history_size": 4, "max_iter": 12},
        {"history_size": 3, "max_iter": 8, **_WOLFE},
        {"max_eval": 7},
        {"max_eval": 7, **_WOLFE},
        {"lr": 5.0, "max_iter": 4, **_WOLFE},
        {"maximize": True},
        {"maximize": True, **_WOLFE},
        {"tolerance_grad": 0.01},
        {"tolerance_change": 5e-3},
    ]
}
"""{class of torch.optim: its options, row by row}"""


@dataclass(frozen=True, kw_only=True)
class ClosureTraining(OptimizerTraining):
    """The same network and loss on all samples at once, few steps of many evaluations each."""

    implementation: ClassVar[str] = "closure_training"
    uses_closure: ClassVar[bool] = True

    steps: int | None = STEPS
    """Updates to make."""
    optimizer: str = "LBFGS"
    """A class of torch.optim whose step takes a closure."""

    @classmethod
    def known(cls) -> list[str]:
        """The classes of torch.optim that are tried on this."""
        return list(CONFIGURATIONS)

    def draw(self, generator: TorchGenerator) -> tuple[Arrays, Arrays]:
        params, data = super().draw(generator)
        return params, {name: np.ascontiguousarray(a[:SAMPLES]) for name, a in data.items()}

    @property
    def _batch_size(self) -> int | None:
        return None

    @property
    def _shuffle(self) -> bool:
        return False


def rows(
    seed: int = 0, dtype: Dtype = "float64", steps: int | None = None
) -> list[ClosureTraining]:
    """Every row, of these seed, dtype and steps."""
    return [
        ClosureTraining(
            optimizer=optimizer, options=options, seed=seed, dtype=dtype, steps=steps or STEPS
        )
        for optimizer, configurations in CONFIGURATIONS.items()
        for options in configurations
        if in_installed_torch(optimizer, options)
    ]
