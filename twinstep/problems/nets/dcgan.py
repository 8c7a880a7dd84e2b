"""A generative adversarial network of convolutions on handwritten digits."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from twinstep.problems.base import Arrays, Document
from twinstep.problems.nets.base import ModelTraining, under
from twinstep.problems.nets.data import small_digits
from twinstep.problems.torch_init import conv
from twinstep.problems.torch_random import TorchGenerator


@dataclass(frozen=True, kw_only=True)
class Dcgan(ModelTraining):
    """Two networks, of convolutions and their transposes, each with an Adam of its own."""

    name: ClassVar[str] = "dcgan"
    document: ClassVar[Document] = Document("torch.nn", "a convolutional GAN", "8 x 8 digits")
    model: ClassVar[str] = "three ConvTranspose2d against three Conv2d, BatchNorm2d in both"
    objective: ClassVar[str] = "BCELoss of real and of made images"
    update: ClassVar[str] = "Adam for each, in turn"
    separable: ClassVar[bool] = False
    sized_by: ClassVar[tuple[str, ...]] = ("width", "noise_size", "batch_size")

    width: int = 8
    """Channels of the layers next to the images; the others have twice or four times as many."""
    noise_size: int = 8
    """Numbers that an image is made of."""
    learning_rate: float = 2e-4
    """The step size of both."""
    betas: tuple[float, float] = (0.5, 0.999)
    """The decay rates of both."""

    def entries(self) -> tuple[int, int]:
        width = self.width
        parameters = width * (16 * self.noise_size + 160 * width + 40)
        return parameters, self.batch_size * 2 * (64 * width + 64)

    def samples(self) -> Arrays:
        images, _ = small_digits()
        return {"images": 2 * images[:, None] - 1}  # as tanh has them

    def draw_params(self, generator: TorchGenerator) -> Arrays:
        width = self.width
        # what is made of noise, (inputs, outputs, kernel) of its layers in its order of drawing
        making = (self.noise_size, 4 * width, 2), (4 * width, width, 4), (width, 1, 4)
        judging = (1, width, 4), (width, 2 * width, 4), (2 * width, 1, 2)
        makes = self._network(generator, making, transposed=True, normed=(0, 1))
        judges = self._network(generator, judging, transposed=False, normed=(1,))
        return {**under("generator", makes), **under("discriminator", judges)}

    def _network(
        self,
        generator: TorchGenerator,
        layers: tuple[tuple[int, int, int], ...],
        *,
        transposed: bool,
        normed: tuple[int, ...],
    ) -> Arrays:
        """First what the constructors draw, which is lost, then what stands in its place."""
        for inputs, outputs, kernel in layers:
            conv(generator, inputs, outputs, (kernel, kernel), bias=False, dtype=self.dtype)
        params, at = {}, 0
        for i, (inputs, outputs, kernel) in enumerate(layers):
            channels = (inputs, outputs) if transposed else (outputs, inputs)
            shape = (*channels, kernel, kernel)
            params[f"main.{at}.weight"] = generator.normal(shape, 0.0, 0.02, self.dtype)
            if i in normed:
                drawn = generator.normal((outputs,), 1.0, 0.02, self.dtype)
                params[f"main.{at + 1}.weight"] = drawn
                params[f"main.{at + 1}.bias"] = np.zeros(outputs, self.dtype)
            at += 3 if i in normed else 2
        return params
