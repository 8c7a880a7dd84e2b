"""Draws, problems and schedules as they are easily written wrong: each fault changes their source.

What both frameworks are given is judged by no comparison of the two: it is held against PyTorch's
own. (Optimizers: test_torch_optim_faults.py.)
"""

import importlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import torch
from helpers.torch_schedules import at_once, case, torch_rates, worst
from torch import nn

from faults.plants_anywhere import altered
from twinstep.jax.optim import lr_scheduler
from twinstep.problems import regression, torch_random

pytestmark = pytest.mark.quick_to_compile


Table = dict[str, dict[str, tuple[str, str]]]
"""{where it must show: {what is wrong: (what the source has, what it gets)}}"""


def each(table: Table) -> pytest.MarkDecorator:
    """A test of each row."""
    params = [
        pytest.param(seen, *texts, id=wrong)
        for seen, rows in table.items()
        for wrong, texts in rows.items()
    ]
    return pytest.mark.parametrize(("seen", "old", "new"), params)


def _loader_order(n: int) -> np.ndarray:
    data = torch.utils.data.TensorDataset(torch.arange(n))
    return torch.cat([b for (b,) in torch.utils.data.DataLoader(data, 7, shuffle=True)]).numpy()


FLOAT64 = torch.float64
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
    "randperm": (lambda g: g.randperm(50), lambda: torch.randperm(50)),
    "bernoulli": (lambda g: g.bernoulli((200,), 0.3), lambda: torch.empty(200).bernoulli_(0.3)),
    "epoch": (lambda g: g.shuffled_epoch(50), lambda: _loader_order(50)),
}

