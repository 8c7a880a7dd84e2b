"""What a factor between two losses or gradients may be of: the sizes of a batch and of its parts."""

import itertools
from dataclasses import dataclass

import numpy as np

from twinstep.trace.ledger import Trace

_WITHIN = 64.0  # eps: so far may a factor that was solved for be from a quotient of sizes


@dataclass(frozen=True)
class Factor:
    """A number, and what it is.

    says: in words; "": none of the sizes
    kind: "sum for mean", "mean for sum", or "" where neither is
    """

    says: str
    kind: str


def sizes_of(trace: Trace) -> dict[str, int]:
    """{what: how many}, of PyTorch's first update."""
    found: dict[str, int] = {}
    passes = 1
    for name in trace.batch:
        numbers = trace.batch[name][trace.steps_of("batch", name) == trace.start]
        passes = max(passes, len(numbers))
        arrays = [np.asarray(trace.inputs[name][int(n)]) for n in numbers if name in trace.inputs]
        if not arrays or not arrays[0].ndim:
            continue
        found.setdefault("samples", sum(map(len, arrays)))
        if passes > 1:
            found.setdefault("samples of a micro-batch", len(arrays[0]))
        if arrays[0].dtype.kind in "iu" and arrays[0].ndim > 1:
            found.setdefault("tokens", sum(a.size for a in arrays))
            found.setdefault("tokens of a sample", arrays[0][0].size)
        known = sum(int((a >= 0).sum()) for a in arrays if a.dtype.kind == "i")
        if arrays[0].dtype.kind == "i" and known != sum(a.size for a in arrays):
            found["targets that are not ignored"] = known
    if (micro := trace.micro_losses.get("loss")) is not None and passes == 1:
        rows = trace.steps_of("micro_losses", "loss")
        passes = max(1, int((rows == trace.start).sum())) if len(rows) == len(micro) else 1
    if passes > 1:
        found["micro-batches"] = passes
    last = next(reversed(list(trace.params.values())), None)
    if last is not None and last.ndim > 1 and last.shape[1] > 1:
        found["outputs of a sample"] = last.shape[1]
        if "samples" in found:
            found["outputs"] = found["samples"] * last.shape[1]
    return {what: number for what, number in found.items() if number > 1}


def factor(value: float, sizes: dict[str, int], eps: float) -> Factor:
    """What a factor is of: a size, one over a size, or one over another; all of the plainest."""

    def near(number: float) -> bool:
        return abs(value / number - 1) <= _WITHIN * eps

    whole = [what for what, number in sizes.items() if near(number)]
    if whole:
        return Factor(f"the number of {_or(whole)}", "sum for mean")
    parts = [what for what, number in sizes.items() if near(1 / number)]
    if parts:
        return Factor(f"1 / the number of {_or(parts)}", "mean for sum")
    if near(2) or near(0.5):
        return Factor("a 1/2 that one has and the other has not", "")
    both = itertools.permutations(sizes.items(), 2)
    quotients = [f"{a} / {b}" for (a, m), (b, n) in both if near(m / n)]
    return Factor(f"the numbers of {_or(quotients)}" if quotients else "", "")


def _or(found: list[str]) -> str:
    return ", or of ".join(found)
