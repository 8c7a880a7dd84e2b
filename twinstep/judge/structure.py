"""Names, shapes, dtypes and lengths are compared before values; nothing is broadcast."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from twinstep.trace import dtypes, evaluation
from twinstep.trace.ledger import Trace
from twinstep.trace.stages import STAGES, STEPS


class Structure(NamedTuple):
    """A difference that comes before all values: a name, a shape, a dtype or a length."""

    stage: str
    leaf: str
    says: str

    def __str__(self) -> str:
        return f"{self.stage}, {self.leaf}: {self.says}" if self.leaf else self.says


def structure(reference: Trace, candidate: Trace) -> Structure | None:
    """The first name, shape, dtype or length in which two traces differ; None: in nothing."""
    if len(reference) != len(candidate):
        return Structure("", "", f"{len(reference)} steps and {len(candidate)} steps")
    if reference.start != candidate.start:
        return Structure("", "", f"they start at steps {reference.start} and {candidate.start}")
    asked = _asked(reference, candidate)
    mine, theirs = (
        {(stage, leaf): array for stage, leaf, array in trace.entries() if stage in asked}
        for trace in (reference, candidate)
    )
    both = dict.fromkeys([*mine, *theirs])
    for key in sorted(both, key=lambda key: list(STAGES).index(key[0])):
        a, b = mine.get(key), theirs.get(key)
        if a is None or b is None:
            return Structure(*key, f"only the {'second' if a is None else 'first'} trace has it")
        if a.shape[1:] != b.shape[1:]:
            return Structure(*key, f"shapes {a.shape[1:]} and {b.shape[1:]}")
        one, other = (trace.steps_of(*key).tolist() for trace in (reference, candidate))
        if one != other:
            return Structure(*key, _at_other_steps(one, other))
        if len(a) != len(b):
            return Structure(*key, f"{len(a)} rows and {len(b)} rows")
        kinds = dtypes.name(a.dtype), dtypes.name(b.dtype)
        if kinds[0] != kinds[1]:
            return Structure(*key, f"dtypes {kinds[0]} and {kinds[1]}")
    one, other = reference.evaluation, candidate.evaluation
    for name in evaluation.NAMES:
        if (name in one) != (name in other):
            which = "first" if name in one else "second"
            return Structure("evaluation", name, f"only the {which} trace has it")
        if name in one and one[name].shape != other[name].shape:
            says = f"shapes {one[name].shape} and {other[name].shape}"
            return Structure("evaluation", name, says)
    return None


def _at_other_steps(one: list[int], other: list[int]) -> str:
    """How the steps differ at which two leaves have rows."""
    step = min((Counter(one) - Counter(other)) + (Counter(other) - Counter(one)))
    counts = one.count(step), other.count(step)
    if 0 in counts:
        which = "second" if counts[0] == 0 else "first"
        return f"at step {step + 1} only the {which} trace has it"
    return f"at step {step + 1} the first trace has {counts[0]} rows, the second {counts[1]}"


def pairs(reference: Trace, candidate: Trace) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """(stage, leaf, both sides' (T, ...) arrays) in the ledger's order, of all that is compared.

    Given gradients that are on both sides what was backpropagated are compared once, as that.
    """
    asked = _asked(reference, candidate)
    theirs = {(stage, leaf): array for stage, leaf, array in candidate.entries()}
    for stage, leaf, array in reference.entries():
        once = stage == "grads" and reference.held_once(leaf) and candidate.held_once(leaf)
        if stage in asked and not once:
            yield stage, leaf, array, theirs[stage, leaf]


def _asked(one: Trace, other: Trace) -> set[str]:
    """The names of the stages that are compared: some only where both sides have them."""
    return {s.name for s in STEPS if not s.both or (one.leaves(s) and other.leaves(s))}
