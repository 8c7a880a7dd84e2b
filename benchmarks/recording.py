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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import torch
from torch import nn

import twinstep.jax
from twinstep.jax import watch
from twinstep.jax.outside.recorder import record_program
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


class Training(NamedTuple):
    """A network in JAX: its sizes, (samples, features), and the optimizer."""

    sizes: tuple[int, ...]
    samples: int
    tx: optax.GradientTransformation

    def start(self) -> tuple[Any, Any]:
        keys = jax.random.split(jax.random.key(0), len(self.sizes))
        params = {
            str(i): jax.random.normal(key, shape) / 4
            for i, (key, shape) in enumerate(
                zip(keys, itertools.pairwise(self.sizes), strict=False)
            )
        }
        return params, self.tx.init(params)

    def step(self, state: Any, batch: Any) -> Any:
        def loss_fn(params: Any) -> jax.Array:
            hidden, y = batch
            for i in range(len(params)):
                hidden = jnp.tanh(hidden @ params[str(i)])
            return jnp.mean((hidden - y) ** 2)

        params, opt_state = state
        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = self.tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    def batch(self) -> tuple[jax.Array, jax.Array]:
        x = jax.random.normal(jax.random.key(1), (self.samples, self.sizes[0]))
        return x, jnp.ones((self.samples, self.sizes[-1]))


def loop_seconds(watched: bool, steps: int = 200) -> float:
    """Seconds of some compiled steps of Adam on 0.6 million parameters, after one that warms up."""
    tx = optax.adam(1e-3)
    training = Training((256, 512, 512, 256), 256, watch(tx) if watched else tx)
    step = jax.jit(training.step, donate_argnums=0)
    state, batch = training.start(), training.batch()
    state, loss = step(state, batch)
    jax.block_until_ready(loss)
    start = time.perf_counter()
    for _ in range(steps):
        state, loss = step(state, batch)
        jax.block_until_ready(loss)
    return time.perf_counter() - start


def outside_seconds() -> float:
    """The same, recorded as `python -m twinstep.jax` does."""
    with tempfile.TemporaryDirectory() as folder, record_program(out=f"{folder}/trace"):
        return loop_seconds(False)


def scan_seconds(watched: bool, ledger: bool = False, steps: int = 2000) -> float:
    """Seconds of steps of Adam on a small network, in one compiled scan; the second of two.

    ledger: whether all of them are stacked and recorded
    """
    tx = optax.adam(1e-3)
    training = Training((16, 32, 32, 1), 64, watch(tx) if watched else tx)
    batch = training.batch()

    @jax.jit
    def train(state: Any) -> Any:
        def body(state: Any, _: Any) -> Any:
            state, loss = training.step(state, batch)
            return state, (*state, loss) if ledger else loss

        return jax.lax.scan(body, state, None, length=steps)

    def run() -> None:
        state = training.start()
        _, left = train(state)
        if not ledger:
            jax.block_until_ready(left)
            return
        with twinstep.jax.record(state[0]) as rec:
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
        "JAX, watch in a loop of compiled steps": 1.05,
        "JAX, the same recorded from outside": None,
        "JAX, watch in a scan": 1.15,
        "JAX, a scan's stacked ledger": 2.7,
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
        loop, scan = loop_seconds(False), scan_seconds(False)
        ratios["JAX, watch in a loop of compiled steps"].append(loop_seconds(True) / loop)
        ratios["JAX, the same recorded from outside"].append(outside_seconds() / loop)
        ratios["JAX, watch in a scan"].append(scan_seconds(True) / scan)
        ratios["JAX, a scan's stacked ledger"].append(scan_seconds(True, ledger=True) / scan)
    for name, found in ratios.items():
        middle, bound = statistics.median(found), asked[name]
        said = "" if bound is None else f", asked at most {bound}"
        print(f"{name}: {middle:.2f} ({min(found):.2f} to {max(found):.2f}){said}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
