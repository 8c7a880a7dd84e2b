"""Whether two recordings were made on the same batches, however each lays them out."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

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
        pairs = zip(known.steps, known.same, strict=True)
        first = next((t for t, alike in pairs if not alike), None)
        seen = seen or any(known.same)
        if first is not None:
            findings.append(_finding(first, name, known.leaf, (one, other)))
    if findings and not seen:
        found = findings[0]
        raise InputError(
            f"step {found.step}: batch, {found.leaf}: the port trained on other batches than "
            "PyTorch from the first step on"
        )
    return findings, notes


class Partner(NamedTuple):
    """The port's own of one of PyTorch's batches.

    leaf: its name; axes: the order in which they stand as PyTorch's; None: as they are
    steps: those that have one; same: whether it is the same at each of them
    """

    leaf: str
    axes: tuple[int, ...] | None
    steps: list[int]
    same: list[bool]


def partner(one: Trace, other: Trace, name: str) -> Partner | None:
    """The one that agrees at most steps; None where none has as many entries of such a kind."""
    steps = [t for t in range(len(one)) if _numbers_at(one, name, t)]
    best: Partner | None = None
    for leaf in other.batch:
        for axes, same in _agreement(one, other, name, leaf, steps):
            if best is None or sum(same) > sum(best.same):
                best = Partner(leaf, axes, steps, same)
            if all(same):
                return best
    return best


def _agreement(
    one: Trace, other: Trace, name: str, leaf: str, steps: list[int]
) -> Iterator[tuple[tuple[int, ...] | None, list[bool]]]:
    """(an order of axes, whether two batches are the same in it at each step)."""
    numbers = [(_numbers_at(one, name, t), _numbers_at(other, leaf, t)) for t in steps]
    alike = [a == b for a, b in numbers]
    if all(alike):
        yield None, alike
        return
    if name not in one.inputs or leaf not in other.inputs:
        if any(alike):
            yield None, alike
        return
    pairs = [(array(one, name, t), array(other, leaf, t)) for t in steps]
    first, second = pairs[0]
    if not any(a.size == b.size for a, b in pairs) or _kind(first) != _kind(second):
        return
    every = tuple(range(second.ndim))
    orders = itertools.permutations(every) if second.ndim <= _MAX_AXES else [every]
    for axes in orders:
        yield (
            axes,
            [
                a.size == b.size
                and b.ndim == len(axes)
                and np.array_equal(a.reshape(-1), b.transpose(axes).reshape(-1).astype(a.dtype))
                for a, b in pairs
            ],
        )


def _kind(array: np.ndarray) -> str:
    return "whole" if array.dtype.kind in "iub" else array.dtype.kind


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


def _finding(step: int, name: str, leaf: str, traces: tuple[Trace, Trace]) -> Finding:
    numbers = [_numbers_at(t, n, step) for t, n in zip(traces, (name, leaf), strict=True)]
    a, b = (found[0] if found else 0 for found in numbers)
    return Finding(step + 1, "batch", name, (), a, b, np.inf, 0.0, np.inf, ("torch", "jax"))
