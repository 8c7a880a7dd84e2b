"""Both sides of a layout, with what each begins and its first gradients; and what is right."""

from typing import Any

import numpy as np
from helpers.layouts import Arrays, Layout
from helpers.synthetic_traces import metadata

from twinstep import Match
from twinstep.trace.ledger import Trace


def trace(start: Arrays, grads: Arrays) -> Trace:
    """A recording of one update, of these initial values and raw gradients."""
    rows = {name: np.array(array)[None] for name, array in grads.items()}
    return Trace(
        metadata=metadata(),
        losses=np.ones(1),
        batch={},
        raw_grads=rows,
        grads=rows,
        opt_state={},
        params={name: np.stack([array, array + 1]) for name, array in start.items()},
    )


def pair(layout: Layout, start: Arrays, grads: Arrays, noise: float = 0.0) -> tuple[Trace, Trace]:
    """Both sides of it; the port's gradients with relative rounding noise.

    Not for what is held twice or summed, whose gradients a converter does not give.
    """
    draws = np.random.RandomState(9)
    theirs, ours = trace(start, grads), layout.convert(grads)
    ours = {n: a * (1 + noise * draws.standard_normal(a.shape)) for n, a in ours.items()}
    return theirs, trace(layout.convert(start), ours)


def normal(layout: Layout, seed: int, dtype: Any = np.float64) -> Arrays:
    """Random numbers."""
    draws = np.random.RandomState(seed)
    return {
        n: np.asarray(draws.standard_normal(shape)).astype(dtype)
        for n, shape in layout.shapes.items()
    }


def assert_right(found: Match, layout: Layout) -> None:
    """What is matched comes from where it is: other numbers go the same way."""
    if found.mapping.leaves:
        other = normal(layout, 77)
        made, right = found.mapping.to_jax(other), layout.convert(other)
        for name in found.mapping.leaves:
            np.testing.assert_array_equal(made[name], right[name], err_msg=name)


def assert_told(found: Match, layout: Layout) -> None:
    """All is matched, and rightly."""
    assert found.complete, found.lines()
    assert_right(found, layout)
