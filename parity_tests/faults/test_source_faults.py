"""Draws, problems and schedules as they are easily written wrong: each fault changes their source.

What both frameworks are given is judged by no comparison of the two: it is held against PyTorch's
own. (Optimizers: test_torch_optim_faults.py.)
"""

import importlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import torch
from helpers.torch_schedules import Case, at_once, case, torch_rates, worst
from torch import nn

from twinstep.jax.optim import lr_scheduler

pytestmark = pytest.mark.quick_to_compile


def altered(module: str, old: str, new: str) -> ModuleType:
    """A module from its source with every `old` as `new`."""
    source = inspect.getsource(importlib.import_module(module))
    assert old in source, f"{module} has no {old!r}"
    copy = ModuleType(module)
    exec(compile(source.replace(old, new), f"<{module}>", "exec"), vars(copy))
    return copy


class Fault(NamedTuple):
    """What the source has and what it gets, and the draws or rates in which that must show."""

    wrong: str
    old: str
    new: str
    seen: Any


def _loader_order(n: int) -> np.ndarray:
    data = torch.utils.data.TensorDataset(torch.arange(n))
    return torch.cat([b for (b,) in torch.utils.data.DataLoader(data, 7, shuffle=True)]).numpy()


DRAWS: dict[str, tuple[Callable[[Any], Any], Callable[[], Any]]] = {
    "rand, float32": (lambda g: g.rand(9), lambda: torch.rand(9)),
    "rand, float64": (
        lambda g: g.rand(9, dtype="float64"),
        lambda: torch.rand(9, dtype=torch.float64),
    ),
    "uniform": (
        lambda g: g.uniform((5000,), -0.3, 0.8),
        lambda: torch.empty(5000).uniform_(-0.3, 0.8),
    ),
    "randn, 9": (lambda g: g.randn(9), lambda: torch.randn(9)),
    "randn, 40": (
        lambda g: g.randn(40, dtype="float64"),
        lambda: torch.randn(40, dtype=torch.float64),
    ),
    "randn twice, 3": (
        lambda g: [g.randn(3), g.rand(2), g.randn(3)][-1],
        lambda: [torch.randn(3), torch.rand(2), torch.randn(3)][-1],
    ),
    "randn, 1000": (lambda g: g.randn(1000), lambda: torch.randn(1000)),
    "randperm": (lambda g: g.randperm(50), lambda: torch.randperm(50)),
    "bernoulli": (lambda g: g.bernoulli((200,), 0.3), lambda: torch.empty(200).bernoulli_(0.3)),
    "epoch": (lambda g: g.shuffled_epoch(50), lambda: _loader_order(50)),
}

