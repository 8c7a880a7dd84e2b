"""Document 001, section 2: which parameters the optimizer is given."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from twinstep.problems.base import Arrays, Claim, Document, Runner, Spec
from twinstep.problems.torch_init import linear, recurrent
from twinstep.problems.torch_random import TorchGenerator
from twinstep.trace.ledger import Outcome

_DOCUMENT = Document("001", "pytorch中网络loss传播和参数更新理解", "2. 网络参数更新")


@dataclass(frozen=True, kw_only=True)
class ParameterGroups(Spec):
    """A GRU reads a sequence, a linear model its last output; one Adam updates both."""

    name: ClassVar[str] = "parameter_groups"
    document: ClassVar[Document] = _DOCUMENT
    model: ClassVar[str] = "GRU(10, 16), Linear(16, 1)"
    objective: ClassVar[str] = "MSE"
    update: ClassVar[str] = "Adam, 2 groups"

    epochs: int = 50
    """Passes over the data, an update each."""
    learning_rate: float = 0.01
    """Adam's step size, in every group."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's decay of the gradient's first and second moment."""
    eps: float = 1e-8
    """What Adam adds to the root of the second moment."""

    def draw_params(self, generator: TorchGenerator) -> Arrays:
        model = linear(generator, 16, 1, dtype=self.dtype)
        gru = recurrent(generator, 10, 16, gates=3, dtype=self.dtype)
        params = {f"model.{name}": array for name, array in model.items()}
        return params | {f"gru.{name}": array for name, array in gru.items()}

    def draw(self, generator: TorchGenerator) -> tuple[Arrays, Arrays]:
        params = self.draw_params(generator)
        x = generator.randn(5, 7, 10, dtype=self.dtype)  # (batch, time, features)
        return params, {"x": x, "y": generator.randn(5, 1, dtype=self.dtype)}

    def log_line(self, step: int, loss: float) -> str | None:
        if (step + 1) % 10:
            return None
        return f"Epoch [{step + 1}/{self.total_epochs}], Loss: {loss:.4f}"

    def claims(self, outcome: Outcome, run: Runner) -> list[Claim]:
        model, gru = _moved(outcome, "model."), _moved(outcome, "gru.")
        return [
            Claim(
                "one optimizer, given both, updates both",
                f"the model moved by up to {model:.3g}, the GRU by up to {gru:.3g}",
                model > 0 and gru > 0,
            )
        ]


@dataclass(frozen=True, kw_only=True)
class SelectiveUpdate(ParameterGroups):
    """Both networks in the loss, only the model's parameters in the optimizer."""

    name: ClassVar[str] = "selective_update"
    update: ClassVar[str] = "Adam, model only"

    def claims(self, outcome: Outcome, run: Runner) -> list[Claim]:
        model, gru = _moved(outcome, "model."), _moved(outcome, "gru.")
        grads = (array for name, array in outcome.grads.items() if name.startswith("gru."))
        largest = max(float(np.abs(array).max()) for array in grads)
        return [
            Claim(
                "only the parameters that the optimizer is given are updated",
                f"the model moved by up to {model:.3g}, the GRU by {gru:.3g}, "
                f"though its gradients reach {largest:.3g}",
                model > 0 and gru == 0 and largest > 0,
            )
        ]


def _moved(outcome: Outcome, prefix: str) -> float:
    """The largest distance of a parameter of one network from where it started."""
    return max(
        float(np.abs(array - outcome.initial_params[name]).max())
        for name, array in outcome.params.items()
        if name.startswith(prefix)
    )
