"""Document 002: a linear model by SGD, as its code trains it and as its text describes it."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from twinstep.problems.base import Arrays, Claim, Document, Runner, Spec
from twinstep.problems.torch_init import linear
from twinstep.problems.torch_random import TorchGenerator
from twinstep.trace.ledger import Outcome

_TITLE = "Pytorch 梯度下降算法【1/9】随机梯度下降(Stochastic Gradient Descent, SGD)"


@dataclass(frozen=True, kw_only=True)
class SgdLinearModel(Spec):
    """100 points of 2x + 1 + 0.1 noise from NumPy's own generator, all of them in each update."""

    name: ClassVar[str] = "sgd_linear_model"
    document: ClassVar[Document] = Document("002", _TITLE, "代码")
    model: ClassVar[str] = "LinearModel: linear = Linear(1, 1)"
    objective: ClassVar[str] = "MSE"
    update: ClassVar[str] = "SGD"

    epochs: int = 100
    """Passes over the data."""
    learning_rate: float = 0.01
    """SGD's step size."""
    data_seed: int = 42
    """What np.random.seed gets before the data are drawn."""

    def draw_params(self, generator: TorchGenerator) -> Arrays:
        params = linear(generator, 1, 1, dtype=self.dtype)
        return {f"linear.{name}": array for name, array in params.items()}

    def draw(self, generator: TorchGenerator) -> tuple[Arrays, Arrays]:
        numbers = np.random.RandomState(self.data_seed)
        x = numbers.rand(100, 1)
        y = 2 * x + 1 + 0.1 * numbers.randn(100, 1)
        return self.draw_params(generator), {"x": x, "y": y}

    def log_line(self, step: int, loss: float) -> str | None:
        epoch, i = divmod(step + 1, self.steps_per_epoch)
        if i or epoch % 10:
            return None
        return f"Epoch [{epoch}/{self.total_epochs}], Loss: {loss:.4f}"

    def final_lines(self, outcome: Outcome) -> list[str]:
        state = OrderedDict((name, _AsTensor(array)) for name, array in outcome.params.items())
        return [f"训练后的模型参数: {state}"]

    def claims(self, outcome: Outcome, run: Runner) -> list[Claim]:
        samples = self._batch_size or 100
        return [
            Claim(
                "each update uses the gradient of a single sample",
                f"each update uses {samples} of 100 samples",
                samples == 1,
            ),
            _fit(outcome),
        ]


@dataclass(frozen=True, kw_only=True)
class SgdSingleSample(SgdLinearModel):
    """What the document's text says SGD is: one sample an update, in a new order each epoch."""

    name: ClassVar[str] = "sgd_single_sample"
    document: ClassVar[Document] = Document("002", _TITLE, "摘要")
    update: ClassVar[str] = "SGD, 1 sample"

    epochs: int = 10
    """Passes over the data."""

    @property
    def _batch_size(self) -> int | None:
        return 1

    @property
    def _shuffle(self) -> bool:
        return True


def _fit(outcome: Outcome) -> Claim:
    weight, bias = outcome.params["linear.weight"].item(), outcome.params["linear.bias"].item()
    return Claim(
        "after the iterations the model fits the data (2x + 1)",
        f"weight {weight:.4f}, bias {bias:.4f}",
        abs(weight - 2) < 0.2 and abs(bias - 1) < 0.2,
    )


class _AsTensor:
    """An array that prints as PyTorch prints a tensor of its few values."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __repr__(self) -> str:
        # PyTorch prints 2. and not 2.0000, but 3.0000e+10
        whole = bool(np.all((self.array == np.round(self.array)) & (np.abs(self.array) <= 1e8)))
        precision = 0 if whole else 4
        values = np.array2string(self.array, separator=", ", precision=precision, floatmode="fixed")
        return f"tensor({values})"
