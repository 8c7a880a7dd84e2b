"""A trace of what a driver's compiled steps left, stacked."""

from typing import Any

import jax
import numpy as np

from twinstep.jax import carried
from twinstep.problems.batches import IndexChunk
from twinstep.trace.ledger import Trace

Ledger = dict[str, Any]


def assemble(
    driver: Any,
    chunk: IndexChunk,
    before: Ledger,
    ledger: Ledger,
    evaluation: dict[str, np.ndarray],
    metrics: dict[str, float],
) -> Trace:
    """The trace of a chunk. before: what there was before it; ledger: its steps', stacked."""
    names = list(driver.spec.initial_params())
    host = jax.tree.map(np.asarray, ledger)

    def with_first(stage: str) -> Any:
        return jax.tree.map(
            lambda first, rows: np.concatenate([np.asarray(first)[None], rows]),
            before[stage],
            host[stage],
        )

    params = with_first("params")
    raw_grads = {name: host["raw_grads"][name] for name in names}
    trained = {name for slot in driver.trained_layout.slots for name in slot.names}
    given = {name: host.get("grads", raw_grads)[name] for name in names if name in trained}
    return Trace(
        metadata=driver.metadata,
        losses=host["loss"],
        batch=host["batch"],
        raw_grads=raw_grads,
        grads=given,
        opt_state=host["opt_state"],
        params={name: params[name] for name in names},
        buffers=carried.in_torch_dtypes(with_first("buffers")),
        rng=carried.drawn(with_first("words"), driver.spec.seed) if "words" in host else {},
        rounding_noise=host.get("rounding_noise"),
        rounding_scale=host.get("rounding_scale"),
        start=chunk.start,
        metrics=metrics,
        evaluation=evaluation,
    )


def last_row(ledger: Ledger) -> Ledger:
    """What the last of some stacked steps has left, in NumPy: JAX would compile each slice."""
    last: Ledger = jax.tree.map(lambda array: np.asarray(array)[-1], ledger)
    return last
