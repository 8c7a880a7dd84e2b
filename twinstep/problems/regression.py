"""Documents 000 and 001 on one linear layer: the basic flow, the case, its exercise, Adam."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from twinstep.problems.base import Arrays, Claim, Document, Runner, Spec
from twinstep.problems.torch_init import linear
from twinstep.problems.torch_random import TorchGenerator
from twinstep.trace.ledger import Outcome

_TITLE = "PyTorch 梯度更新"


@dataclass(frozen=True, kw_only=True)
class GradientUpdate(Spec):
    """Forward, loss, backward, one update: 5 samples of 10 features."""

    name: ClassVar[str] = "gradient_update"
    document: ClassVar[Document] = Document("000", _TITLE, "梯度更新的基本流程")
    model: ClassVar[str] = "Linear(10, 1)"
    objective: ClassVar[str] = "MSE"
    update: ClassVar[str] = "SGD"

    learning_rate: float = 0.01
    """SGD's step size."""

    def draw_params(self, generator: TorchGenerator) -> Arrays:
        return linear(generator, 10, 1, dtype=self.dtype)

    def draw(self, generator: TorchGenerator) -> tuple[Arrays, Arrays]:
        params = self.draw_params(generator)
        x = generator.randn(5, 10, dtype=self.dtype)
        return params, {"x": x, "y": generator.randn(5, 1, dtype=self.dtype)}

    def log_line(self, step: int, loss: float) -> str | None:
        return f"Loss: {loss}"

    def claims(self, outcome: Outcome, run: Runner) -> list[Claim]:
        return [_update_rule(self, outcome)]


@dataclass(frozen=True, kw_only=True)
class AdamUpdate(Spec):
    """zero_grad, backward, step with Adam; ten updates, where the document shows the loop once."""

    name: ClassVar[str] = "adam_update"
    document: ClassVar[Document] = Document(
        "001", "pytorch中网络loss传播和参数更新理解", "3. loss计算和参数更新"
    )
    model: ClassVar[str] = "Linear(10, 1)"
    objective: ClassVar[str] = "MSE"
    update: ClassVar[str] = "Adam"

    epochs: int = 10
    """Passes over the data."""
    learning_rate: float = 0.01
    """Adam's step size."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's decay of the gradient's first and second moment."""
    eps: float = 1e-8
    """What Adam adds to the root of the second moment."""

    def draw_params(self, generator: TorchGenerator) -> Arrays:
        return linear(generator, 10, 1, dtype=self.dtype)

    def draw(self, generator: TorchGenerator) -> tuple[Arrays, Arrays]:
        params = self.draw_params(generator)
        x = generator.randn(5, 10, dtype=self.dtype)
        return params, {"x": x, "y": generator.randn(5, 1, dtype=self.dtype)}

    def log_line(self, step: int, loss: float) -> str | None:
        return f"Loss: {loss}"

    def claims(self, outcome: Outcome, run: Runner) -> list[Claim]:
        first = run(dataclasses.replace(self, steps=1))
        moves = np.concatenate(
            [np.abs(first.params[n] - first.initial_params[n]).ravel() for n in first.params]
        )
        ratio = float(moves.max() / self.learning_rate) if self.learning_rate else 0.0
        return [
            Claim(
                "theta = theta - eta * gradient, and complex optimizers are alike in principle",
                f"Adam's first update moves every parameter by up to {ratio:.6f} learning rates, "
                "whatever its gradient's size",
                None,
            )
        ]


@dataclass(frozen=True, kw_only=True)
class LinearRegression(Spec):
    """y = 2x + 1 and noise of deviation 2 on linspace(0, 10, 100), full batch."""

    name: ClassVar[str] = "linear_regression"
    document: ClassVar[Document] = Document("000", _TITLE, "实际案例:线性回归")
    model: ClassVar[str] = "Linear(1, 1)"
    objective: ClassVar[str] = "MSE"
    update: ClassVar[str] = "SGD"

    epochs: int = 100
    """Passes over the data, an update each."""
    learning_rate: float = 0.01
    """The optimizer's step size."""

    def draw_params(self, generator: TorchGenerator) -> Arrays:
        return linear(generator, 1, 1, dtype=self.dtype)

    def draw(self, generator: TorchGenerator) -> tuple[Arrays, Arrays]:
        # within an ulp of torch.linspace, whose last bit depends on the processor's vector width
        x = np.linspace(0, 10, 100).astype(self.dtype).reshape(-1, 1)
        y = 2 * x + 1 + generator.randn(100, 1, dtype=self.dtype) * 2
        return self.draw_params(generator), {"x": x, "y": y}

    def log_line(self, step: int, loss: float) -> str | None:
        if (step + 1) % 10:
            return None
        return f"Epoch [{step + 1}/{self.total_epochs}], Loss: {loss:.4f}"

    def claims(self, outcome: Outcome, run: Runner) -> list[Claim]:
        weight = outcome.params["weight"].item()
        bias = outcome.params["bias"].item()
        return [
            Claim("weight is about 2", f"weight {weight:.4f}", abs(weight - 2) < 0.2),
            Claim("bias is about 1", f"bias {bias:.4f}", abs(bias - 1) < 0.2),
        ]


@dataclass(frozen=True, kw_only=True)
class _Exercise(LinearRegression):
    """The document's exercise: another loss or optimizer, and what it changes."""

    document: ClassVar[Document] = Document("000", _TITLE, "附加资源与练习")

    def claims(self, outcome: Outcome, run: Runner) -> list[Claim]:
        other = run(LinearRegression(seed=self.seed, dtype=self.dtype, steps=self.total_steps))
        pairs = [
            f"{name} {outcome.params[name].item():.4f} (MSE, SGD: {other.params[name].item():.4f})"
            for name in ("weight", "bias")
        ]
        return [Claim("try another loss or optimizer and watch the effect", ", ".join(pairs), None)]


@dataclass(frozen=True, kw_only=True)
class LinearRegressionL1(_Exercise):
    """The linear regression with the mean absolute error."""

    name: ClassVar[str] = "linear_regression_l1"
    objective: ClassVar[str] = "L1"


@dataclass(frozen=True, kw_only=True)
class LinearRegressionAdam(_Exercise):
    """The linear regression with Adam."""

    name: ClassVar[str] = "linear_regression_adam"
    update: ClassVar[str] = "Adam"

    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's decay of the gradient's first and second moment."""
    eps: float = 1e-8
    """What Adam adds to the root of the second moment."""


def _update_rule(spec: GradientUpdate, outcome: Outcome) -> Claim:
    """For one update of SGD: the parameters moved by the learning rate times the gradient."""
    if spec.total_steps > 1:
        return Claim("the update follows the gradient", "more than one update: not measured", None)
    off = max(
        float(
            np.max(np.abs(outcome.params[n] - (outcome.initial_params[n] - spec.learning_rate * g)))
        )
        for n, g in outcome.grads.items()
    )
    return Claim(
        "the update goes against the gradient, by the learning rate",
        f"off by at most {off:.1e}",
        off <= 2 * float(np.finfo(spec.dtype).eps),
    )
