"""What recording a loop of one's own costs: a ratio to the same loop unrecorded, taken in turns.

`python benchmarks/recording.py` takes some minutes. A figure is the median of the turns' ratios,
the smallest and the largest stand beside it.
"""

import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
import torch
from torch import nn

import twinstep.jax
from twinstep.jax import watch
from twinstep.torch import record

TURNS = 5
Recording = Callable[[nn.Module], AbstractContextManager[Any]]


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


def torch_seconds(recording: Recording, steps: int = 4) -> float:
    """Seconds of some steps of AdamW on the transformer, after one that warms up."""
    model = Transformer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    words = torch.randint(512, (8, 65))

    def step() -> None:
        output = model(words[:, :-1])
        loss = nn.functional.cross_entropy(output.flatten(0, 1), words[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    with recording(model):
        step()
        start = time.perf_counter()
        for _ in range(steps):
            step()
        return time.perf_counter() - start


def jax_seconds(recorded: bool, steps: int = 2000) -> float:
    """Seconds of some steps of Adam on a small network, in one compiled scan; the second of two."""
    tx = watch(optax.adam(1e-3)) if recorded else optax.adam(1e-3)
    sizes = (16, 32, 32, 1)
    keys = jax.random.split(jax.random.key(0), len(sizes))
    params = {
        str(i): jax.random.normal(key, shape) / 4
        for i, (key, shape) in enumerate(zip(keys, itertools.pairwise(sizes), strict=False))
    }
    x, y = jax.random.normal(keys[-1], (64, 16)), jnp.ones((64, 1))

    def loss_fn(params: Any) -> jax.Array:
        hidden = x
        for i in range(len(params)):
            hidden = jnp.tanh(hidden @ params[str(i)])
        return jnp.mean((hidden - y) ** 2)

    @jax.jit
    def train(params: Any, opt_state: Any) -> Any:
        def body(state: Any, _: Any) -> Any:
            params, opt_state = state
            loss, grads = jax.value_and_grad(loss_fn)(params)
            updates, opt_state = tx.update(grads, opt_state, params)
            params = optax.apply_updates(params, updates)
            return (params, opt_state), (params, opt_state, loss) if recorded else loss

        return jax.lax.scan(body, (params, opt_state), None, length=steps)

    def run() -> None:
        _, left = train(params, tx.init(params))
        if not recorded:
            jax.block_until_ready(left)
            return
        with twinstep.jax.record(params) as rec:
            stacked, opt_state, losses = left
            rec.steps(loss=losses, params=stacked, opt_state=opt_state)

    run()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> int:
    """Takes the figures in turns and prints them."""
    torch.set_num_threads(1)
    asked = {
        "given gradients and parameters": 1.15,
        "with raw gradients and optimizer state": 1.4,
        "the same, written to disk": None,
        "a scan's stacked ledger": 2.7,
    }
    ratios: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(TURNS):
        plain = torch_seconds(lambda model: nullcontext())
        few = partial(record, raw_grads=False, opt_state=False)
        with tempfile.TemporaryDirectory() as folder:
            kept = partial(record, out=f"{folder}/trace")
            recordings: list[Recording] = [few, record, kept]
            for name, recording in zip(asked, recordings, strict=False):
                ratios[name].append(torch_seconds(recording) / plain)
        ratios["a scan's stacked ledger"].append(jax_seconds(True) / jax_seconds(False))
    for name, found in ratios.items():
        middle, bound = statistics.median(found), asked[name]
        said = "" if bound is None else f", asked at most {bound}"
        print(f"{name}: {middle:.2f} ({min(found):.2f} to {max(found):.2f}){said}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