IN_DRAWS: Table = {
    "rand, float32": {
        "seed cut to 16 bits": ("seed & 0xFFFFFFFF", "seed & 0xFFFF"),
        "one bit more in float32": ("(2**24 - 1)", "(2**25 - 1)"),
    },
    "rand, float64": {
        "words in the other order": (
            "words[::2] << 32 | words[1::2]",
            "words[1::2] << 32 | words[::2]",
        ),
        "52 bits in float64": ("(2**53 - 1)", "(2**52 - 1)"),
    },
    "uniform": {
        "range not shifted": ("span, bottom)", "span, 0 * bottom)"),
        "product and sum rounded apart": (
            "_fma(self._uniforms(count, dtype), span, bottom)",
            "self._uniforms(count, dtype) * span + bottom",
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
            "return self._uniforms(_count",
            "self._kept_sine = None; return self._uniforms(_count",
        ),
    },
    "randn, 40": {
        "blocks from 17 on": ("count < 16", "count < 17 or count == 40"),
        "last values not drawn anew": (
            "values[-16:] = _box_muller(self._uniforms(16, dtype))",
            "values[whole:] = _box_muller(self._uniforms(16, dtype))[: count - whole]",
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
    "epoch": {
        "no base seed for the workers": ("self.random_int64()  #", "pass  #"),
        "low word first": ("high << 32 | low", "low << 32 | high"),
    },
}


def drawn(generator: type, name: str) -> bool:
    """Whether a generator draws what PyTorch draws."""
    ours, theirs = DRAWS[name]
    torch.manual_seed(70_001)
    return np.array_equal(np.asarray(ours(generator(70_001))), np.asarray(theirs()))


@each(IN_DRAWS)
def test_wrong_draw_is_seen(seen: str, old: str, new: str) -> None:
    assert drawn(torch_random.TorchGenerator, seen)
    assert not drawn(altered(torch_random, old, new).TorchGenerator, seen)


def document_000() -> dict[str, torch.Tensor]:
    """The linear regression as its document draws it."""
    x = torch.linspace(0, 10, 100).view(-1, 1)
    y = 2 * x + 1 + torch.randn(x.size()) * 2
    model = nn.Linear(1, 1)
    return {"x": x, "y": y, **model.state_dict()}


def document_000_adam() -> dict[str, torch.Tensor]:
    """The basic flow: model, samples, targets."""
    model = nn.Linear(10, 1)
    x, y = torch.randn(5, 10), torch.randn(5, 1)
    return {"x": x, "y": y, **model.state_dict()}


DOCUMENTS = {"LinearRegression": document_000, "GradientUpdate": document_000_adam}
_MODEL = "params = self.draw_params(generator)"
_SAMPLES = "x = generator.randn(5, 10, dtype=self.dtype)"
IN_PROBLEMS: Table = {
    "LinearRegression": {
        "slope": ("2 * x + 1 +", "2.0001 * x + 1 +"),
        "rounding_noise": ("dtype=self.dtype) * 2", "dtype=self.dtype) * 1"),
        "points without the end": ("np.linspace(0, 10, 100)", "np.linspace(0, 10, 100, False)"),
        "noise that one sample shares": (
            "generator.randn(100, 1, dtype=self.dtype) * 2",
            "generator.randn(1, 1, dtype=self.dtype) * 2",
        ),
    },
    "GradientUpdate": {
        "samples before the model": (
            f"{_MODEL}\n        {_SAMPLES}",
            f"{_SAMPLES}\n        {_MODEL}",
        ),
        "one target for all": (
            '"y": generator.randn(5, 1, dtype=self.dtype)',
            '"y": generator.randn(1, 1, dtype=self.dtype).repeat(5, 0)',
        ),
    },
}


def off(spec: Any, document: Callable[[], dict[str, torch.Tensor]]) -> float:
    """How far at most a problem's numbers are from the document's, in ulps of the largest."""
    torch.set_default_dtype(getattr(torch, spec.dtype))
    torch.manual_seed(5)
    theirs = document()
    ours = {**spec.batches().data, **spec.initial_params()}
    return max(
        float(np.max(np.abs(ours[name] - tensor.numpy())))
        / (float(np.abs(tensor.numpy()).max()) * float(np.finfo(spec.dtype).eps))
        for name, tensor in theirs.items()
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@each(IN_PROBLEMS)
def test_wrong_problem_is_seen(seen: str, old: str, new: str, dtype: str) -> None:
    document, right = DOCUMENTS[seen], getattr(regression, seen)
    wrong = getattr(altered(regression, old, new), seen)
    # linspace's last bit depends on the processor
    assert off(right(seed=5, dtype=dtype), document) <= 2
    assert off(wrong(seed=5, dtype=dtype), document) > 100


SCHEDULES = {
    "step_lr": case("step_lr", step_size=30),
    "multi_step_lr": case("multi_step_lr", milestones=[30, 60]),
    "multi_step_lr, twice the same milestone": case("multi_step_lr", milestones=[30, 30]),
    "constant_lr": case("constant_lr", factor=0.5),
    "linear_lr": case("linear_lr", total_iters=40),
    "exponential_lr": case("exponential_lr", gamma=0.9),
    "polynomial_lr": case("polynomial_lr", total_iters=40, power=2.0),
}
IN_SCHEDULES: Table = {
    "step_lr": {
        "a count late": ("power(gamma, count // size)", "power(gamma, (count + 1) // size)"),
    },
    "multi_step_lr": {
        "milestone passed after it": ("count >= mark", "count > mark"),
    },
    "multi_step_lr, twice the same milestone": {
        "milestones counted once": (
            "sum((count >= mark for mark in marks)",
            "sum((count >= mark for mark in set(marks))",
        ),
    },
    "constant_lr": {
        "factor a count longer": ("count >= total_iters", "count > total_iters"),
    },
    "linear_lr": {
        "line from the other end": (
            "rates = [lr * start_factor]",
            "rates = [lr * (start_factor + slope)]",
        ),
        "line's step of one count before": ("(count - 1) * slope)))", "count * slope)))"),
    },
    "exponential_lr": {
        "decay a count early": (
            "factor=lambda count: power(gamma, count)",
            "factor=lambda count: power(gamma, count + 1)",
        ),
    },
    "polynomial_lr": {
        "no power": ("rates[-1] * base**power", "rates[-1] * base"),
        "curve's count before": ("(1.0 - (count - 1) / total)", "(1.0 - (count - 2) / total)"),
    },
}


@each(IN_SCHEDULES)
def test_wrong_schedule_is_seen(
    seen: str, old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = SCHEDULES[seen]
    home = importlib.import_module(getattr(lr_scheduler, one.name).__module__)
    wrong = getattr(altered(home, old, new), one.name)
    expected = torch_rates(one.torch_side, 100, lr=one.lr)
    with jax.enable_x64(True):
        assert worst(at_once(one.twin(), 100), expected) <= 1
        monkeypatch.setattr(lr_scheduler, one.name, wrong)
        assert worst(at_once(one.twin(), 100), expected) > 10
