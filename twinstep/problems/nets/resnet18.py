"""A residual network of 18 layers as it is trained on CIFAR's small images, but narrow."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from twinstep.problems.base import Arrays, Document
from twinstep.problems.nets.base import ModelTraining, under
from twinstep.problems.nets.data import small_digits
from twinstep.problems.torch_init import batch_norm, conv, linear
from twinstep.problems.torch_random import FloatArray, TorchGenerator

TRAIN = 1500
# CIFAR-10's own, a channel each
_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


@dataclass(frozen=True, kw_only=True)
class ResNet18(ModelTraining):
    """A 3 x 3 stem, four stages of two blocks, batch norm, SGD with momentum and weight decay."""

    name: ClassVar[str] = "resnet18"
    document: ClassVar[Document] = Document("torch.nn", "a residual network", "CIFAR-10")
    model: ClassVar[str] = "ResNet-18 with a 3 x 3 stem, 4 to 32 channels"
    objective: ClassVar[str] = "CrossEntropyLoss"
    update: ClassVar[str] = "SGD with momentum 0.9, weight decay 5e-4"
    sized_by: ClassVar[tuple[str, ...]] = ("width", "scale", "batch_size")
    draws: ClassVar[bool] = False
    separable: ClassVar[bool] = False

    width: int = 4
    """Channels of the first stage; each of the others has twice as many as the one before."""
    scale: int = 1
    """How many times the digits' 8 x 8 pixels are enlarged; 4 for CIFAR's 32 x 32."""
    batch_size: int = 16
    """Images an update."""
    learning_rate: float = 0.005
    """SGD's step size."""
    momentum: float = 0.9
    """The share of the last step that is made again."""
    weight_decay: float = 5e-4
    """The share of each parameter that is added to its gradient."""

    def entries(self) -> tuple[int, int]:
        parameters = 2730 * self.width**2  # all but what the norms and the classifier have
        # the stem and its norm, in the blocks two of each, half as much from stage to stage
        pixels = (8 * self.scale) ** 2 * self.width
        return parameters, min(self.batch_size, TRAIN) * 2 * pixels * (1 + 4 + 2 + 1)

    @cached_property
    def images(self) -> tuple[FloatArray, np.ndarray]:
        """The digits (N, 3, H, W) in three channels, shifted as CIFAR's are, and labels (N,)."""
        digits, labels = small_digits()
        large = np.kron(digits, np.ones((self.scale, self.scale)))[:, None]
        mean, std = (np.array(each)[:, None, None] for each in (_MEAN, _STD))
        return ((large - mean) / std).astype(self.dtype), labels

    def samples(self) -> Arrays:
        images, labels = self.images
        return {"images": images[:TRAIN], "labels": labels[:TRAIN]}

    def test_set(self) -> tuple[np.ndarray, np.ndarray]:
        images, labels = self.images
        return images[TRAIN:], labels[TRAIN:]

    def draw_params(self, generator: TorchGenerator) -> Arrays:
        params: dict[str, FloatArray] = {}

        def draw(name: str, norm: str, inputs: int, outputs: int, size: int = 3) -> None:
            """A convolution, and the norm behind it."""
            drawn = conv(generator, inputs, outputs, (size, size), bias=False, dtype=self.dtype)
            params.update(under(name, drawn))
            params.update(under(norm, batch_norm(outputs, dtype=self.dtype)))

        draw("conv1", "bn1", 3, self.width)
        inputs = self.width
        for stage in range(4):
            channels = self.width << stage
            for block in range(2):
                at = f"layer{stage + 1}.{block}"
                draw(f"{at}.conv1", f"{at}.bn1", inputs, channels)
                draw(f"{at}.conv2", f"{at}.bn2", channels, channels)
                if inputs != channels:
                    draw(f"{at}.shortcut.0", f"{at}.shortcut.1", inputs, channels, size=1)
                inputs = channels
        return {**params, **under("fc", linear(generator, inputs, 10, dtype=self.dtype))}
