"""Does your JAX code train exactly like your PyTorch code, and if not, where does it part?

Neither framework is imported when this package is; a run imports the one that it needs.
"""

from twinstep.compare import compare
from twinstep.errors import InputError
from twinstep.findings import Comparison, Finding, Verdict
from twinstep.launch import run
from twinstep.specs import EXAMPLES, Spec
from twinstep.storage import load_trace, open_trace
from twinstep.trace import Trace
from twinstep.verify import Verification, verify

__all__ = [
    "Comparison",
    "Finding",
    "InputError",
    "Spec",
    "Trace",
    "Verdict",
    "Verification",
    "compare",
    "examples",
    "load_trace",
    "open_trace",
    "run",
    "verify",
]


def examples() -> dict[str, type[Spec]]:
    """The documents' examples: name -> what makes its spec, `examples()["zero_grad"](seed=1)`."""
    return dict(EXAMPLES)
