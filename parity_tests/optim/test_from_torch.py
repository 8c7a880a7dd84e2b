"""Optimizers from PyTorch's description of them: what each accepts, refuses and defaults to."""

import inspect
import itertools
import math
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers.optim_database import NEWEST, OptimizerErrorEnum, optim_db
from helpers.training import (
    BATCHES,
    WEIGHTS,
    TorchNetwork,
    torch_setup,
    torch_steps,
)

from twinstep.errors import InputError
from twinstep.jax import optim
from twinstep.jax.optim import from_torch, torch_options
from twinstep.jax.optim._from_torch import FLAGS, TORCH

pytestmark = pytest.mark.quick_to_compile

STEPS = BATCHES[:4]
BAR = 1e-12


def torch_refuses(name: str, options: dict[str, Any]) -> bool:
    """Whether PyTorch's optimizer cannot be made of these options, or make two steps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch_steps(*torch_setup(name, WEIGHTS, **options), STEPS[:2])
        except Exception:
            return True
    return False


def we_refuse(name: str, options: dict[str, Any]) -> bool:
    try:
        from_torch(name, **options)
    except InputError as error:
        return any(key in str(error) for key in options)
    return False


def test_every_optimizer_of_torch_is_there() -> None:
    known: Any = optim_db
    assert {info.optim_cls.__name__ for info in known} == set(TORCH)
    assert {function.__name__ for function in TORCH.values()} <= set(optim.__all__)


@pytest.mark.parametrize("name", TORCH)
def test_keywords_and_defaults_are_torchs(name: str) -> None:
    theirs = dict(inspect.signature(getattr(torch.optim, name)).parameters)
    theirs.pop("params")
    ours = torch_options(name)
    if not NEWEST and name == "LBFGS":
        assert ours.pop("maximize") is False
    assert ours == {key: p.default for key, p in theirs.items()}


@pytest.mark.parametrize("info", optim_db, ids=lambda info: info.optim_cls.__name__)
def test_what_optim_db_knows_as_errors_is_refused(info: Any) -> None:
    """Those about options; those about parameters have no counterpart, or are in param groups."""
    name, tried = info.optim_cls.__name__, 0
    for error in info.optim_error_inputs_func(device="cpu", dtype=torch.float64):
        options = error.optimizer_error_input.kwargs
        if options and error.error_on == OptimizerErrorEnum.CONSTRUCTION_ERROR:
            assert we_refuse(name, options), options
            tried += 1
    assert tried >= 1


PLAIN = [-1.0, -1e-9, 0, 0.0, 0.5, 1, 1.0, 1.5, 3, math.inf, math.nan, None, "original"]
RULES = ["match_rms_adamw", "spectral_unclamped", "spectral"]
FIRST = (None, -0.1, 0, 0.0, 0.5, 0.9, 1.0, torch.tensor(0.5))
SECOND = (-0.1, 0.1, 0.5, 0.99, 1.0, 1.2, math.nan, torch.tensor(0.9))
TUPLES = [*itertools.product(FIRST, SECOND), (0.1,), (1.0, -1.0, 1.0), None, 0.5]
SWITCHES = (*FLAGS, "maximize", "amsgrad", "centered", "nesterov", "decoupled_weight_decay")
COUNTS = ("max_iter", "max_eval", "history_size", "ns_steps")  # of whole numbers alone


TOGETHER: dict[str, list[dict[str, Any]]] = {
    "SGD": [
        {"nesterov": True},
        {"nesterov": True, "momentum": 0.9},
        {"nesterov": True, "momentum": 0.9, "dampening": 0.1},
        {"fused": True, "foreach": True},
    ],
    "Adam": [
        {"fused": True, "foreach": True},
        {"lr": torch.tensor(0.1), "foreach": True},
        {"betas": (torch.tensor(0.5), torch.tensor(0.5)), "foreach": True},
    ],
    "AdamW": [{"fused": True, "differentiable": True}],
    "Adagrad": [{"fused": True, "foreach": True}],
    "RMSprop": [{"lr": torch.tensor([0.1])}, {"lr": torch.tensor([0.1, 0.1])}],
    "Muon": [{"ns_steps": 100}],
}


def tried(name: str) -> Iterator[dict[str, Any]]:
    """One option at a time, of every sort of value; one that is unknown, and some together."""
    yield from [{"learning_rate": 0.1}, *TOGETHER.get(name, [])]
    for key, default in torch_options(name).items():
        if key in SWITCHES:
            # PyTorch has capturable on an accelerator alone; differentiable is another kind of step
            on = key not in ("capturable", "differentiable")
            yield from ({key: value} for value in dict.fromkeys((on, False)))
        elif key == "adjust_lr_fn":
            yield from ({key: value} for value in [*PLAIN, *RULES])
        elif key in COUNTS:
            yield from ({key: value} for value in (1, 2, 99))
        elif isinstance(default, tuple):
            yield from ({key: value} for value in TUPLES)
        else:
            # without momentum, dampening is not looked at
            rest: dict[str, Any] = {"momentum": 0.9} if key == "dampening" else {}
            yield from (rest | {key: value} for value in [*PLAIN, torch.tensor(0.5)])


@pytest.mark.parametrize("name", TORCH)
def test_neither_more_nor_less_is_refused_than_by_torch(name: str) -> None:
    apart = [
        options
        for options in tried(name)
        if we_refuse(name, options) != torch_refuses(name, options)
    ]
    assert apart == ([] if NEWEST else NEWER.get(name, []))


NEWER: dict[str, list[dict[str, Any]]] = {
    "ASGD": [{key: value} for key in ("lambd", "alpha") for value in (-1.0, -1e-9, math.nan)],
    "LBFGS": [{"maximize": True}, {"maximize": False}],
    "Muon": [{"adjust_lr_fn": "spectral_unclamped"}],
}
"""What an older PyTorch takes or refuses, and the newest does not."""


def test_other_mistakes_say_what_they_are() -> None:
    with pytest.raises(InputError, match="optimizer is 'Adm', did you mean Adam"):
        from_torch("Adm")
    with pytest.raises(InputError, match="Muon: keyword 'round_to_bfloat16' is unknown"):
        from_torch("Muon", round_to_bfloat16=False)
    with pytest.raises(InputError, match="expected a name or an optimizer"):
        from_torch(3)
    model = TorchNetwork()
    with pytest.raises(InputError, match="lr is given"):
        from_torch(torch.optim.Adam(model.parameters()), lr=0.1)
    with pytest.raises(InputError, match="group 0 has a parameter that is not in"):
        from_torch(torch.optim.Adam(model.parameters()), [("0.weight", torch.ones(1))])
