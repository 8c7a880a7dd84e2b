"""torch.nn, row by row: one layer, trained together with its own inputs, or one loss.

So a row's gradients are those of its parameters and of its inputs; buffers are recorded too.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from twinstep.errors import InputError, unknown
from twinstep.problems.base import Arrays, Document, Spec
from twinstep.problems.layers import losses
from twinstep.problems.layers import rows as layers
from twinstep.problems.layers.row import Row
from twinstep.problems.torch_random import TorchGenerator

STEPS = 20
LEARNING_RATE = 0.02
"""So small that no softmax saturates: how 1 - p rounds is not seen by moving parameters."""


@dataclass(frozen=True, kw_only=True)
class LayerTraining(Spec):
    """A layer and its inputs, trained by SGD with momentum on a weighted sum of what it gives."""

    implementation: ClassVar[str] = "layer_training"
    table: ClassVar[str | None] = "layers"
    document: ClassVar[Document] = Document("torch.nn", "torch.nn", "layers")
    model: ClassVar[str] = "as in the row"
    objective: ClassVar[str] = "a weighted sum of outputs and of their squares"
    update: ClassVar[str] = "SGD, momentum 0.9"
    separable: ClassVar[bool] = False

    steps: int | None = STEPS
    """Updates to make."""
    layer: str = "Linear(6, 3)"
    """The call that makes it, a row of the table."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer not in self.rows():
            raise InputError(unknown("layer", self.layer, self.rows()))

    @staticmethod
    def rows() -> dict[str, Row]:
        """The table.

        Returns:
            {name: row}
        """
        return _named(layers.rows())

    @property
    def row(self) -> Row:
        """The layer, and what it is called with."""
        return self.rows()[self.layer]

    @property
    def name(self) -> str:  # type: ignore[override]  # a row's own, where an example has its class's
        """The call that makes the layer."""
        return self.layer

    @property
    def draws(self) -> bool:  # type: ignore[override]  # likewise
        """Whether the layer draws numbers."""
        return self.row.draws

    def draw(self, generator: TorchGenerator) -> tuple[Arrays, Arrays]:
        params, data = {}, {}
        for name, shape in self.row.shapes.items():
            bound = 1.0 if len(shape) < 2 else 1 / np.sqrt(np.prod(shape[1:]))
            low = 0.5 if len(shape) == 1 and name.endswith("weight") else -bound  # of a norm
            params[f"layer.{name}"] = generator.uniform(shape, low, bound, self.dtype)
        for i, given in enumerate(self.row.inputs):
            drawn = given.draw(generator, self.dtype)
            data[f"input{i}"] = drawn * 0 if given.trained else drawn
            if given.trained:  # the parameter is added to what is 0
                params[f"input{i}"] = drawn
        return params, data


@dataclass(frozen=True, kw_only=True)
class LossTraining(LayerTraining):
    """A loss, whose input is trained."""

    table: ClassVar[str | None] = "losses"
    document: ClassVar[Document] = Document("torch.nn", "torch.nn", "losses")
    objective: ClassVar[str] = "the loss; of several, a weighted sum"

    layer: str = "MSELoss()"
    """The call that makes it, a row of the table."""

    @staticmethod
    def rows() -> dict[str, Row]:
        """The table.

        Returns:
            {name: row}
        """
        return _named(losses.rows())


def _named(rows: list[Row]) -> dict[str, Row]:
    return {str(row): row for row in rows}
