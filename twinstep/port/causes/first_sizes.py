"""What a factor between two losses or gradients may be of: a batch's sizes."""

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
        if found.get("samples", 1) % passes == 0:
            found["samples of a micro-batch"] = found.get("samples", 1) // passes
    if outputs := _outputs(trace):
        found["outputs of a sample"] = outputs
        if "samples" in found:
            found["outputs"] = found["samples"] * outputs
    return {what: number for what, number in found.items() if number > 1}


def _outputs(trace: Trace) -> int:
    """Of the last layer, where that is one with a weight of two axes or more; else 0."""
    last = next(reversed(list(trace.params)), "")
    layer = last.rpartition(".")[0]
    weights = [
        array.shape[1]
        for name, array in trace.params.items()
        if name.rpartition(".")[0] == layer and array.ndim > 2
    ]
    return weights[-1] if len(weights) == 1 else 0


def factor(value: float, sizes: dict[str, int], eps: float) -> Factor:
    """What a factor is of: a size, one over a size, or one over another; all of the plainest."""

    def near(number: float) -> bool:
        return abs(value / number - 1) <= _WITHIN * eps

    halved = ["a 1/2 that one has and the other has not"] if near(2) or near(0.5) else []
    whole = [f"the number of {what}" for what, number in sizes.items() if near(number)]
    if whole:
        return Factor(_or([*whole, *halved]), "sum for mean")
    parts = [f"1 / the number of {what}" for what, number in sizes.items() if near(1 / number)]
    if parts:
        return Factor(_or([*parts, *halved]), "mean for sum")
    if halved:
        return Factor(halved[0], "")
    both = itertools.permutations(sizes.items(), 2)
    quotients = [f"{a} / {b}" for (a, m), (b, n) in both if near(m / n)]
    return Factor(_or(quotients), "")


def _or(found: list[str]) -> str:
    return ", or ".join(found)
