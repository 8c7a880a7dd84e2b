"""Draws as they are easily written wrong: each fault changes the source of PyTorch's stream."""

import inspect
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers.torch_loaders import apart

from faults.plants_anywhere import Table, altered, each
from twinstep.problems import (
    torch_engine,
    torch_loader,
    torch_multinomial,
    torch_random,
    torch_rounding,
    torch_samplers,
)


def _loader_order(n: int, **options: Any) -> np.ndarray:
    """The samples of two epochs."""
    data = torch.utils.data.TensorDataset(torch.arange(n))
    loader = torch.utils.data.DataLoader(data, 7, shuffle=True, **options)
    return np.concatenate([batch.numpy() for _ in range(2) for (batch,) in loader])


def _our_order(default_generator: Any, n: int, **options: Any) -> np.ndarray:
    home = sys.modules["twinstep.problems.torch_loader"]  # which may be an altered one
    loader = home.TorchDataLoader(
        n, 7, shuffle=True, default_generator=default_generator, **options
    )
    return np.concatenate([batch for _ in range(2) for batch in loader])


FLOAT64 = torch.float64
WEIGHTS = np.random.RandomState(0).rand(2, 20)
DRAWS: dict[str, tuple[Callable[[Any], Any], Callable[[], Any]]] = {
    "rand, float32": (lambda g: g.rand(9), lambda: torch.rand(9)),
    "rand, float64": (lambda g: g.rand(9, dtype="float64"), lambda: torch.rand(9, dtype=FLOAT64)),
    "uniform": (
        lambda g: g.uniform((5000,), -0.3, 0.8),
        lambda: torch.empty(5000).uniform_(-0.3, 0.8),
    ),
    "randn, 9": (lambda g: g.randn(9), lambda: torch.randn(9)),
    "randn, 40": (lambda g: g.randn(40, dtype="float64"), lambda: torch.randn(40, dtype=FLOAT64)),
    "randn twice, 3": (
        lambda g: [g.randn(3), g.rand(2), g.randn(3)][-1],
        lambda: [torch.randn(3), torch.rand(2), torch.randn(3)][-1],
    ),
    "randn, 1000": (lambda g: g.randn(1000), lambda: torch.randn(1000)),
    "randn, bfloat16": (
        lambda g: g.randn(40, dtype="bfloat16"),
        lambda: torch.randn(40, dtype=torch.bfloat16).float(),
    ),
    "rand, bfloat16": (
        lambda g: g.rand(300_000, dtype="bfloat16"),
        lambda: torch.rand(300_000, dtype=torch.bfloat16).float(),
    ),
    "rand, float16": (
        lambda g: g.rand(20_000, dtype="float16"),
        lambda: torch.rand(20_000, dtype=torch.float16),
    ),
    "randn, complex128": (
        lambda g: g.randn(9, dtype="complex128"),
        lambda: torch.randn(9, dtype=torch.complex128),
    ),
    "normal, 3": (
        lambda g: g.normal((12,), 0.7, 0.3, "float64"),
        lambda: torch.empty(12, dtype=FLOAT64).normal_(0.7, 0.3),
    ),
    "exponential": (
        lambda g: g.exponential((50,), 0.7),
        lambda: torch.empty(50).exponential_(0.7),
    ),
    "randint": (
        lambda g: [g.randint(-9, 2**28 - 9, (9,)), g.rand(1)][-1],
        lambda: [torch.randint(-9, 2**28 - 9, (9,)), torch.rand(1)][-1],
    ),
    "randint, negative": (
        lambda g: g.randint(-9, 9, (9,)),
        lambda: torch.randint(-9, 9, (9,)),
    ),
    "multinomial": (
        lambda g: g.multinomial(WEIGHTS, 9),
        lambda: torch.multinomial(torch.tensor(WEIGHTS), 9),
    ),
    "multinomial, replaced": (
        lambda g: g.multinomial(WEIGHTS, 99, True),
        lambda: torch.multinomial(torch.tensor(WEIGHTS), 99, True),
    ),
    "multinomial, one": (
        lambda g: g.multinomial(WEIGHTS, 1, True),
        lambda: torch.multinomial(torch.tensor(WEIGHTS), 1, True),
    ),
    "state": (
        lambda g: [g.randn(3), g.get_state()][-1],
        lambda: [torch.randn(3), torch.get_rng_state()][-1],
    ),
    "state, unused": (lambda g: g.get_state(), torch.get_rng_state),
    "randperm": (lambda g: g.randperm(50), lambda: torch.randperm(50)),
    "bernoulli": (lambda g: g.bernoulli((200,), 0.3), lambda: torch.empty(200).bernoulli_(0.3)),
    "epoch": (lambda g: _our_order(g, 50), lambda: _loader_order(50)),
    "epoch, workers": (
        lambda g: _our_order(g, 50, num_workers=1, persistent_workers=True),
        lambda: np.array(apart("order", "70001")[0].split(), int),
    ),
    "epoch, generator": (
        lambda g: _our_order(g, 50, generator=g),
        lambda: _loader_order(50, generator=torch.default_generator),
    ),
}

