"""Does your JAX code train exactly like your PyTorch code, and if not, where does it part?

Neither framework is imported when this package is; a run imports the one that it needs. What is
public is loaded when it is first asked for, so that the kit costs nothing but itself.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twinstep.errors import InputError
    from twinstep.judge.comparison import compare
    from twinstep.judge.findings import Comparison, Finding, Verdict
    from twinstep.port.gate import prove_golden
    from twinstep.port.mapping import Mapping, load_mapping
    from twinstep.port.matching import Match, match
    from twinstep.port.proving import prove
    from twinstep.problems import Spec, examples, models
    from twinstep.problems.torch_loader import TorchDataLoader
    from twinstep.problems.torch_random import TorchGenerator
    from twinstep.problems.torch_samplers import (
        TorchRandomSampler,
        TorchSubsetRandomSampler,
        TorchWeightedRandomSampler,
    )
    from twinstep.runs.launch import run
    from twinstep.runs.verification import Verification, verify
    from twinstep.trace.lazy import lazy_trace
    from twinstep.trace.ledger import Trace
    from twinstep.trace.storage import load_trace, open_trace

__all__ = [
    "Comparison",
    "Finding",
    "InputError",
    "Mapping",
    "Match",
    "Spec",
    "TorchDataLoader",
    "TorchGenerator",
    "TorchRandomSampler",
    "TorchSubsetRandomSampler",
    "TorchWeightedRandomSampler",
    "Trace",
    "Verdict",
    "Verification",
    "compare",
    "examples",
    "lazy_trace",
    "load_mapping",
    "load_trace",
    "match",
    "models",
    "open_trace",
    "prove",
    "prove_golden",
    "run",
    "verify",
]

_HOMES = {
    "Comparison": "twinstep.judge.findings",
    "Finding": "twinstep.judge.findings",
    "InputError": "twinstep.errors",
    "Mapping": "twinstep.port.mapping",
    "Match": "twinstep.port.matching",
    "Spec": "twinstep.problems",
    "TorchDataLoader": "twinstep.problems.torch_loader",
    "TorchGenerator": "twinstep.problems.torch_random",
    "TorchRandomSampler": "twinstep.problems.torch_samplers",
    "TorchSubsetRandomSampler": "twinstep.problems.torch_samplers",
    "TorchWeightedRandomSampler": "twinstep.problems.torch_samplers",
    "Trace": "twinstep.trace.ledger",
    "Verdict": "twinstep.judge.findings",
    "Verification": "twinstep.runs.verification",
    "compare": "twinstep.judge.comparison",
    "examples": "twinstep.problems",
    "load_mapping": "twinstep.port.mapping",
    "lazy_trace": "twinstep.trace.lazy",
    "load_trace": "twinstep.trace.storage",
    "match": "twinstep.port.matching",
    "models": "twinstep.problems",
    "open_trace": "twinstep.trace.storage",
    "prove": "twinstep.port.proving",
    "prove_golden": "twinstep.port.gate",
    "run": "twinstep.runs.launch",
    "verify": "twinstep.runs.verification",
}


if not TYPE_CHECKING:  # which knows the names above, and no others

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value  # found at once from now on
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
