"""A whole model, trained as people train it: first values, orders and masks are PyTorch's own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from twinstep.problems.base import Arrays, Spec
from twinstep.problems.torch_random import FloatArray, TorchGenerator

STEPS = 50


@dataclass(frozen=True, kw_only=True)
class ModelTraining(Spec):
    """What the whole models have in common: data that nobody draws, a loader with its own order.

    So what is drawn after the model's first values is what its layers draw: dropout's masks.
    """

    draws: ClassVar[bool] = True

    steps: int | None = STEPS
    """Updates to make."""
    batch_size: int = 16
    """Samples an update."""

    def samples(self) -> Arrays:
        """What it is trained on.

        Returns:
            {name: (N, ...)}
        """
        raise TypeError(f"{type(self).__name__} has no samples")

    def draw(self, generator: TorchGenerator) -> tuple[Arrays, Arrays]:
        return self.draw_params(generator), self.samples()

    @property
    def _batch_size(self) -> int | None:
        return self.batch_size

    @property
    def _shuffle(self) -> bool:
        return True

    @property
    def _loader_generator(self) -> TorchGenerator:
        return TorchGenerator(self.seed)

    def log_line(self, step: int, loss: float) -> str | None:
        return (
            None if (step + 1) % 10 else f"Step [{step + 1}/{self.total_steps}], Loss: {loss:.4f}"
        )


def under(name: str, params: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """A layer's parameters under its name in a model."""
    return {f"{name}.{key}": array for key, array in params.items()}
