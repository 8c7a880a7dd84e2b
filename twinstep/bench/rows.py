"""What a benchmark gives: a row a way to train, and what proving costs; as values and as JSON."""

import math
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from twinstep.bench.timing import Spread
from twinstep.problems import EXAMPLES
from twinstep.problems.base import Spec

RUNS: dict[str, tuple[int, ...]] = {
    "linear_regression": (100, 2000),
    "zero_grad": (5, 100, 2000),
    "backpropagation": (1, 100, 2000),
    "parameter_groups": (50,),
    "mnist_rnn": (23,),  # an epoch of the small digits, up to its last, smaller batch
}
"""The documents' kinds of model; the document's own number of steps and longer runs."""

LONG = 2000  # steps
GATES = {"linear_regression": 2000, "zero_grad": 2000, "backpropagation": 2000} | {
    "parameter_groups": 200,
    "mnist_rnn": 92,
}
"""Steps of the runs for which the gate is timed."""

ASKED = {
    ("linear_regression", 100): 100.0,
    ("linear_regression", 2000): 300.0,
    ("zero_grad", 100): 40.0,
    ("zero_grad", 2000): 60.0,
    ("backpropagation", 100): 40.0,
    ("backpropagation", 2000): 60.0,
    ("mnist_rnn", 23): 1.8,
}
"""How many times as fast as PyTorch's loop JAX was to be, with the trace, on one core."""
ASKED_OF_GATE = 1.15
ASKED_OF_START = 0.3  # seconds


@dataclass(frozen=True)
class Row:
    """One way to make one run.

    cores: "one" or "all"; threads: how many those are
    variant: a key of `variants.LABELS`
    ratio: how many times as fast as PyTorch eager; us: microseconds a step
    first: seconds of the first call, in which JAX traces and compiles; the state is there already
    verdict: of that very run; None where it was not made
    chaotic_from: the step from which on rounding alone parts runs like this, if values were judged
        only up to it
    problem: why there is no figure
    """

    example: str
    steps: int
    dtype: str
    cores: str
    threads: int
    variant: str
    ratio: Spread | None = None
    us: Spread | None = None
    first: float | None = None
    verdict: str | None = None
    chaotic_from: int | None = None
    problem: str | None = None

    @property
    def same(self) -> bool:
        """Whether no run of this row was found to train differently."""
        return self.verdict in (None, "equal", "rounding")

    @property
    def asked(self) -> float | None:
        """What the ratio was to reach, if anything was asked of it."""
        if (self.variant, self.cores, self.dtype) != ("trace", "one", "float32"):
            return None
        return ASKED.get((self.example, self.steps))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {
            "ratio": _plain(self.ratio),
            "us": _plain(self.us),
            "asked": self.asked,
            "same": self.same,
        }


@dataclass(frozen=True)
class Cost:
    """What proving costs.

    what: "gate" (a ratio to both trainings alone, with its example and steps) or "start" (seconds
        of `twinstep --help`)
    """

    what: str
    value: Spread | None
    asked: float
    example: str | None = None
    steps: int | None = None
    problem: str | None = None

    @property
    def same(self) -> bool:
        """Whether what was timed had come to the right verdict."""
        return self.problem is None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"value": _plain(self.value), "same": self.same}


Found = Row | Cost


def runs(spec: Spec) -> list[int]:
    """How many steps are timed where nobody says: the document's own number, and a long run."""
    if spec.steps:
        return [spec.steps]
    if spec.name in RUNS:
        return list(RUNS[spec.name])
    own = spec.total_steps
    return [own, LONG] if own < LONG and spec.batches().batch_size is None else [own]


def representative() -> list[type[Spec]]:
    """The examples that stand for all."""
    return [EXAMPLES[name] for name in RUNS]


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    import os
    from importlib.metadata import version

    has = hasattr(os, "sched_getaffinity")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if has else os.cpu_count() or 1,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "jax", "flax", "optax")},
    }


def report(found: Sequence[Found], notes: Iterable[str] = ()) -> dict[str, Any]:
    """Everything as plain JSON values."""
    return {
        "same": all(one.same for one in found),
        "machine": machine(),
        "rows": [one.to_dict() for one in found if isinstance(one, Row)],
        "costs": [one.to_dict() for one in found if isinstance(one, Cost)],
        "notes": list(notes),
    }


def _plain(value: Spread | None) -> dict[str, float] | None:
    if value is None or not all(map(math.isfinite, value)):
        return None
    return value._asdict()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
