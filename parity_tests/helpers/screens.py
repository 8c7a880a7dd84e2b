"""Results made by hand, to see what a terminal of any width shows of them."""

import numpy as np

from twinstep.judge.findings import Comparison, Finding, Verdict
from twinstep.problems import EXAMPLES, SETS
from twinstep.problems.base import Claim, Spec
from twinstep.runs.accuracy import Cost, Distance
from twinstep.runs.pool import Lost
from twinstep.runs.verification import Verification
from twinstep.trace.ledger import Metadata, Outcome

_SIDES = ("torch", "jax")
GATE = {"loss": 0.044, "raw_grads": 0.0035, "params": 0.0}


def finding(stage: str, ratio: float) -> Finding:
    """An entry that is so many times as far off as it may be."""
    return Finding(1, stage, "weight", (), 0.0, ratio, ratio, 1.0, 1.0)


def result(
    spec: Spec,
    verdict: Verdict = Verdict.ROUNDING,
    *,
    gate: dict[str, float] = GATE,
    free: float = 0.19,
    chaotic_from: int | None = None,
) -> Verification:
    """What verifying a spec found: {stage: ratio}, and the free run's ratio."""
    worst = {
        "gate": {stage: finding(stage, ratio) for stage, ratio in gate.items()},
        "free": {"params": finding("params", free)},
    }
    comparison = Comparison(
        verdict=verdict,
        reason="step 3, raw_grads, weight[0, 1]: torch 0.004, jax 0.04, apart 0.04, allowed 7e-18",
        first=None,
        worst=worst,
        bound="rounding noise measured on this run",
        steps=spec.total_steps,
        chaotic_from=chaotic_from,
    )
    single = spec.dtype == "float32"
    fast, full = Distance(1e-3, 2e-3, 3e-3), Distance(1e-7, 2e-7, 3e-7)
    claims = [
        Claim(f"{spec.name} does as its document says, and at some length", "it does", True),
        Claim("a theta is an eta", "no theta that was found here is an eta of that size", False),
    ]
    return Verification(
        spec=spec,
        comparison=comparison,
        outcomes=dict.fromkeys(_SIDES, Outcome(np.empty(0), {}, {}, {}, metrics={})),
        distances={"torch": 1.5e-8, "jax": 2.5e-8} if single else None,
        costs={"jax": Cost(fast, full, same_bits=False)} if single else None,
        claims=claims,
        history={},
        runs={n: Metadata(spec.name, {}, n, spec.dtype, "NVIDIA H100", "tf32", {}) for n in _SIDES},
        seconds=2.94,
    )


def results() -> list[Verification | Lost]:
    """All examples in both dtypes; faults, chaos, the same bits, one that was lost."""
    specs = [kind(dtype=dtype) for dtype in ("float64", "float32") for kind in EXAMPLES.values()]
    found: list[Verification | Lost] = [result(spec) for spec in specs]
    found[1] = result(specs[1], Verdict.MISMATCH, gate={**GATE, "raw_grads": 3e5}, free=2.5)
    found[3] = result(specs[3], Verdict.EQUAL, gate={"loss": 0.0, "raw_grads": 0.0}, free=0.0)
    found[5] = result(specs[5], Verdict.MISMATCH, gate={"batch": float("inf"), **GATE})
    found[7] = result(specs[7], chaotic_from=55)
    found[9] = Lost(specs[9], "killed by signal 9, which is what happens when memory runs out")
    return found


def rows() -> list[Verification | Lost]:
    """All rows of all sets, whose names are long, and differ by a word or a digit."""
    return [result(spec) for make in SETS.values() for spec in make()]
