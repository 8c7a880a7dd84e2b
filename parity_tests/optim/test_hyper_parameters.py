"""Hyper-parameters that are not known before a step is compiled: arrays, and schedules of any.

`optax.inject_hyperparams` makes an array of each number, traced under jit.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.optimizer_pairs import NAMES, Pair, to_jax
from helpers.optimizer_runs import BAR, Options, default_dtype, sharpest

from twinstep.jax.optim import torch_options
from twinstep.jax.optim._from_torch import TORCH

pytestmark = pytest.mark.quick_to_compile

STEPS = 6


def apart(
    name: str,
    options: Options,
    injected: Options,
    changes: Mapping[str, Callable[[int], Any]] | None = None,
) -> float:
    """The largest gap between PyTorch and the twin whose numbers are arrays, as a share.

    changes: {option: its value in each step}, written into PyTorch's groups before it
    """
    with default_dtype("float64"):
        pair = Pair(name, options, "float64")
        twin = optax.with_extra_args_support(optax.inject_hyperparams(TORCH[name])(**injected))
        step = jax.jit(lambda grads, state, params, more: twin.update(grads, state, params, **more))
        params, state = pair.params, twin.init(pair.params)
        for number in range(STEPS):
            for group in pair.optimizer.param_groups:
                group |= {key: value(number) for key, value in (changes or {}).items()}
            pair.step()
            updates, state = step(pair.grads, state, params, pair.more)
            params = optax.apply_updates(params, updates)
        right = {key: to_jax(p) for key, p in pair.theirs.items()}
        gaps = [jnp.max(jnp.abs(p - params[k])) / jnp.max(jnp.abs(p)) for k, p in right.items()]
        return float(max(gaps))


@pytest.mark.parametrize("name", NAMES)
def test_injected_hyper_parameters_are_the_numbers(name: str) -> None:
    for options in ({}, sharpest(name)):
        assert apart(name, options, options) <= BAR


def numbers_of(name: str) -> list[str]:
    """The options of an optimizer that are one number, and read in every step."""
    at_first = "initial_accumulator_value"
    return [k for k, v in torch_options(name).items() if isinstance(v, float) and k != at_first]


CHANGED = [(name, key) for name in NAMES for key in numbers_of(name)]


@pytest.mark.parametrize(("name", "key"), CHANGED)
def test_a_number_may_change_from_step_to_step(name: str, key: str) -> None:
    """As PyTorch's does when `param_groups` is written to between two steps."""
    options = sharpest(name)
    first = float(options.get(key, torch_options(name)[key]))
    values = first * (1 - 0.05 * np.arange(STEPS))
    changes = {key: lambda step: float(values[step])}
    scheduled = {**options, key: lambda count: jnp.asarray(values)[count]}
    assert apart(name, options, scheduled, changes) <= BAR
    late = {**options, key: lambda count: jnp.asarray(values)[jnp.maximum(count - 1, 0)]}
    assert (apart(name, options, late, changes) > BAR) is ((name, key) not in UNSEEN)


UNSEEN = {
    ("ASGD", "t0"),  # of a step that is not reached
    ("Adafactor", "d"),  # of updates larger than these
    ("Muon", "eps"),  # of norms smaller than these
    ("Rprop", "lr"),  # read when the state is made
}
"""What a change of does not show here, a step late."""


@pytest.mark.parametrize("name", [n for n in NAMES if "betas" in torch_options(n)])
def test_betas_may_be_arrays(name: str) -> None:
    """Inside a pair optax leaves a number what it is: one gives arrays oneself."""
    betas = (0.8, 0.99)
    with default_dtype("float64"):
        arrays = tuple(map(jnp.asarray, betas))
    assert apart(name, {"betas": betas}, {"betas": arrays}) <= BAR
