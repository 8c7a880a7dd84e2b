"""Optimizers as people use them, drawn at random: PyTorch's and ours agree, or ours refuses.

`make search` looks at thousands.
"""

import os

import pytest
from helpers.random_uses import BARS, Use, apart, uses
from hypothesis import HealthCheck, given, settings

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
