"""What a document says of its example, beside what was measured: a pass of its own.

It may take further trainings, on the JAX side: of one step, of one more, with another optimizer.
"""

import dataclasses

from twinstep.device_config import CPU, DeviceConfig
from twinstep.problems.base import Spec
from twinstep.runs import launch
from twinstep.runs.verification import OutcomeBuilder, Verification
from twinstep.trace.ledger import Outcome


def with_claims(result: Verification, device_config: DeviceConfig = CPU) -> Verification:
    """The same result with what the document claims of that run."""
    ran = result.outcomes["jax"]
    claims = result.spec.claims(ran, lambda other: _outcome_of(other, device_config))
    return dataclasses.replace(result, claims=claims)


def _outcome_of(spec: Spec, device_config: DeviceConfig) -> Outcome:
    """How a training ends; keeps no trace."""
    builder = OutcomeBuilder()
    for chunk in launch.chunks(spec, "jax", device_config, rounding_noise=False):
        builder.add(chunk)
    return builder.outcome()
