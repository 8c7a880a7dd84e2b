"""What a step is made of is measured without overflow, and excuses no more than it may."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from twinstep.jax import rounding_scale
from twinstep.trace.stages import STAGES

EPS = 2.0**-23


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_a_norm_is_a_number_where_its_squares_are_none(size: float) -> None:
    leaves = [jnp.full((3, 2), size), jnp.array(-size), jnp.zeros(4)]
    assert float(rounding_scale._norm(leaves)) == pytest.approx(
        size * math.sqrt(7), rel=1e-6, abs=0
    )
    assert float(rounding_scale._norm([jnp.zeros(4)])) == 0


@pytest.mark.parametrize("stage", ["loss", "raw_grads", "evaluation"])
def test_a_move_excuses_no_more_than_it_may(stage: str) -> None:
    """The allowance that it adds is at most a part of what is rounded, here of size 3."""
    made_of = jnp.array(3 * EPS)
    for measures, part in (("float32", 2 ** (-23 / 4)), ("float64", 1.0)):
        unit = rounding_scale.unit("float32", measures)
        for move in (1e-9, 1e30, math.inf):
            allows = STAGES[stage].one_step * rounding_scale._capped(
                jnp.array(move), made_of, stage, unit
            )
            expected = min(STAGES[stage].one_step * move, 3 * part)
            assert float(allows) == pytest.approx(expected, rel=1e-5, abs=0)


def test_parameters_are_nudged_both_ways() -> None:
    """By 16 eps; what cancels in the first pair of moves adds up in the second."""
    params = {"a": jnp.ones(50), "b": jnp.ones(50), "c": jnp.ones(50)}
    once, again = rounding_scale._perturbed(params, rounding_scale.unit("float32", "float32"))
    for name, sign in (("a", 1), ("b", -1), ("c", 1)):
        moves = np.asarray(once[name] - 1) / EPS
        assert set(moves) == {-16, 16}
        assert np.array_equal(np.sign(again[name] - 1), sign * np.sign(moves))
