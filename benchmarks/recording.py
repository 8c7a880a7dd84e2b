"""What recording a loop of one's own costs, as a ratio to the same loop unrecorded, taken in turns.

`python benchmarks/recording.py` takes some minutes. A figure is the median of the turns' ratios; the
quartiles stand beside it.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch import nn

import twinstep.jax
import twinstep.torch

TURNS, STEPS = 7, 8


class Transformer(nn.Module):
    """10 million parameters: 8 causal layers of 320."""

    def __init__(self, words: int = 512, width: int = 320, layers: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        layer = nn.TransformerEncoderLayer(
            width, 8, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, words)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(words.shape[1])
        return self.head(self.layers(self.embedding(words), mask, is_causal=True))


def torch_seconds(recording: Callable[[nn.Module], AbstractContextManager[Any]]) -> float:
    """Seconds of some steps of AdamW on the transformer."""
    model = Transformer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    words = torch.randint(512, (8, 65))

    def steps(count: int) -> None:
        for _ in range(count):
            output = model(words[:, :-1])
            loss = nn.functional.cross_entropy(output.flatten(0, 1), words[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    steps(1)
    with recording(model):
        steps(1)
        start = time.perf_counter()
        steps(STEPS)
        return time.perf_counter() - start
