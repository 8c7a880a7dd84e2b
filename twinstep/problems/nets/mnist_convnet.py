"""A convolutional network for handwritten digits, with dropout, as PyTorch's first example is."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from twinstep.problems.base import Arrays, Document
from twinstep.problems.datasets import DIGITS_TRAIN, Images, load_digits
from twinstep.problems.nets.base import ModelTraining, under
from twinstep.problems.torch_init import conv, linear
from twinstep.problems.torch_random import TorchGenerator


@dataclass(frozen=True, kw_only=True)
class MnistConvnet(ModelTraining):
    """Two convolutions, max pooling, two linear layers, dropout, Adadelta."""

    name: ClassVar[str] = "mnist_convnet"
    document: ClassVar[Document] = Document("torch.nn", "a convolutional network", "MNIST")
    model: ClassVar[str] = "Conv2d(1, 8, 3), Conv2d(8, 16, 3), Linear(2304, 32), Linear(32, 10)"
    objective: ClassVar[str] = "nll_loss of log_softmax"
    update: ClassVar[str] = "Adadelta"
    sized_by: ClassVar[tuple[str, ...]] = ("channels", "hidden_size", "batch_size")

    channels: int = 8
    """Of the first convolution; the second has twice as many."""
    hidden_size: int = 32
    """The first linear layer's width."""
    learning_rate: float = 1.0
    """Adadelta's step size."""

    @property
    def features(self) -> int:
        """Numbers that an image has after the pooling."""
        return 2 * self.channels * 12 * 12

    def entries(self) -> tuple[int, int]:
        first, second = self.channels, 2 * self.channels
        parameters = 10 * first + 9 * first * second + self.hidden_size * (self.features + 12)
        samples = min(self.batch_size, DIGITS_TRAIN)
        return parameters, samples * (26 * 26 * first + 24 * 24 * second)

    @cached_property
    def images(self) -> Images:
        """The training and the test images."""
        return load_digits()

    def samples(self) -> Arrays:
        return {"images": self.images.train_images, "labels": self.images.train_labels}

    def draw_params(self, generator: TorchGenerator) -> Arrays:
        first, second = self.channels, 2 * self.channels
        return {
            **under("conv1", conv(generator, 1, first, (3, 3), dtype=self.dtype)),
            **under("conv2", conv(generator, first, second, (3, 3), dtype=self.dtype)),
            **under("fc1", linear(generator, self.features, self.hidden_size, dtype=self.dtype)),
            **under("fc2", linear(generator, self.hidden_size, 10, dtype=self.dtype)),
        }

    def test_set(self) -> tuple[np.ndarray, np.ndarray] | None:
        return self.images.test_images, self.images.test_labels
