"""Document 001, the comment below it: an RNN reads an image row by row and names its digit."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np

from twinstep.errors import InputError
from twinstep.problems.base import Arrays, Claim, Document, Runner, Spec
from twinstep.problems.datasets import DIGITS_TRAIN, Images, load_digits, load_mnist
from twinstep.problems.torch_init import linear, recurrent
from twinstep.problems.torch_random import TorchGenerator
from twinstep.trace.ledger import Outcome


@dataclass(frozen=True, kw_only=True)
class MnistRnn(Spec):
    """RNN(28, 128), the last step to Linear(128, 10), cross entropy, shuffled batches of 64."""

    name: ClassVar[str] = "mnist_rnn"
    document: ClassVar[Document] = Document(
        "001", "pytorch中网络loss传播和参数更新理解", "评论: 手写数字识别"
    )
    model: ClassVar[str] = "RNN(28, 128), Linear(128, 10)"
    objective: ClassVar[str] = "cross entropy"
    update: ClassVar[str] = "Adam"
    sized_by: ClassVar[tuple[str, ...]] = ("hidden_size", "batch_size")

    epochs: int = 10
    """Passes over the training images."""
    batch_size: int = 64
    """Images an update."""
    hidden_size: int = 128
    """The RNN's width."""
    learning_rate: float = 0.01
    """Adam's step size."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's decay of the gradient's first and second moment."""
    eps: float = 1e-8
    """What Adam adds to the root of the second moment."""
    data: Literal["digits", "mnist"] = "digits"
    """scikit-learn's digits enlarged to 28 x 28, or MNIST."""
    data_dir: str | None = None
    """With --data mnist: the folder of its four files (else TWINSTEP_DATA, else downloaded)."""
    log_every: int | None = None
    """Print the loss each so many batches (default: 100, or each epoch that has fewer)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data_dir is not None and self.data != "mnist":
            raise InputError(
                f"{self.name}: data_dir is {self.data_dir!r}, but data is {self.data!r}: "
                "it is for --data mnist"
            )

    def entries(self) -> tuple[int, int]:
        hidden = self.hidden_size
        # of MNIST's images a folder may hold fewer than the data set: not counted on
        samples = min(self.batch_size, DIGITS_TRAIN)
        return hidden * (28 + hidden + 2) + 10 * (hidden + 1), samples * 28 * (28 + hidden)

    @cached_property
    def images(self) -> Images:
        """The training and the test images."""
        return load_mnist(self.data_dir) if self.data == "mnist" else load_digits()

    def draw_params(self, generator: TorchGenerator) -> Arrays:
        rnn = recurrent(generator, 28, self.hidden_size, gates=1, dtype=self.dtype)
        fc = linear(generator, self.hidden_size, 10, dtype=self.dtype)
        params = {f"rnn.{name}": array for name, array in rnn.items()}
        return params | {f"fc.{name}": array for name, array in fc.items()}

    def draw(self, generator: TorchGenerator) -> tuple[Arrays, Arrays]:
        params = self.draw_params(generator)
        return params, {"images": self.images.train_images, "labels": self.images.train_labels}

    def test_set(self) -> tuple[np.ndarray, np.ndarray] | None:
        return self.images.test_images, self.images.test_labels

    @property
    def _batch_size(self) -> int | None:
        return self.batch_size

    @property
    def _shuffle(self) -> bool:
        return True

    def log_line(self, step: int, loss: float) -> str | None:
        total = self.steps_per_epoch
        epoch, i = divmod(step, total)
        if (i + 1) % (self.log_every or min(100, total)):
            return None
        return f"Epoch [{epoch + 1}/{self.total_epochs}], Step [{i + 1}/{total}], Loss: {loss:.4f}"

    def final_lines(self, outcome: Outcome) -> list[str]:
        metrics: Mapping[str, float] = outcome.metrics
        correct, total = metrics["correct"], metrics["test_images"]
        accuracy = 100 * correct / total
        return [f"Test Accuracy of the model on the {total:.0f} test images: {accuracy} %"]

    def claims(self, outcome: Outcome, run: Runner) -> list[Claim]:
        correct, total = outcome.metrics["correct"], outcome.metrics["test_images"]
        return [
            Claim(
                "the model learns to name handwritten digits",
                f"{100 * correct / total:.2f} % of {total:.0f} held-out images named rightly",
                None,
            )
        ]
