"""What a document says of its example, beside what was measured: a pass of its own.

It may take further trainings, on the JAX side: of one step, of one more, with another optimizer.
"""

import dataclasses

from twinstep.place import CPU, Place
from twinstep.problems.base import Spec
from twinstep.runs import launch
from twinstep.runs.verification import Tail, Verification
from twinstep.trace.ledger import Outcome


def with_claims(result: Verification, place: Place = CPU) -> Verification:
    """The same result with what the document claims of that run."""
    ran = result.outcomes["jax"]
    claims = result.spec.claims(ran, lambda other: _outcome_of(other, place))
    return dataclasses.replace(result, claims=claims)


def _outcome_of(spec: Spec, place: Place) -> Outcome:
    """How a training ends; keeps no trace."""
    tail = Tail()
    for chunk in launch.chunks(spec, "jax", place, noise=False):
        tail.add(chunk)
    return tail.outcome()