IN_DRAWS = [
    Fault("seed cut to 16 bits", "seed & 0xFFFFFFFF", "seed & 0xFFFF", "rand, float32"),
    Fault("one bit more in float32", "(2**24 - 1)", "(2**25 - 1)", "rand, float32"),
    Fault(
        "words in the other order",
        "words[::2] << 32 | words[1::2]",
        "words[1::2] << 32 | words[::2]",
        "rand, float64",
    ),
    Fault("52 bits in float64", "(2**53 - 1)", "(2**52 - 1)", "rand, float64"),
    Fault("range not shifted", "span, bottom)", "span, 0 * bottom)", "uniform"),
    Fault(
        "product and sum rounded apart",
        "_fma(self._uniforms(count, dtype), span, bottom)",
        "self._uniforms(count, dtype) * span + bottom",
        "uniform",
    ),
    Fault(
        "sine first",
        "return radius * math.cos(angle)",
        "return radius * math.sin(angle)",
        "randn, 9",
    ),
    Fault("log of u, not of 1 - u", "math.log1p(-u2)", "math.log(u2)", "randn, 9"),
    Fault(
        "radius and angle exchanged",
        "u1, u2 = self._uniforms(2",
        "u2, u1 = self._uniforms(2",
        "randn, 9",
    ),
    Fault("second normal not kept", "self._kept_sine = radius", "_ = radius", "randn, 9"),
    Fault(
        "kept normal lost by other draws",
        "return self._uniforms(_count",
        "self._kept_sine = None; return self._uniforms(_count",
        "randn twice, 3",
    ),
    Fault("blocks from 17 on", "count < 16", "count < 17 or count == 40", "randn, 40"),
    Fault(
        "last values not drawn anew",
        "values[-16:] = _box_muller(self._uniforms(16, dtype))",
        "values[whole:] = _box_muller(self._uniforms(16, dtype))[: count - whole]",
        "randn, 40",
    ),
    Fault(
        "sines before cosines",
        "[radius * cosine, radius * sine]",
        "[radius * sine, radius * cosine]",
        "randn, 40",
    ),
    Fault("a logarithm's last coefficient", "3.3333331174e-1", "3.3333334e-1", "randn, 1000"),
    Fault(
        "a quarter of pi in two parts",
        "2.4187564849853516e-4, 3.774894977445941e-8",
        "2.4191339744e-4, 0.0",
        "randn, 1000",
    ),
    Fault(
        "the last never drawn",
        "np.arange(n, 1, -1, dtype",
        "np.arange(n - 1, 0, -1, dtype",
        "randperm",
    ),
    Fault(
        "bernoulli compared in float32",
        '(self._uniforms(count, "float64") < p)',
        '(self._uniforms(count, "float32") < p)',
        "bernoulli",
    ),
    Fault("bernoulli's complement", '"float64") < p)', '"float64") >= p)', "bernoulli"),
    Fault("no base seed for the workers", "self.random_int64()  #", "pass  #", "epoch"),
    Fault("low word first", "high << 32 | low", "low << 32 | high", "epoch"),
]


def drawn(generator: type, name: str) -> bool:
    """Whether a generator draws what PyTorch draws."""
    ours, theirs = DRAWS[name]
    torch.manual_seed(70_001)
    return np.array_equal(np.asarray(ours(generator(70_001))), np.asarray(theirs()))


@pytest.mark.parametrize("fault", IN_DRAWS, ids=[fault.wrong for fault in IN_DRAWS])
def test_wrong_draw_is_seen(fault: Fault) -> None:
    right = importlib.import_module("twinstep.problems.torch_random").TorchGenerator
    wrong = altered("twinstep.problems.torch_random", fault.old, fault.new).TorchGenerator
    assert drawn(right, fault.seen)
    assert not drawn(wrong, fault.seen)


