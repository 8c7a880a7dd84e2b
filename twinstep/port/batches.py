"""Whether two recordings were made on the same batches, however each lays them out."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from twinstep.errors import InputError
from twinstep.judge.findings import Finding
from twinstep.port.sides import Side
from twinstep.trace.ledger import Trace

_MAX_AXES = 5


def compared(torch: Side, jax: Side) -> tuple[list[Finding], list[str]]:
    """(a finding where a batch first differs, what is to be known of it).

    InputError where no step has the same batch.
    """
    one, other = torch.trace, jax.trace
    if not one.batch or not other.batch:
        which = "PyTorch's" if not one.batch else "the port's"
        return [], [f"{which} trace has no batches: that they are the same is not proved"]
    if len(one) != len(other):
        return [], ["the batches are not compared: the updates do not go by one optimizer"]
    notes, findings, seen = [], [], False
    for name in one.batch:
        known = partner(one, other, name)
        if known is None:
            notes.append(f"batch {name} of PyTorch's has none of the port's to be compared with")
            continue
        leaf, _, same = known
        first = next((t for t, alike in enumerate(same) if not alike), None)
        seen = seen or any(same)
        if first is not None:
            findings.append(_finding(one, first, name, leaf, (one, other)))
    if findings and not seen:
        found = findings[0]
        raise InputError(
            f"step {found.step}: batch, {found.leaf}: the port trained on other batches than "
            "PyTorch from the first step on"
        )
    return findings, notes


def partner(one: Trace, other: Trace, name: str) -> tuple[str, Any, list[bool]] | None:
    """(the port's name of a batch, how its axes stand, whether it is the same at each step).

    The one that agrees at most steps; None where none has as many entries of such a kind.
    """
    best: tuple[str, Any, list[bool]] | None = None
    for leaf in other.batch:
        for axes, same in _agreement(one, other, name, leaf):
            if best is None or sum(same) > sum(best[2]):
                best = leaf, axes, same
            if all(same):
                return best
    return best


def _agreement(one: Trace, other: Trace, name: str, leaf: str) -> Iterator[tuple[Any, list[bool]]]:
    fingerprints = _numbers(one, name), _numbers(other, leaf)
    if fingerprints[0] == fingerprints[1]:
        yield None, [True] * len(one)
        return
    if name not in one.inputs or leaf not in other.inputs:
        if any(a == b for a, b in zip(*fingerprints, strict=True)):
            yield None, [a == b for a, b in zip(*fingerprints, strict=True)]
        return
    mine = [array(one, name, t) for t in range(len(one))]
    theirs = [array(other, leaf, t) for t in range(len(other))]
    sizes = [a.size == b.size for a, b in zip(mine, theirs, strict=True)]
    if not any(sizes) or _kind(mine[0]) != _kind(theirs[0]):
        return
    axes_of = range(theirs[0].ndim)
    orders = itertools.permutations(axes_of) if theirs[0].ndim <= _MAX_AXES else [tuple(axes_of)]
    for axes in orders:
        yield (
            axes,
            [
                a.size == b.size
                and b.ndim == len(axes)
                and np.array_equal(a.reshape(-1), b.transpose(axes).reshape(-1).astype(a.dtype))
                for a, b in zip(mine, theirs, strict=True)
            ],
        )


def _kind(array: np.ndarray) -> str:
    return "whole" if array.dtype.kind in "iub" else array.dtype.kind


def _numbers(trace: Trace, name: str) -> list[tuple[int, ...]]:
    """The fingerprints of a batch at each step."""
    steps = trace.steps_of("batch", name)
    return [tuple(trace.batch[name][steps == trace.start + t].tolist()) for t in range(len(trace))]


def array(trace: Trace, name: str, step: int) -> np.ndarray:
    """A batch of a step, several calls one after the other."""
    numbers = _numbers_at(trace, name, step)
    arrays = [np.asarray(trace.inputs[name][number]) for number in numbers]
    if len(arrays) == 1:
        return arrays[0]
    if not arrays:
        return np.zeros(0)
    if len({array.shape[1:] for array in arrays}) > 1 or not arrays[0].ndim:
        return np.concatenate([array.reshape(-1) for array in arrays])
    return np.concatenate(arrays)


def _numbers_at(trace: Trace, name: str, step: int) -> list[int]:
    at = trace.steps_of("batch", name) == trace.start + step
    return [int(number) for number in trace.batch[name][at]]


def _finding(trace: Trace, step: int, name: str, leaf: str, traces: tuple[Trace, Trace]) -> Finding:
    numbers = [_numbers_at(t, n, step) for t, n in zip(traces, (name, leaf), strict=True)]
    a, b = (found[0] if found else 0 for found in numbers)
    return Finding(step + 1, "batch", name, (), a, b, np.inf, 0.0, np.inf, ("torch", "jax"))