IN_DRAWS: Table = {
    "rand, float32": {
        "seed cut to 16 bits": ("self._seed & 0xFFFFFFFF", "self._seed & 0xFFFF"),
        "one bit more in float32": ("(2**24 - 1)", "(2**25 - 1)"),
    },
    "rand, float64": {
        "words in the other order": (
            "words[::2] << np.uint64(32) | words[1::2]",
            "words[1::2] << np.uint64(32) | words[::2]",
        ),
        "52 bits in float64": ("(2**53 - 1)", "(2**52 - 1)"),
    },
    "uniform": {
        "range not shifted": ("span, bottom)", "span, 0 * bottom)"),
        "product and sum rounded apart": (
            "fma(self._uniforms(count, wide), span, bottom)",
            "self._uniforms(count, wide) * span + bottom",
        ),
    },
    "randn, 9": {
        "sine first": ("return radius * math.cos(angle)", "return radius * math.sin(angle)"),
        "log of u, not of 1 - u": ("math.log1p(-u2)", "math.log(u2)"),
        "radius and angle exchanged": ("u1, u2 = self._uniforms(2", "u2, u1 = self._uniforms(2"),
        "second normal not kept": ("self._kept_sine = radius", "_ = radius"),
    },
    "randn twice, 3": {
        "kept normal lost by other draws": (
            "count, limit, wide = _count",
            "self._kept_sine = None; count, limit, wide = _count",
        ),
    },
    "randn, 40": {
        "blocks from 17 on": ("count < 16", "count < 17 or count == 40"),
        "last values not drawn anew": (
            "values[-16:] = box_muller(self._uniforms(16, wide), mean, std)",
            "values[whole:] = box_muller(self._uniforms(16, wide), mean, std)[: count - whole]",
        ),
        "sines before cosines": (
            "[radius * cosine, radius * sine]",
            "[radius * sine, radius * cosine]",
        ),
    },
    "randn, 1000": {
        "a logarithm's last coefficient": ("3.3333331174e-1", "3.3333334e-1"),
        "a quarter of pi in two parts": (
            "2.4187564849853516e-4, 3.774894977445941e-8",
            "2.4191339744e-4, 0.0",
        ),
    },
    "randperm": {
        "the last never drawn": ("np.arange(n, 1, -1, dtype", "np.arange(n - 1, 0, -1, dtype"),
    },
    "bernoulli": {
        "bernoulli compared in float32": (
            '(self._uniforms(count, "float64") < p)',
            '(self._uniforms(count, "float32") < p)',
        ),
        "bernoulli's complement": ('"float64") < p)', '"float64") >= p)'),
    },
    "randn, bfloat16": {
        "what is over drawn, too": ("count if dtype == wide else whole", "count"),
    },
    "rand, bfloat16": {
        "ties to zero": ("0x7FFF) + (bits >> 16 & 1)", "0x7FFF)"),
    },
    "rand, float16": {
        "1 left where rounding reached it": ("values[values == last] = first", "pass"),
    },
    "randn, complex128": {
        "the whole variance in each part": ("std / math.sqrt(2)", "std"),
    },
    "normal, 3": {
        "rounded before the mean is added": (
            "fma(normals, np.float64(std), np.float64(mean))",
            "normals * std + mean",
        ),
    },
    "exponential": {
        "log of u": ("libm(math.log1p, -self", "libm(math.log, self"),
    },
    "randint": {
        "one word at the boundary": ("span < 2**28", "span <= 2**28"),
    },
    "randint, negative": {
        "no lowest number": ("+ np.array(int(low)).astype(np.uint64)", ""),
    },
    "multinomial": {
        "smallest first": ("np.argsort(-scores", "np.argsort(scores"),
        "one draw for all rows": (
            "self.exponential(rows.shape,",
            "self.exponential(rows.shape[1:],",
        ),
    },
    "multinomial, replaced": {
        "sums not divided by the last": ("sums /= sums[:, -1:]", "pass"),
    },
    "multinomial, one": {
        "one sample by sums": ("if replacement and num_samples > 1:", "if replacement:"),
    },
    "state": {
        "the kept sine left out": ('state["normal_y"], state', 'state["normal_x"], state'),
        "how many are left, one less": ("(625 - position, position)", "(624 - position, position)"),
    },
    "state, unused": {
        "a fresh state as if used up": ("(1, 0) if unused else", "(1, 624) if unused else"),
    },
    "epoch": {
        "no base seed for the workers": ("self.base_seed = self._stream.random_int64()", "pass"),
        "a base seed once in all": ("or not self._persistent", ""),
    },
    "epoch, workers": {
        "a base seed each time": ("self.base_seed is None or not self._persistent", "True"),
    },
    "epoch, generator": {
        "a seed of its own": ("self._seeds_anew = generator is None", "self._seeds_anew = True"),
        "the last order not drawn": ("if rest or not self._seeds_anew:", "if rest:"),
    },
}


MODULES = (  # in the order of their imports
    torch_rounding,
    torch_engine,
    torch_multinomial,
    torch_random,
    torch_samplers,
    torch_loader,
)


def drawn(generator: type, name: str) -> bool:
    """Whether a generator draws what PyTorch draws."""
    ours, theirs = DRAWS[name]
    torch.manual_seed(70_001)
    return np.array_equal(np.asarray(ours(generator(70_001))), np.asarray(theirs()))


@each(IN_DRAWS)
def test_wrong_draw_is_seen(seen: str, old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(torch_random.TorchGenerator, seen)
    assert any(old in inspect.getsource(module) for module in MODULES), old
    for module in MODULES:  # each from what is in the place of those before it
        text = old if old in inspect.getsource(module) else ""
        monkeypatch.setitem(
            sys.modules, module.__name__, altered(module, text, new if text else "")
        )
    assert not drawn(sys.modules[torch_random.__name__].TorchGenerator, seen)
