"""Averaged parameters and their learning rate against torch.optim.swa_utils."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from helpers.training import (
    BATCHES,
    arrays,
    jax_params,
    settings,
    torch_setup,
    torch_steps,
    worst,
)
from torch.optim import swa_utils

from twinstep.errors import InputError
from twinstep.jax.optim import averaged, ema_avg, swa_avg, swa_lr, update_averaged

pytestmark = pytest.mark.quick_to_compile

STEPS = BATCHES[:15]
BAR = 1e-14


def gap(options: dict[str, Any], *avg_fn: Any) -> float:
    """How far the averages are from PyTorch's, those of its own parameters after each step.

    They begin with the fourth. avg_fn: ours
    """
    model, optimizer = torch_setup("SGD", lr=0.3)
    average, theirs, ours = swa_utils.AveragedModel(model, **options), [], []
    with settings():
        update = jax.jit(lambda state, params: update_averaged(state, params, *avg_fn))
        state = averaged(jax_params())
        for number, batch in enumerate(STEPS):
            (params,) = torch_steps(model, optimizer, batch[None])
            if number >= 3:
                average.update_parameters(model)
                state = update(state, params)
            theirs.append(arrays(average.module))
            ours.append(state.params)
        assert int(state.n_averaged) == len(STEPS) - 3
        return worst(theirs, ours)


def own(a: Any, p: Any, n: Any) -> Any:
    return (a * n + p) / (n + 2)


KINDS: dict[str, tuple[dict[str, Any], Any]] = {
    "swa": ({}, ()),
    "swa by name": ({"multi_avg_fn": swa_utils.get_swa_multi_avg_fn()}, (swa_avg,)),
    "ema": ({"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.9)}, (ema_avg(0.9),)),
    "slow ema": ({"multi_avg_fn": swa_utils.get_ema_multi_avg_fn()}, (ema_avg(),)),
    "fast ema": ({"avg_fn": swa_utils.get_ema_avg_fn(0.25)}, (ema_avg(0.25),)),
    "own": ({"avg_fn": own}, (own,)),
}


FAULTS: dict[str, tuple[dict[str, Any], Any]] = {
    "decay": ({"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.9)}, (ema_avg(0.9 + 1e-12),)),
    "ema for swa": ({}, (ema_avg(0.9),)),
    "count off by one": ({}, (lambda a, p, n: swa_avg(a, p, n + 1),)),
}


@pytest.mark.parametrize("kind", [*KINDS, *FAULTS])
def test_average_is_torchs_and_a_fault_is_noticed(kind: str) -> None:
    options, avg_fn = (KINDS | FAULTS)[kind]
    assert (gap(options, *avg_fn) <= BAR) is (kind in KINDS)


def test_average_is_a_copy() -> None:
    with settings():
        params = jax_params()
        state = averaged(params)
        assert all(state.params[name] is not params[name] for name in params)


@pytest.mark.parametrize("decay", [-0.1, 1.1])
def test_decay_outside_its_range_is_refused(decay: float) -> None:
    with pytest.raises(InputError, match=f"decay is {decay}, expected a number from 0 to 1"):
        ema_avg(decay)
    with pytest.raises(ValueError, match="Invalid decay"):
        swa_utils.get_ema_multi_avg_fn(decay)


def torch_rates(start: int, **options: Any) -> list[float]:
    """SWALR's rates over 14 epochs, an exponential schedule before it from `start` on."""
    _, optimizer = torch_setup("SGD", lr=0.5)
    before = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    after, rates = None, []
    for epoch in range(14):
        if epoch == start:
            after = swa_utils.SWALR(optimizer, **options)
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        (before if after is None else after).step()
    return rates


@pytest.mark.parametrize("start", [0, 4])
@pytest.mark.parametrize(
    "options",
    [
        {"swa_lr": 0.05},
        {"swa_lr": 0.9, "anneal_epochs": 5, "anneal_strategy": "linear"},
        {"swa_lr": 0.05, "anneal_epochs": 1},
        {"swa_lr": 0.05, "anneal_epochs": 0},
    ],
    ids=str,
)
def test_swa_lr_is_torchs(options: dict[str, Any], start: int) -> None:
    theirs = torch_rates(start, **options)
    with settings():
        made = [
            swa_lr(lambda count: 0.5 * 0.9**count, **options, start=start + late) for late in (0, 1)
        ]
        ours, late = ([float(rate(jnp.asarray(epoch))) for epoch in range(14)] for rate in made)
    np.testing.assert_allclose(ours, theirs, rtol=1e-13)
    assert not np.allclose(late, theirs, rtol=1e-13)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"anneal_epochs": -1}, "anneal_epochs is -1"),
        ({"anneal_epochs": 1.5}, "anneal_epochs is 1.5"),
        ({"anneal_strategy": "steps"}, "anneal_strategy is 'steps'"),
    ],
)
def test_bad_swa_lr_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        swa_lr(0.1, 0.05, **options)
    _, optimizer = torch_setup("SGD")
    with pytest.raises(ValueError, match="anneal"):
        swa_utils.SWALR(optimizer, 0.05, **options)