def document_000(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The linear regression as its document draws it."""
    torch.set_default_dtype(dtype)
    torch.manual_seed(5)
    x = torch.linspace(0, 10, 100).view(-1, 1)
    y = 2 * x + 1 + torch.randn(x.size()) * 2
    model = nn.Linear(1, 1)
    return {"x": x, "y": y, **model.state_dict()}


def document_000_adam(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The basic flow: model, samples, targets."""
    torch.set_default_dtype(dtype)
    torch.manual_seed(5)
    model = nn.Linear(10, 1)
    x, y = torch.randn(5, 10), torch.randn(5, 1)
    return {"x": x, "y": y, **model.state_dict()}


_MODEL = "params = self.draw_params(generator)"
_SAMPLES = "x = generator.randn(5, 10, dtype=self.dtype)"
IN_PROBLEMS = [
    Fault("slope", "2 * x + 1 +", "2.0001 * x + 1 +", ("LinearRegression", document_000)),
    Fault(
        "rounding_noise",
        "dtype=self.dtype) * 2",
        "dtype=self.dtype) * 1",
        ("LinearRegression", document_000),
    ),
    Fault(
        "points without the end",
        "np.linspace(0, 10, 100)",
        "np.linspace(0, 10, 100, False)",
        ("LinearRegression", document_000),
    ),
    Fault(
        "noise that one sample shares",
        "generator.randn(100, 1, dtype=self.dtype) * 2",
        "generator.randn(1, 1, dtype=self.dtype) * 2",
        ("LinearRegression", document_000),
    ),
    Fault(
        "samples before the model",
        f"{_MODEL}\n        {_SAMPLES}",
        f"{_SAMPLES}\n        {_MODEL}",
        ("GradientUpdate", document_000_adam),
    ),
    Fault(
        "one target for all",
        '"y": generator.randn(5, 1, dtype=self.dtype)',
        '"y": generator.randn(1, 1, dtype=self.dtype).repeat(5, 0)',
        ("GradientUpdate", document_000_adam),
    ),
]


def off(spec: Any, document: Callable[[torch.dtype], dict[str, torch.Tensor]]) -> float:
    """How far at most a problem's numbers are from the document's, in ulps of the largest."""
    theirs = document(getattr(torch, spec.dtype))
    ours = {**spec.batches().data, **spec.initial_params()}
    return max(
        float(np.max(np.abs(ours[name] - tensor.numpy())))
        / (float(np.abs(tensor.numpy()).max()) * float(np.finfo(spec.dtype).eps))
        for name, tensor in theirs.items()
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("fault", IN_PROBLEMS, ids=[fault.wrong for fault in IN_PROBLEMS])
def test_wrong_problem_is_seen(fault: Fault, dtype: str) -> None:
    name, document = fault.seen
    home = "twinstep.problems.regression"
    right = getattr(importlib.import_module(home), name)
    wrong = getattr(altered(home, fault.old, fault.new), name)
    # linspace's last bit depends on the processor
    assert off(right(seed=5, dtype=dtype), document) <= 2
    assert off(wrong(seed=5, dtype=dtype), document) > 100


IN_SCHEDULES = [
    Fault(
        "a count late",
        "power(gamma, count // size)",
        "power(gamma, (count + 1) // size)",
        case("step_lr", step_size=30),
    ),
    Fault(
        "milestone passed after it",
        "count >= mark",
        "count > mark",
        case("multi_step_lr", milestones=[30, 60]),
    ),
    Fault(
        "milestones counted once",
        "sum((count >= mark for mark in marks)",
        "sum((count >= mark for mark in set(marks))",
        case("multi_step_lr", milestones=[30, 30]),
    ),
    Fault(
        "factor a count longer",
        "count >= total_iters",
        "count > total_iters",
        case("constant_lr", factor=0.5),
    ),
    Fault(
        "line from the other end",
        "rates = [lr * start_factor]",
        "rates = [lr * (start_factor + slope)]",
        case("linear_lr", total_iters=40),
    ),
    Fault(
        "line's step of one count before",
        "(count - 1) * slope)))",
        "count * slope)))",
        case("linear_lr", total_iters=40),
    ),
    Fault(
        "decay a count early",
        "factor=lambda count: power(gamma, count)",
        "factor=lambda count: power(gamma, count + 1)",
        case("exponential_lr", gamma=0.9),
    ),
    Fault(
        "no power",
        "rates[-1] * base**power",
        "rates[-1] * base",
        case("polynomial_lr", total_iters=40, power=2.0),
    ),
    Fault(
        "curve's count before",
        "(1.0 - (count - 1) / total)",
        "(1.0 - (count - 2) / total)",
        case("polynomial_lr", total_iters=40, power=2.0),
    ),
]


@pytest.mark.parametrize("fault", IN_SCHEDULES, ids=[fault.wrong for fault in IN_SCHEDULES])
def test_wrong_schedule_is_seen(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    one: Case = fault.seen
    home = getattr(lr_scheduler, one.name).__module__
    wrong = getattr(altered(home, fault.old, fault.new), one.name)
    expected = torch_rates(one.torch_side, 100, lr=one.lr)
    with jax.enable_x64(True):
        assert worst(at_once(one.twin(), 100), expected) <= 1
        monkeypatch.setattr(lr_scheduler, one.name, wrong)
        assert worst(at_once(one.twin(), 100), expected) > 10
