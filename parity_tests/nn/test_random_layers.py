"""Layers with settings and shapes drawn at random: PyTorch's and ours agree, or both refuse.

`make search` looks at thousands.
"""

import os
from typing import Any

import pytest
from helpers.layer_parity import Layer
from helpers.random_layers import FAMILIES, differences, numbers
from hypothesis import HealthCheck, given, settings

from twinstep.jax import nn

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of what PyTorch deprecates

LOOKED_AT = int(os.environ.get("SEARCH", "150")) // len(FAMILIES)
UNHURRIED = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("family", FAMILIES)
def test_any_layer_agrees(family: str) -> None:
    @settings(UNHURRIED, max_examples=LOOKED_AT)
    @given(FAMILIES[family]())
    def agrees(drawn: Any) -> None:
        assert differences(drawn) == []

    agrees()


def test_a_fault_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    x = numbers(lambda _: 0, 2, 4, 5, 5)
    drawn = "Conv2d", Layer((4, 3, 3), {"padding": 1, "stride": 2}, [x])
    assert differences(drawn) == []
    forward = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: forward(self, x) * (1 + 1e-12))
    assert differences(drawn) != []


def test_what_only_pytorch_refuses_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = "Conv2d", Layer((4, 3, 3), {}, [numbers(lambda _: 0, 2, 5, 5, 5)])
    assert differences(drawn) == []
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: x)
    assert differences(drawn) == ["PyTorch refuses it"]
