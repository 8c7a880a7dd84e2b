"""A small GPT: character by character it learns to count in words."""

import math
from dataclasses import dataclass
from typing import ClassVar

from twinstep.errors import InputError
from twinstep.problems.base import Arrays, Document
from twinstep.problems.nets.base import ModelTraining, under
from twinstep.problems.nets.data import counting, next_tokens
from twinstep.problems.torch_init import embedding, layer_norm, linear
from twinstep.problems.torch_random import FloatArray, TorchGenerator

_STD = 0.02


@dataclass(frozen=True, kw_only=True)
class NanoGPT(ModelTraining):
    """Causal self-attention, a tied embedding, decay for matrices alone, cosine, clipping."""

    name: ClassVar[str] = "nano_gpt"
    document: ClassVar[Document] = Document("torch.nn", "a small GPT", "language model")
    model: ClassVar[str] = "GPT(2 layers, 2 heads, width 32), tied embedding, dropout"
    objective: ClassVar[str] = "cross entropy"
    update: ClassVar[str] = "AdamW, cosine, gradients clipped to a norm of 1"
    sized_by: ClassVar[tuple[str, ...]] = ("layers", "width", "block_size", "batch_size")

    batch_size: int = 8
    """Windows an update."""
    layers: int = 2
    """Blocks."""
    heads: int = 2
    """Of attention, a block."""
    width: int = 32
    """Numbers that a token is."""
    block_size: int = 24
    """Tokens of a window."""
    dropout: float = 0.1
    """What part is dropped, in four places."""
    learning_rate: float = 1e-2
    """AdamW's step size when it is warm."""
    warmup: int = 5
    """Updates until then."""
    weight_decay: float = 0.1
    """Of matrices."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay of the gradient's first and second moment."""
    max_norm: float = 1.0
    """Of all gradients, beyond which they are clipped."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise InputError(
                f"{self.name}: width is {self.width}, expected a multiple of heads, {self.heads}"
            )

    @property
    def tokens(self) -> int:
        """Different characters of the text."""
        return len(counting()[1])

    def entries(self) -> tuple[int, int]:
        block = 12 * self.width**2 + 13 * self.width
        parameters = self.layers * block + self.width * (self.tokens + self.block_size + 2)
        attention = self.heads * self.block_size**2
        step = self.batch_size * self.layers * (attention + 12 * self.block_size * self.width)
        return parameters, step

    def samples(self) -> Arrays:
        return next_tokens(counting()[0], self.block_size)

    def rate(self, update: int) -> float:
        """By how much an update's rate is multiplied: a warm-up, then a cosine down to a tenth.

        Args:
            update: Its number, from 0.

        Returns:
            A factor, at most 1.
        """
        if update < self.warmup:
            return (update + 1) / (self.warmup + 1)
        part = (update - self.warmup) / max(1, self.total_steps - self.warmup)
        return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, part)))

    def draw_params(self, generator: TorchGenerator) -> Arrays:
        params = self._constructed(generator)
        # then all matrices are drawn anew, in the order of `apply`, so the tied one twice; and the
        # last of each residual branch once more
        for name, array in params.items():
            if array.ndim == 2:
                params[name] = generator.normal(array.shape, 0.0, _STD, self.dtype)
            elif name.endswith("bias"):
                params[name] = array * 0
        for name, array in params.items():
            if name.endswith("c_proj.weight"):
                scaled = _STD / math.sqrt(2 * self.layers)
                params[name] = generator.normal(array.shape, 0.0, scaled, self.dtype)
        params["transformer.wte.weight"] = params.pop("lm_head.weight")
        return params

    def _constructed(self, generator: TorchGenerator) -> dict[str, FloatArray]:
        """What the layers' constructors draw."""
        width, dtype = self.width, self.dtype

        def dense(inputs: int, outputs: int, bias: bool = True) -> dict[str, FloatArray]:
            return linear(generator, inputs, outputs, bias=bias, dtype=dtype)

        params = {
            **under("transformer.wte", embedding(generator, self.tokens, width, dtype=dtype)),
            **under("transformer.wpe", embedding(generator, self.block_size, width, dtype=dtype)),
        }
        for i in range(self.layers):
            params |= {
                **under(f"transformer.h.{i}.ln_1", layer_norm(width, dtype=dtype)),
                **under(f"transformer.h.{i}.attn.c_attn", dense(width, 3 * width)),
                **under(f"transformer.h.{i}.attn.c_proj", dense(width, width)),
                **under(f"transformer.h.{i}.ln_2", layer_norm(width, dtype=dtype)),
                **under(f"transformer.h.{i}.mlp.c_fc", dense(width, 4 * width)),
                **under(f"transformer.h.{i}.mlp.c_proj", dense(4 * width, width)),
            }
        return {
            **params,
            **under("transformer.ln_f", layer_norm(width, dtype=dtype)),
            **under("lm_head", dense(width, self.tokens, bias=False)),
        }
