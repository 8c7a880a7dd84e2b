"""Two traces -> a Comparison. Pure functions over NumPy; no framework, no files."""

from collections.abc import Mapping
from typing import Any

from twinstep.errors import InputError
from twinstep.judge.findings import Comparison
from twinstep.judge.judge import Judge
from twinstep.judge.structure import structure
from twinstep.trace.ledger import Metadata, Trace


def compare(reference: Trace, candidate: Trace, *, steps: int | None = None) -> Comparison:
    """Judges two free runs of the same problem, whichever frameworks and machines they ran on.

    The allowance is the rounding noise that the traces bring (the larger where both do), else a
    plain bound.

    Args:
        reference, candidate: The traces; which is named first decides no verdict.
        steps: Compare the first ones only; None: all.

    Returns:
        The verdict, its reason in a sentence, and the first entry that is off.

    Raises:
        InputError: For what is no trace of NumPy arrays, for traces of different problems, names,
            shapes, dtypes or lengths, and for steps that they do not have.

    Example:
        >>> import dataclasses
        >>> import twinstep
        >>> right = twinstep.run(twinstep.examples()["zero_grad"](steps=2), framework="torch")
        >>> losses = right.losses.copy()
        >>> losses[1] += 0.25
        >>> found = twinstep.compare(right, dataclasses.replace(right, losses=losses))
        >>> print(found.verdict, "at", found.reason)
        mismatch at step 2, loss, loss: first 1.47, second 1.72, apart 0.25, allowed ...
    """
    for which, trace in (("first", reference), ("second", candidate)):
        if not isinstance(trace, Trace):
            kind = type(trace).__name__
            raise InputError(
                f"the {which} trace is a {kind}, expected a Trace, such as twinstep.run, "
                "load_trace or a recorder gives"
            )
    check_same_problem(reference.metadata, candidate.metadata)
    for which, trace in (("first", reference), ("second", candidate)):
        if problem := trace.validation_error():
            raise InputError(f"the {which} trace is none: {problem}")
    if steps is not None:
        lengths = len(reference), len(candidate)
        if not 1 <= steps <= min(lengths):
            raise InputError(f"steps is {steps}, the traces have {lengths[0]} and {lengths[1]}")
        reference, candidate = reference.slice(0, steps), candidate.slice(0, steps)
    if difference := structure(reference, candidate):
        raise InputError(f"the traces differ: {difference}")
    judge = Judge(reference.metadata.dtype)
    judge.free(reference, candidate)
    return judge.comparison()


def check_same_problem(a: Metadata, b: Metadata) -> None:
    """Raises InputError when two traces are not of one example with one setting."""
    if None not in (a.example, b.example) and a.example != b.example:
        raise InputError(f"the traces are of different examples: {a.example} and {b.example}")
    if a.spec is None or b.spec is None:  # a loop of one's own has none to compare
        return
    ours, theirs = dict(a.spec), dict(b.spec)
    differ = [key for key in sorted(ours.keys() | theirs.keys()) if _differs(ours, theirs, key)]
    if differ:
        pairs = ", ".join(f"{key} {ours.get(key)!r} and {theirs.get(key)!r}" for key in differ)
        raise InputError(f"the traces are of different settings: {pairs}")


# Where the run's length and data came from is no part of the problem: the length is compared as
# such, the data by the fingerprint of every batch.
_NOT_THE_PROBLEM = {"epochs", "steps", "data_dir"}


def _differs(ours: Mapping[str, Any], theirs: Mapping[str, Any], key: str) -> bool:
    def plain(value: Any) -> Any:
        return list(value) if isinstance(value, tuple) else value

    return key not in _NOT_THE_PROBLEM and plain(ours.get(key)) != plain(theirs.get(key))
