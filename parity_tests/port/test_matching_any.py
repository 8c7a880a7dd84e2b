"""Whole models: those that are ported, and any that may be drawn from the layouts."""

import numpy as np
import pytest
from helpers.layouts import LAYOUTS, Arrays, Layout
from helpers.matching import assert_right, assert_told, normal, pair, trace
from hypothesis import given, settings
from hypothesis import strategies as st

import twinstep
from port.ports import PORTS, jax_trace, torch_trace
from twinstep import match

# Ports


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ports_are_matched_from_their_recordings(port: str, dtype: str) -> None:
    if "equinox" in port:
        pytest.importorskip("equinox")
    theirs = torch_trace(port, 2, dtype, steps=4)
    ours = jax_trace(port, theirs)
    found = match(theirs, ours)
    assert found.complete, found.lines()
    start = {name: array[0] for name, array in {**theirs.params, **theirs.buffers}.items()}
    made = found.mapping.to_jax(start)
    for name, array in {**ours.params, **ours.buffers}.items():
        np.testing.assert_array_equal(made[name], array[0], err_msg=name)
    grads = {name: array[0] for name, array in theirs.raw_grads.items()}
    made = found.mapping.to_jax(grads, gradients=True)
    eps = float(np.finfo(dtype).eps)
    for name, array in ours.raw_grads.items():  # absolute: some are rounding alone
        np.testing.assert_allclose(
            made[name], array[0], rtol=2e4 * eps, atol=100 * eps, err_msg=name
        )


# Models drawn at random


@st.composite
def models(draw: st.DrawFn) -> Layout:
    """Some layouts side by side, each in a scope of its own."""
    chosen = draw(st.lists(st.sampled_from([*LAYOUTS]), min_size=3, max_size=6))
    shapes: dict[str, tuple[int, ...]] = {}
    converts: list[tuple[str, Layout]] = []
    for number, name in enumerate(chosen):
        layout = LAYOUTS[name]
        shapes |= {f"m{number}.{n}": shape for n, shape in layout.shapes.items()}
        converts.append((f"m{number}.", layout))

    def convert(t: Arrays) -> Arrays:
        made: Arrays = {}
        for scope, layout in converts:
            own = {n.removeprefix(scope): a for n, a in t.items() if n.startswith(scope)}
            made |= {f"{scope}{n}": a for n, a in layout.convert(own).items()}
        return made

    layouts = [layout for _, layout in converts]
    return Layout(shapes, convert, any(a.twice for a in layouts), any(a.summed for a in layouts))


seeds = st.integers(0, 2**31 - 1)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(models(), seeds, st.sampled_from(["float32", "float64"]))
def test_any_model_by_values(layout: Layout, seed: int, dtype: str) -> None:
    start = normal(layout, seed, dtype)
    assert_told(match(start, layout.convert(start)), layout)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(models(), seeds, st.sampled_from([0.0, 1e-15, 1e-7]), st.booleans())
def test_any_model_by_gradients(layout: Layout, seed: int, noise: float, all_alike: bool) -> None:
    if layout.twice or layout.summed:
        return
    start = normal(layout, seed)
    draws = np.random.RandomState(seed)
    for array in start.values():
        if all_alike or draws.random_sample() < 0.5:
            array[...] = draws.randint(2)
    found = match(*pair(layout, start, normal(layout, seed + 1), noise))
    assert_right(found, layout)
    if noise < 1e-10:
        assert found.complete, found.lines()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(models(), seeds)
def test_any_model_with_unrelated_gradients(layout: Layout, seed: int) -> None:
    """What begins alike is open, or goes where its layer goes; what does not is told by values."""
    if layout.summed:  # of which one is 0 the sum is the other
        return
    start = normal(layout, seed)
    draws = np.random.RandomState(seed)
    for array in start.values():
        if draws.random_sample() < 0.5:
            array[...] = draws.randint(2)
    theirs = trace(start, normal(layout, seed))
    ours = trace(layout.convert(start), layout.convert(normal(layout, seed + 1)))
    found = match(theirs, ours)
    assert "gradients" not in found.by.values()
    assert_right(found, layout)


def test_a_program_matches_itself() -> None:
    recorded = twinstep.run(twinstep.examples()["zero_grad"](steps=2), framework="torch")
    assert match(recorded, recorded).complete
