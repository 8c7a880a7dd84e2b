"""A small vision transformer for handwritten digits of 8 x 8 pixels."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from twinstep.errors import InputError
from twinstep.problems.base import Arrays, Document
from twinstep.problems.nets.base import ModelTraining, under
from twinstep.problems.nets.data import small_digits
from twinstep.problems.nets.transformers import transformer_layer, transformer_stack
from twinstep.problems.torch_init import conv, linear
from twinstep.problems.torch_random import FloatArray, TorchGenerator

_SIDE = 8  # pixels
_TRAINED_ON = 1500  # of the 1797 digits; it is tested on the others


class Digits(NamedTuple):
    """Images (N, 8, 8) in 0 to 1 and labels (N,), of training and test."""

    train_images: FloatArray
    train_labels: NDArray[np.int64]
    test_images: FloatArray
    test_labels: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class VisionTransformer(ModelTraining):
    """Patches by a convolution, a class token, two encoder layers that normalize first, AdamW."""

    name: ClassVar[str] = "vision_transformer"
    document: ClassVar[Document] = Document("torch.nn", "a vision transformer", "8 x 8 digits")
    model: ClassVar[str] = "ViT(patches of 2 x 2, 2 layers, 4 heads, width 32), dropout"
    objective: ClassVar[str] = "cross entropy"
    update: ClassVar[str] = "AdamW"
    sized_by: ClassVar[tuple[str, ...]] = ("layers", "width", "hidden_size", "batch_size")

    patch_size: int = 2
    """Pixels of a patch's side."""
    layers: int = 2
    """Of the encoder."""
    heads: int = 4
    """Of attention, a layer."""
    width: int = 32
    """Numbers that a patch is."""
    hidden_size: int = 64
    """Numbers that it is between a layer's linear layers."""
    dropout: float = 0.1
    """What part is dropped."""
    learning_rate: float = 5e-3
    """AdamW's step size."""
    weight_decay: float = 0.05
    """AdamW's, of all parameters."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise InputError(
                f"{self.name}: width is {self.width}, expected a multiple of heads, {self.heads}"
            )
        if _SIDE % self.patch_size:
            raise InputError(
                f"{self.name}: patch_size is {self.patch_size}, expected a divisor of {_SIDE}"
            )

    @property
    def places(self) -> int:
        """Patches of an image, and the class token."""
        return (_SIDE // self.patch_size) ** 2 + 1

    def entries(self) -> tuple[int, int]:
        width, hidden = self.width, self.hidden_size
        layer = 4 * width * (width + 1) + 2 * width * hidden + hidden + 5 * width
        around = width * (self.patch_size**2 + 1 + 1 + self.places + 2 + 10) + 10
        step = self.places * (self.heads * self.places + 8 * width + 2 * hidden)
        return self.layers * layer + around, self.batch_size * self.layers * step

    @cached_property
    def digits(self) -> Digits:
        """The training and the test images."""
        images, labels = small_digits()
        first, last = slice(_TRAINED_ON), slice(_TRAINED_ON, None)
        images = images.astype(self.dtype)
        return Digits(images[first], labels[first], images[last], labels[last])

    def samples(self) -> Arrays:
        return {"images": self.digits.train_images, "labels": self.digits.train_labels}

    def test_set(self) -> tuple[np.ndarray, np.ndarray] | None:
        return self.digits.test_images, self.digits.test_labels

    def draw_params(self, generator: TorchGenerator) -> Arrays:
        width, patch, dtype = self.width, (self.patch_size, self.patch_size), self.dtype
        class_token = generator.randn(1, 1, width, dtype=dtype)
        position = generator.randn(1, self.places, width, dtype=dtype)
        patches = conv(generator, 1, width, patch, dtype=dtype)
        layer = transformer_layer(generator, width, self.hidden_size, "self_attn", dtype=dtype)
        return {
            "class_token": class_token,
            "position": position,
            **under("patches", patches),
            **under("encoder", transformer_stack(layer, self.layers)),
            **under("head", linear(generator, width, 10, dtype=dtype)),
        }
