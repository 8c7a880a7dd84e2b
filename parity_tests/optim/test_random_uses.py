"""Optimizers as people use them, drawn at random: PyTorch's and ours agree, or ours refuses.

`make search` looks at thousands.
"""

import os

import jax
import jax.numpy as jnp
import pytest
from helpers import random_uses
from helpers.random_uses import BARS, HANDED, Use, apart, uses
from hypothesis import HealthCheck, given, settings

from twinstep.jax.optim import ops

pytestmark = pytest.mark.quick_to_compile

LOOKED_AT = int(os.environ.get("SEARCH", "50")) // len(BARS)
UNHURRIED = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("dtype", BARS)
def test_any_use_agrees(dtype: str) -> None:
    @settings(UNHURRIED, max_examples=LOOKED_AT)
    @given(uses(dtype))
    def agrees(use: Use) -> None:
        assert apart(use) <= 1

    agrees()


@pytest.mark.parametrize("dtype", BARS)
def test_a_fault_is_seen_in_every_dtype(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    use = Use("Adam", {"lr": 0.3}, dtype)
    assert apart(use) <= 1
    monkeypatch.setattr(ops.Ops, "sqrt", lambda self, x: jnp.abs(x))
    assert apart(use) > 1


@pytest.mark.parametrize("handed", ["pickle", "msgpack", "torch"])
def test_a_state_that_is_not_handed_over_is_seen(
    monkeypatch: pytest.MonkeyPatch, handed: str
) -> None:
    use = Use("Adam", {}, "float64", handed=handed)
    assert apart(use) <= 1
    if handed == "torch":
        theirs = random_uses.opt_state_to_torch
        monkeypatch.setattr(
            random_uses, "opt_state_to_torch", lambda *a, **k: {**theirs(*a, **k), "state": {}}
        )
    else:
        monkeypatch.setitem(HANDED, handed, lambda s: jax.tree.map(jnp.zeros_like, s))
    assert apart(use) > 1
