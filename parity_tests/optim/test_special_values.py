"""NaN, infinities and zeros of both signs in single entries: what PyTorch makes of them."""

import math
from typing import Any

import numpy as np
import pytest
from helpers.optimizer_pairs import NAMES, Pair, rows
from helpers.optimizer_runs import BAR, Options, default_dtype

pytestmark = pytest.mark.quick_to_compile

# no subnormal, which XLA takes for 0, and no square that overflows, which a fused product may not
SPECIAL = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-300, 1e150]
STEPS = 5


def same_pattern(theirs: Any, ours: Any) -> bool:
    """NaN where there is NaN, the same infinities and zeros, and the same numbers to rounding."""
    a, b = np.asarray(theirs), np.asarray(ours)
    finite = np.isfinite(a)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return False
    a, b = a[finite], b[finite]
    return bool(np.all(np.abs(a - b) <= BAR * np.maximum(np.abs(a), 1)))


def worst_after(name: str, options: Options, alone: bool) -> list[str]:
    """What differs after steps with special gradients; alone: one of them in all."""
    with default_dtype("float64"):
        pair = Pair(name, options, "float64")
        for step in range(STEPS):
            values = SPECIAL[:1] if alone else SPECIAL
            special = {"a": {3 * i: v for i, v in enumerate(values)}} if step in (1, 3) else None
            pair.step(special)
        return [what for what, theirs, ours in pair.entries() if not same_pattern(theirs, ours)]


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(("name", "options"), rows(NAMES), ids=str)
def test_special_values_leave_what_they_leave_in_torch(
    name: str, options: Options, alone: bool
) -> None:
    assert not worst_after(name, options, alone)


def test_a_comparison_sees_another_pattern() -> None:
    nan = math.nan
    assert same_pattern([nan, math.inf, 1.0], [nan, math.inf, 1.0])
    for other in ([0.0, math.inf, 1.0], [nan, -math.inf, 1.0], [nan, math.inf, nan]):
        assert not same_pattern([nan, math.inf, 1.0], other)
