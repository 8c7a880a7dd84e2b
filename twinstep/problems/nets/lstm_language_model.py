"""A recurrent language model: character by character an LSTM learns to count in words."""

from dataclasses import dataclass
from typing import ClassVar

from twinstep.problems.base import Arrays, Document
from twinstep.problems.nets.base import ModelTraining, under
from twinstep.problems.nets.data import counting, next_tokens
from twinstep.problems.torch_init import embedding, linear, recurrent
from twinstep.problems.torch_random import TorchGenerator


@dataclass(frozen=True, kw_only=True)
class LstmLanguageModel(ModelTraining):
    """An embedding, two layers of LSTM, a linear decoder, dropout between all of them, Adam."""

    name: ClassVar[str] = "lstm_language_model"
    document: ClassVar[Document] = Document("torch.nn", "an LSTM", "language model")
    model: ClassVar[str] = "Embedding(19, 16), LSTM(16, 32, 2 layers), Linear(32, 19), dropout"
    objective: ClassVar[str] = "cross entropy"
    update: ClassVar[str] = "Adam"
    sized_by: ClassVar[tuple[str, ...]] = (
        "embedding_size", "hidden_size", "layers", "window", "batch_size",
    )  # fmt: skip

    embedding_size: int = 16
    """Numbers that a character is."""
    hidden_size: int = 32
    """Hidden units of a layer."""
    layers: int = 2
    """Of the LSTM."""
    window: int = 24
    """Characters that are read from a state of zeros."""
    dropout: float = 0.2
    """What part is dropped, before each layer and behind the last."""
    learning_rate: float = 1e-2
    """Adam's step size."""

    @property
    def tokens(self) -> int:
        """Different characters of the text."""
        return len(counting()[1])

    def entries(self) -> tuple[int, int]:
        hidden, embedded = self.hidden_size, self.embedding_size
        lstm = 4 * hidden * (embedded + hidden + 2 + (self.layers - 1) * (2 * hidden + 2))
        parameters = lstm + self.tokens * (embedded + hidden + 1)
        return parameters, self.batch_size * self.window * self.layers * 6 * hidden

    def samples(self) -> Arrays:
        return next_tokens(counting()[0], self.window)

    def draw_params(self, generator: TorchGenerator) -> Arrays:
        embedded, hidden, dtype = self.embedding_size, self.hidden_size, self.dtype
        encoder = embedding(generator, self.tokens, embedded, dtype=dtype)
        lstm = recurrent(generator, embedded, hidden, gates=4, num_layers=self.layers, dtype=dtype)
        decoder = linear(generator, hidden, self.tokens, dtype=dtype)
        return {**under("encoder", encoder), **under("lstm", lstm), **under("decoder", decoder)}
