"""Problems and schedules as they are easily written wrong: each fault changes their source.

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

from faults.plants_anywhere import Table, altered, each
from twinstep.jax.optim import lr_scheduler
from twinstep.problems import regression

pytestmark = pytest.mark.quick_to_compile


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
