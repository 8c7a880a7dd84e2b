"""Traces made by hand, so that what a comparison or a file says of them is known beforehand.

Nothing is trained: the numbers are drawn, and small enough to look at.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from twinstep.errors import InputError
from twinstep.trace.ledger import Metadata, Trace
from twinstep.trace.stages import STAGES

STEPS = 6
# name -> shape of a step: a matrix, a vector, a scalar and a tensor of nothing
SHAPES: dict[str, tuple[int, ...]] = {"weight": (3, 2), "bias": (3,), "gain": (), "none": (0,)}
LEAVES = {
    "batch": ("x", "y"),
    "loss": ("loss",),
    "raw_grads": tuple(SHAPES),
    "grads": tuple(SHAPES),
    "opt_state": tuple(f"{name}.exp_avg" for name in SHAPES),
    "params": tuple(SHAPES),
}
Change = Callable[[Trace], Trace]


def metadata(**changes: Any) -> Metadata:
    """What ran, with some of it changed."""
    fields: dict[str, Any] = {
        "example": "synthetic",
        "spec": {"seed": 0, "dtype": "float64", "betas": (0.9, 0.999), "steps": None, "epochs": 1},
        "framework": "torch",
        "dtype": "float64",
        "device": "cpu",
        "precision": "highest",
        "versions": {"torch": "0"},
    }
    return Metadata(**{**fields, **changes})


def made(
    steps: int = STEPS,
    *,
    seed: int = 0,
    dtype: str = "float64",
    rounding_noise: float | None = None,
) -> Trace:
    """A trace of entries between 1 and 2, with a sign; the gradients are those given, held once.

    rounding_noise: how far rounding carries each leaf at each step, measured; the rounding scale
        beside it are an eps, as of numbers of size 1
    """
    generator = np.random.default_rng(seed)

    def drawn(rows: int, shape: tuple[int, ...]) -> np.ndarray:
        size = generator.uniform(1, 2, (rows, *shape))
        return (size * generator.choice([-1, 1], size.shape)).astype(dtype)

    def measured(size: Any, *stages: str) -> dict[str, np.ndarray] | None:
        if rounding_noise is None:
            return None
        keys = [f"{stage}/{leaf}" for stage in stages for leaf in LEAVES[stage]]
        return {key: np.full(steps, size, dtype) for key in keys}

    losses = drawn(steps, ())
    batch = {n: generator.integers(2**32, size=steps, dtype=np.uint32) for n in LEAVES["batch"]}
    raw_grads = {name: drawn(steps, shape) for name, shape in SHAPES.items()}
    return Trace(
        metadata=metadata(dtype=dtype),
        losses=losses,
        batch=batch,
        raw_grads=raw_grads,
        grads=dict(raw_grads),
        opt_state={f"{name}.exp_avg": drawn(steps, shape) for name, shape in SHAPES.items()},
        params={name: drawn(steps + 1, shape) for name, shape in SHAPES.items()},
        rounding_noise=measured(rounding_noise, "loss", "raw_grads", "opt_state", "params"),
        rounding_scale=measured(float(np.finfo(dtype).eps), "loss", "raw_grads"),
    )


def leaf_of(trace: Trace, stage: str, leaf: str) -> np.ndarray:
    """The array of a leaf; that of parameters with the initial ones at 0."""
    array: np.ndarray = trace.losses if stage == "loss" else getattr(trace, stage)[leaf]
    return array


def with_field(trace: Trace, field: str, value: Any) -> Trace:
    """The same trace with another value of the field of this name."""
    fields: dict[str, Any] = {field: value}
    return dataclasses.replace(trace, **fields)


def with_leaf(trace: Trace, stage: str, leaf: str, array: np.ndarray) -> Trace:
    """The same trace with another array for one leaf; a gradient held once stays so."""
    if stage == "loss":
        return dataclasses.replace(trace, losses=array)
    changed = with_field(trace, stage, {**getattr(trace, stage), leaf: array})
    if stage == "raw_grads" and trace.held_once(leaf):
        return dataclasses.replace(changed, grads={**trace.grads, leaf: array})
    return changed


def leaf_by(stage: str, leaf: str, change: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Another array for one leaf: change(what it is)."""
    return lambda trace: with_leaf(trace, stage, leaf, change(leaf_of(trace, stage, leaf)))


def rows_of(stage: str, leaf: str, which: slice) -> Change:
    """Some rows of a leaf alone."""
    return leaf_by(stage, leaf, lambda rows: rows[which])


def with_fault(trace: Trace, stage: str, leaf: str, step: int, value: float) -> Trace:
    """The same trace with one entry, the last of the leaf, replaced at a step (from 1).

    Step 0 is what was there before the first update; only params and buffers have it.
    """
    array = leaf_of(trace, stage, leaf).copy()
    row = array[step - 1 + STAGES[stage].initial, ...]
    row[(-1,) * row.ndim] = value
    return with_leaf(trace, stage, leaf, array)


def entry(trace: Trace, stage: str, leaf: str, step: int) -> float:
    """The entry that `with_fault` would replace."""
    row = leaf_of(trace, stage, leaf)[step - 1 + STAGES[stage].initial]
    return float(row[(-1,) * row.ndim])


def rank(stage: str, leaf: str) -> tuple[int, int]:
    """A leaf's place in the ledger."""
    return list(STAGES).index(stage), LEAVES[stage].index(leaf)


def refused(call: Callable[[], object], *says: str) -> str:
    """The one line of the InputError that `call` raises; it has to hold each of `says`."""
    with pytest.raises(InputError) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line
    assert [text for text in says if text not in line] == [], line
    return line


def full(rounding_noise: float | None = None, length: int = STEPS) -> Trace:
    """A trace that holds something of every stage, and what its batches were."""
    draw = np.random.default_rng(1)
    trace = made(length, rounding_noise=rounding_noise)
    return dataclasses.replace(
        trace,
        rng={"torch": draw.integers(256, size=(length, 5), dtype=np.uint8)},
        activations={"relu": draw.uniform(1, 2, (length, 4, 2)), "0": draw.uniform(1, 2, length)},
        hyper_parameters={"0.lr": draw.uniform(1, 2, length), "0.weight_decay": np.zeros(length)},
        buffers={
            "norm.running_mean": draw.uniform(1, 2, (length + 1, 3)),
            "norm.num_batches_tracked": np.arange(length + 1),
            "mask": draw.uniform(size=(length + 1, 2)) < 0.5,
        },
        update={"optimizer": np.arange(1, length + 1)},
        before={"params/bias": draw.uniform(1, 2, (length, 3))},
        micro_losses={"loss": draw.uniform(1, 2, length)},
        inputs={"x": {int(number): draw.uniform(size=(2, 3)) for number in trace.batch["x"]}},
    )
