"""What a way to train offers, in either framework, so that it can be timed and judged."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import numpy as np

from twinstep.trace.ledger import Leaves, Trace

LABELS = {
    "eager": "PyTorch eager",
    "foreach": "PyTorch foreach",
    "fused": "PyTorch fused",
    "compile": "torch.compile",
    "step": "JAX, a jitted step a call",
    "scan": "JAX scan",
    "trace": "JAX scan with the trace",
}
"""Every way to train, in the order in which they are shown; the first is what ratios are to."""


class TrainingResult(NamedTuple):
    """What a timed run has left.

    losses: (k,) those of its last k steps, as many as it keeps
    params: {name: (...)} after the last step
    """

    losses: np.ndarray
    params: Leaves


class Variant(Protocol):
    """One way to make a training. A run is all of its steps, always from the same start."""

    def settings(self) -> AbstractContextManager[None]:
        """What holds while it runs."""

    def reset(self) -> None:
        """Goes back to the start, which costs time that is not counted."""

    def run(self) -> None:
        """Trains; what is timed. Comes back when everything is computed."""

    def result(self) -> TrainingResult:
        """What the last run has left."""

    def recorded(self) -> Iterator[Trace]:
        """A run of this way with every step recorded, in pieces of `Spec.chunks`."""
