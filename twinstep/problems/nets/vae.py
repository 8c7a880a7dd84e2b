"""A variational autoencoder of handwritten digits."""

from dataclasses import dataclass
from typing import ClassVar

from twinstep.problems.base import Arrays, Document
from twinstep.problems.nets.base import ModelTraining, under
from twinstep.problems.nets.data import small_digits
from twinstep.problems.torch_init import linear
from twinstep.problems.torch_random import TorchGenerator

PIXELS = 8 * 8


@dataclass(frozen=True, kw_only=True)
class VariationalAutoencoder(ModelTraining):
    """An encoder to mean and log variance, a draw of the normal distribution, a decoder, Adam."""

    name: ClassVar[str] = "vae"
    document: ClassVar[Document] = Document("torch.nn", "a variational autoencoder", "8 x 8 digits")
    model: ClassVar[str] = "Linear(64, 32), twice Linear(32, 8), Linear(8, 32), Linear(32, 64)"
    objective: ClassVar[str] = "binary_cross_entropy, summed, and the KL divergence"
    float64_alone: ClassVar[bool] = True
    update: ClassVar[str] = "Adam"
    sized_by: ClassVar[tuple[str, ...]] = ("hidden_size", "latent_size", "batch_size")

    hidden_size: int = 32
    """Of encoder and decoder."""
    latent_size: int = 8
    """Numbers that stand for an image."""
    learning_rate: float = 1e-3
    """Adam's step size."""

    def entries(self) -> tuple[int, int]:
        parameters = self.hidden_size * (2 * PIXELS + 3 * self.latent_size)
        return parameters, self.batch_size * (2 * self.hidden_size + PIXELS + 3 * self.latent_size)

    def samples(self) -> Arrays:
        images, _ = small_digits()
        return {"images": images.reshape(-1, PIXELS)}

    def draw_params(self, generator: TorchGenerator) -> Arrays:
        hidden, latent = self.hidden_size, self.latent_size
        sizes = {
            "encoder": (PIXELS, hidden),
            "mean": (hidden, latent),
            "log_variance": (hidden, latent),
            "decoder": (latent, hidden),
            "output": (hidden, PIXELS),
        }
        params: Arrays = {}
        for name, (inputs, outputs) in sizes.items():
            drawn = linear(generator, inputs, outputs, dtype=self.dtype)
            params = {**params, **under(name, drawn)}
        return params
