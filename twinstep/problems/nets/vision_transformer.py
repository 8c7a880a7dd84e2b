"""A small vision transformer for handwritten digits of 8 x 8 pixels."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from twinstep.errors import InputError
from twinstep.problems.base import Arrays, Document
from twinstep.problems.nets.base import ModelTraining, under
from twinstep.problems.nets.data import small_digits
from twinstep.problems.nets.transformers import transformer_layer, transformer_stack
from twinstep.problems.torch_init import conv, linear
from twinstep.problems.torch_random import TorchGenerator

_SIDE = 8  # pixels
_TRAINED_ON = 1500  # of the 1797 digits; it is tested on the others


@dataclass(frozen=True, kw_only=True)
class VisionTransformer(ModelTraining):
    """Patches by a convolution, a class token, two encoder layers that normalize first, AdamW."""

    name: ClassVar[str] = "vision_transformer"
    document: ClassVar[Document] = Document("model", "a vision transformer", "8 x 8 digits")
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

    def samples(self) -> Arrays:
        images, labels = small_digits()
        return {"images": images[:_TRAINED_ON], "labels": labels[:_TRAINED_ON]}

    def test_set(self) -> tuple[np.ndarray, np.ndarray] | None:
        images, labels = small_digits()
        return images[_TRAINED_ON:].astype(self.dtype), labels[_TRAINED_ON:]

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
