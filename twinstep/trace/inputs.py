"""What steps were made on, so that another program can train on the very same."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from twinstep.errors import InputError

Trace = Any  # `ledger.Trace`, whose `inputs_of`, `batches` and `rng_of` these are


class _Chunked(Protocol):
    def chunks(self) -> Iterator[Trace]: ...


class SavedBatches:
    """What a saved trace has of a trace's inputs, read piece by piece."""

    def batches(self: _Chunked, micro: bool = False) -> Iterator[dict[str, Any]]:
        """What each step was made on, for another program to train on; a shard is held at a time.

        Args:
            micro: Whether each name has a list of its calls' arrays, of one call too; else a list
                stands only where there are several.

        Yields:
            {name: array} of a step, as `Trace.inputs_of` has it.

        Raises:
            InputError: For inputs that were not kept, and as `chunks` does.
        """
        return batches(self.chunks(), micro)


def batches(chunks: Iterable[Trace], micro: bool) -> Iterator[dict[str, Any]]:
    """Those of every step of consecutive traces, one of which is held at a time."""
    for trace in chunks:
        for step in range(len(trace)):
            yield of_step(trace, step, micro)


def of_step(trace: Trace, step: int, micro: bool = False) -> dict[str, Any]:
    """{name: array} of a step's row; a list of several calls, with `micro` of each."""
    _check_step(trace, step)
    if missing := [name for name in trace.batch if name not in trace.inputs]:
        raise InputError(f"the trace has no values of batch {missing[0]}, a fingerprint alone")
    found = {}
    for name, numbers in _rows_at(trace, "batch", trace.batch, step).items():
        arrays = [trace.inputs[name][int(number)] for number in numbers]
        found[name] = arrays if micro else _one_or_all(arrays)
    return found


def rng_of_step(trace: Trace, step: int) -> dict[str, Any]:
    """{generator: its state} before a step's row, of one that drew; a list of several calls."""
    _check_step(trace, step)
    states = _rows_at(trace, "rng", trace.rng, step)
    return {name: _one_or_all([*array]) for name, array in states.items()}


def _rows_at(
    trace: Trace, stage: str, leaves: Mapping[str, np.ndarray], step: int
) -> dict[str, np.ndarray]:
    """{name: (n, ...)}, a step's rows of the leaves that have some."""
    number = trace.start + step
    rows = {name: array[trace.steps_of(stage, name) == number] for name, array in leaves.items()}
    return {name: array for name, array in rows.items() if len(array)}


def _one_or_all(arrays: list[np.ndarray]) -> Any:
    return arrays[0] if len(arrays) == 1 else arrays


def _check_step(trace: Trace, step: int) -> None:
    if not 0 <= step < len(trace):
        raise InputError(f"step {step} of a trace that has {len(trace)}")
