"""Why a port's first loss is that of some of the micro-batches, where PyTorch has all of them."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from twinstep.judge import tolerance
from twinstep.port.causes.gradient_causes import FirstStep
from twinstep.port.updates import Cause
from twinstep.trace.ledger import Trace

_BY_CHANCE = 1e-3
"""So likely may one of all that is tried be met by a loss that has nothing to do with it."""


class _Taken(NamedTuple):
    """Some of the passes, in words, and whether their sum is divided by their number."""

    says: str
    passes: tuple[int, ...]
    by_number: bool


def causes_of_passes(step: FirstStep, torch: Trace) -> list[Cause]:
    """Which of the first update's backward passes make the port's loss; its gradients are off too.

    Args:
        step: Both sides' first.
        torch: PyTorch's recording, which has each pass's loss as it is backpropagated.

    Returns:
        The causes; several, if several fit alike; none where chance might make one.
    """
    parts = _parts(torch)
    if not step.off or len(parts) < 2 or not np.isfinite([*parts, *step.losses]).all():
        return []
    port = step.losses[1]
    tried = {one: _loss(parts, one) for one in _some(len(parts))}
    made = np.array([*tried.values()])
    sizes = np.maximum(np.abs(made), abs(port))
    allowed = tolerance.plain_bound(sizes, np.ones(len(made)), step.kind)
    if 2 * allowed.sum() > _BY_CHANCE * np.ptp(made):
        return []
    ratios = np.abs(made - port) / allowed
    return [
        _cause(one, len(parts), float(ratio))
        for one, ratio in zip(tried, ratios, strict=True)
        if ratio <= 1
    ]


def _parts(trace: Trace) -> np.ndarray:
    """(K,) the losses of the first update's passes, which add up to its loss; else none."""
    micro = trace.micro_losses.get("loss")
    if micro is None or micro.ndim != 1:
        return np.zeros(0)
    found: np.ndarray = micro[trace.steps_of("micro_losses", "loss") == trace.start].astype(float)
    bound = tolerance.plain_bound(np.abs(trace.losses[:1]), np.ones(1), trace.metadata.dtype)
    return found if abs(found.sum() - trace.losses[0]) <= bound[0] else np.zeros(0)


def _some(count: int) -> Iterator[_Taken]:
    """One alone, or all but one."""
    for k in range(count):
        of = {0: "the first", count - 1: "the last"}.get(k, f"number {k + 1}")
        others = tuple(i for i in range(count) if i != k)
        for by_number in (True, False):
            yield _Taken(f"{of} of {count} micro-batches alone", (k,), by_number)
            if count > 2:
                says = f"all of {count} micro-batches but {of}"
                yield _Taken(says, others, by_number)


def _loss(parts: np.ndarray, one: _Taken) -> float:
    factor = len(parts) / len(one.passes) if one.by_number else 1.0
    return float(parts[[*one.passes]].sum()) * factor


def _cause(one: _Taken, count: int, ratio: float) -> Cause:
    shares = len(one.passes) if one.by_number else count
    divided = f", divided by {shares}" if shares > 1 else ""
    says = f"the loss is that of {one.says}{divided}; the gradients are not PyTorch's either"
    return Cause("micro-batches left out", says, {"passes": float(len(one.passes))}, ratio)
