"""A small transformer that translates: from a number's digits to its words in English."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from twinstep.errors import InputError
from twinstep.problems.base import Arrays, Document
from twinstep.problems.nets.base import ModelTraining, under
from twinstep.problems.nets.data import number_words
from twinstep.problems.nets.transformers import transformer, with_new_matrices
from twinstep.problems.torch_init import embedding, linear
from twinstep.problems.torch_random import TorchGenerator

PAD, START, END = 0, 1, 2
"""The tokens that are no digits and no words; of a source, PAD alone."""
_NUMBERS = 1000
_DIGITS = 11  # and PAD
_WORDS = [text.split() for text in map(number_words, range(_NUMBERS))]
_VOCABULARY = sorted({word for words in _WORDS for word in words})


def translations() -> dict[str, NDArray[np.int64]]:
    """The numbers below 1000 as tokens, padded.

    Returns:
        {"source": (1000, 3), digits, "target": (1000, 6), words between START and END}
    """
    tokens = {word: END + 1 + i for i, word in enumerate(_VOCABULARY)}
    sources = [[1 + int(digit) for digit in str(number)] for number in range(_NUMBERS)]
    targets = [[START, *(tokens[word] for word in words), END] for words in _WORDS]
    return {"source": _padded(sources), "target": _padded(targets)}


def _padded(rows: list[list[int]]) -> NDArray[np.int64]:
    """(rows, the longest one's length)"""
    longest = max(map(len, rows))
    return np.array([row + [PAD] * (longest - len(row)) for row in rows])


@dataclass(frozen=True, kw_only=True)
class Seq2SeqTransformer(ModelTraining):
    """nn.Transformer between embeddings with sinusoids and a linear layer, masks, Adam."""

    name: ClassVar[str] = "seq2seq_transformer"
    document: ClassVar[Document] = Document("torch.nn", "a transformer", "translation")
    model: ClassVar[str] = "Transformer(1 encoder, 1 decoder layer, 2 heads, width 32), dropout"
    objective: ClassVar[str] = "cross entropy without padding"
    update: ClassVar[str] = "Adam"
    sized_by: ClassVar[tuple[str, ...]] = ("layers", "width", "hidden_size", "batch_size")

    layers: int = 1
    """Of the encoder, and of the decoder."""
    heads: int = 2
    """Of attention, a layer."""
    width: int = 32
    """Numbers that a token is."""
    hidden_size: int = 64
    """Numbers that it is between a layer's linear layers."""
    dropout: float = 0.1
    """What part is dropped."""
    learning_rate: float = 3e-3
    """Adam's step size."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Adam's decay of the gradient's first and second moment."""
    eps: float = 1e-9
    """Adam's, beside the root of the second moment."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % 2 or self.width % self.heads:
            raise InputError(
                f"{self.name}: width is {self.width}, expected an even multiple of heads, "
                f"{self.heads}"
            )

    @property
    def source_tokens(self) -> int:
        """Different tokens of a source."""
        return _DIGITS

    @property
    def target_tokens(self) -> int:
        """Different tokens of a target."""
        return END + 1 + len(_VOCABULARY)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence that is read."""
        return max(map(len, _WORDS)) + 1  # START, or END

    def entries(self) -> tuple[int, int]:
        width, hidden, words = self.width, self.hidden_size, self.target_tokens
        linears = 2 * (2 * width * hidden + hidden + width)
        layer = 3 * 4 * width * (width + 1) + linears + 5 * 2 * width
        around = width * (_DIGITS + words) + words * (width + 1) + 4 * width
        step = self.longest * (3 * self.heads * self.longest + 20 * width + 2 * hidden)
        return self.layers * layer + around, self.batch_size * self.layers * step

    def samples(self) -> Arrays:
        return translations()

    def draw_params(self, generator: TorchGenerator) -> Arrays:
        width, dtype = self.width, self.dtype
        words = self.target_tokens
        params = {
            **under(
                "transformer",
                transformer(
                    generator, width, self.hidden_size, self.layers, self.layers, dtype=dtype
                ),
            ),
            **under("generator", linear(generator, width, words, dtype=dtype)),
            **under("source_embedding", embedding(generator, _DIGITS, width, dtype=dtype)),
            **under("target_embedding", embedding(generator, words, width, dtype=dtype)),
        }
        return with_new_matrices(generator, params)
