"""Documents 003 and 004: zero_grad and what leaving it out does; gradients by the chain rule."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from twinstep.problems.base import Arrays, Claim, Document, Runner, Spec
from twinstep.problems.torch_init import linear
from twinstep.problems.torch_random import TorchGenerator
from twinstep.trace.ledger import Outcome

_BACKPROPAGATION = "深度学习:神经网络中反向传播的使用(pytorch)"


@dataclass(frozen=True, kw_only=True)
class ZeroGrad(Spec):
    """Sequential(Linear(10, 5), ReLU, Linear(5, 1)), 5 samples, 5 epochs."""

    name: ClassVar[str] = "zero_grad"
    document: ClassVar[Document] = Document("003", "SGD、Adam", "如何使用 optimizer.zero_grad()")
    model: ClassVar[str] = "Sequential(10-5, ReLU, 5-1)"
    objective: ClassVar[str] = "MSE"
    update: ClassVar[str] = "SGD"

    epochs: int = 5
    """Passes over the data, an update each."""
    learning_rate: float = 0.01
    """SGD's step size."""

    def draw_params(self, generator: TorchGenerator) -> Arrays:
        first = linear(generator, 10, 5, dtype=self.dtype)
        second = linear(generator, 5, 1, dtype=self.dtype)
        params = {f"0.{name}": array for name, array in first.items()}
        return params | {f"2.{name}": array for name, array in second.items()}

    def draw(self, generator: TorchGenerator) -> tuple[Arrays, Arrays]:
        params = self.draw_params(generator)
        x = generator.randn(5, 10, dtype=self.dtype)
        return params, {"x": x, "y": generator.randn(5, 1, dtype=self.dtype)}

    def log_line(self, step: int, loss: float) -> str | None:
        return f"Epoch {step + 1}, Loss: {loss}"

    def claims(self, outcome: Outcome, run: Runner) -> list[Claim]:
        return [_falls("clearing gradients makes each update right: the loss falls", outcome)]


@dataclass(frozen=True, kw_only=True)
class WithoutZeroGrad(ZeroGrad):
    """The same without zero_grad: each gradient is added to those before it."""

    name: ClassVar[str] = "without_zero_grad"
    document: ClassVar[Document] = Document("003", "SGD、Adam", "为什么需要 optimizer.zero_grad()")

    def claims(self, outcome: Outcome, run: Runner) -> list[Claim]:
        cleared = run(ZeroGrad(**self.__getstate__()))
        apart = np.flatnonzero(outcome.losses != cleared.losses)
        from_update = f"from update {apart[0] + 1} on" if len(apart) else "in none of the losses"
        return [
            Claim(
                "without zero_grad gradients pile up and updates are wrong",
                f"the loss differs {from_update}; after {self.total_steps} updates it is "
                f"{outcome.losses[-1]:.4f}, with zero_grad {cleared.losses[-1]:.4f}",
                bool(len(apart)),
            )
        ]


@dataclass(frozen=True, kw_only=True)
class ChainRule(Spec):
    """The 1-1-1 identity network, L = (y - w2 w1 x)^2 / 2: gradients by hand and by machine."""

    name: ClassVar[str] = "chain_rule"
    document: ClassVar[Document] = Document("004", _BACKPROPAGATION, "具体示例")
    model: ClassVar[str] = "1-1-1, identity, no bias"
    objective: ClassVar[str] = "(y - y_hat)^2 / 2"
    update: ClassVar[str] = "SGD"

    learning_rate: float = 0.01
    """The eta of w = w - eta * dL/dw."""
    x: float = 2.0
    """The input."""
    y: float = 1.0
    """The true output."""
    w1: float = 0.5
    """The weight from the input to the hidden neuron."""
    w2: float = -1.5
    """The weight from the hidden neuron to the output."""

    def draw_params(self, generator: TorchGenerator) -> Arrays:
        return {"w1": np.array(self.w1), "w2": np.array(self.w2)}

    def draw(self, generator: TorchGenerator) -> tuple[Arrays, Arrays]:
        return self.draw_params(generator), {"x": np.array([self.x]), "y": np.array([self.y])}

    def gradients_by_hand(self, params: Mapping[str, Any]) -> dict[str, float]:
        """The document's chain rule at `params`: dL/dw2 = -(y - y_hat) z1, dL/dw1 = ... w2 x."""
        w1, w2 = float(params["w1"]), float(params["w2"])
        z1 = w1 * self.x
        error = self.y - w2 * z1
        return {"w1": -error * w2 * self.x, "w2": -error * z1}

    def log_line(self, step: int, loss: float) -> str | None:
        return f"Loss: {loss}"

    def final_lines(self, outcome: Outcome) -> list[str]:
        if self.total_steps > 1:
            return []
        by_hand = self.gradients_by_hand(outcome.initial_params)
        return [
            f"dL/d{name}: by hand {by_hand[name]}, by automatic differentiation {grad.item()}"
            for name, grad in outcome.grads.items()
        ]

    def claims(self, outcome: Outcome, run: Runner) -> list[Claim]:
        once = run(dataclasses.replace(self, steps=1))
        by_hand = self.gradients_by_hand(once.initial_params)
        off = max(abs(by_hand[name] - grad.item()) for name, grad in once.grads.items())
        size = max(map(abs, by_hand.values()))
        return [
            Claim(
                "dL/dw2 = -(y - y_hat) z1, dL/dw1 = -(y - y_hat) w2 x",
                f"automatic differentiation is off by {off:.1e}",
                off <= 4 * float(np.finfo(self.dtype).eps) * size,
            )
        ]


@dataclass(frozen=True, kw_only=True)
class Backpropagation(Spec):
    """SimpleNetwork: 10-20-ReLU-1, 5 samples, one update; the gradients are shown."""

    name: ClassVar[str] = "backpropagation"
    document: ClassVar[Document] = Document("004", _BACKPROPAGATION, "PyTorch中的实现")
    model: ClassVar[str] = "10-20-ReLU-1"
    objective: ClassVar[str] = "MSE"
    update: ClassVar[str] = "SGD"

    learning_rate: float = 0.01
    """SGD's step size."""

    def draw_params(self, generator: TorchGenerator) -> Arrays:
        first = linear(generator, 10, 20, dtype=self.dtype)
        second = linear(generator, 20, 1, dtype=self.dtype)
        params = {f"layer1.{name}": array for name, array in first.items()}
        return params | {f"layer2.{name}": array for name, array in second.items()}

    def draw(self, generator: TorchGenerator) -> tuple[Arrays, Arrays]:
        params = self.draw_params(generator)
        x = generator.randn(5, 10, dtype=self.dtype)
        return params, {"x": x, "y": generator.randn(5, 1, dtype=self.dtype)}

    def log_line(self, step: int, loss: float) -> str | None:
        return f"Loss: {loss}"

    def final_lines(self, outcome: Outcome) -> list[str]:
        if self.total_steps > 1:
            return []
        return [
            f"{name}.grad: {tuple(grad.shape)}, largest entry {np.abs(grad).max():.6f}"
            for name, grad in outcome.grads.items()
        ]

    def claims(self, outcome: Outcome, run: Runner) -> list[Claim]:
        again = run(dataclasses.replace(self, steps=self.total_steps + 1))
        return [_falls("the update lowers the loss", again)]


def _falls(says: str, outcome: Outcome) -> Claim:
    first, last = float(outcome.losses[0]), float(outcome.losses[-1])
    return Claim(says, f"from {first:.6f} to {last:.6f}", last < first)
