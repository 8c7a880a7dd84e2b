"""A pair of traces whose numbers are drawn: one, and the other with something changed."""

import dataclasses
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from twinstep.judge.findings import Finding
from twinstep.port.causes.first_causes import causes_of
from twinstep.port.sides import Side
from twinstep.port.updates import Cause
from twinstep.trace.ledger import Metadata, Trace

STEPS, SAMPLES, MOMENTUM = 8, 6, 0.1
SHAPES: dict[str, tuple[int, ...]] = {
    "square.weight": (8, 8),
    "twin.weight": (8, 8),
    "conv.weight": (4, 4, 3, 3),
    "flat.weight": (6, 36),
    "gru.weight_ih_l0": (12, 5),
    "gru.bias_ih_l0": (12,),
    "gru.bias_hh_l0": (12,),
    "lstm.bias_ih_l0": (16,),
    "qkv.weight": (24, 8),
    "qkv.bias": (24,),
    "norm.weight": (7,),
    "norm.bias": (7,),
    "head.weight": (5, 7),
    "head.bias": (5,),
}
MODULES = {
    "gru": "GRU(5, 4)",
    "lstm": "LSTM(5, 4)",
    "bn": f"BatchNorm2d(9, eps=1e-05, momentum={MOMENTUM}, affine=True, track_running_stats=True)",
}


def drawn(dtype: str = "float64", seed: int = 0) -> Trace:
    """PyTorch's: entries from a normal distribution, a norm that begins with 1 and 0."""
    rng = np.random.default_rng(seed)
    params = {n: rng.normal(size=(STEPS + 1, *s)).astype(dtype) for n, s in SHAPES.items()}
    params["norm.weight"][0], params["norm.bias"][0] = 1, 0
    grads = {n: rng.normal(size=(STEPS, *s)).astype(dtype) for n, s in SHAPES.items()}
    buffers = {}
    for last, begins, low in (("mean", 0.0, -1.0), ("var", 1.0, 0.5)):
        rows = [np.full(9, begins)]
        for _ in range(STEPS):
            rows.append((1 - MOMENTUM) * rows[-1] + MOMENTUM * rng.uniform(low, 3, 9))
        buffers[f"bn.running_{last}"] = np.array(rows).astype(dtype)
    trace = Trace(
        metadata=Metadata(None, None, "torch", dtype, "cpu", "highest", {}),
        losses=rng.uniform(1, 2, STEPS).astype(dtype),
        batch={},
        raw_grads=grads,
        grads=dict(grads),
        opt_state={},
        params=params,
        buffers=buffers,
        program={"modules": MODULES},
    )
    every = [
        {"x": rng.normal(size=(SAMPLES, 4)), "y": rng.integers(5, size=SAMPLES)}
        for _ in range(STEPS)
    ]
    return _on(trace, every)


def _on(trace: Trace, every: list[dict[str, Any]]) -> Trace:
    """The trace on these batches; a number is that of its bytes."""
    batch: dict[str, list[int]] = {name: [] for name in every[0]}
    inputs: dict[str, dict[int, np.ndarray]] = {name: {} for name in every[0]}
    for of_step in every:
        for name, array in of_step.items():
            number = zlib.crc32(np.ascontiguousarray(array).tobytes())
            batch[name].append(number)
            inputs[name][number] = array
    numbers = {name: np.array(of, np.uint32) for name, of in batch.items()}
    return dataclasses.replace(trace, batch=numbers, inputs=inputs)


def first(stage: str, step: int, leaf: str) -> Finding:
    """What a comparison would begin with."""
    return Finding(step, stage, leaf, (), 0.0, 1.0, 1.0, 0.0, np.inf)


def with_start(trace: Trace, changes: Mapping[str, Callable[[np.ndarray], np.ndarray]]) -> Trace:
    """Other parameters at step 0."""
    params = {name: array.copy() for name, array in trace.params.items()}
    for name, change in changes.items():
        params[name][0] = change(params[name][0].copy())
    return dataclasses.replace(trace, params=params)


def with_grads(trace: Trace, change: Callable[[str, np.ndarray], np.ndarray]) -> Trace:
    """Other gradients (T, ...), rounded otherwise."""
    grads = {name: change(name, array) for name, array in roughly(trace).raw_grads.items()}
    grads = {name: grad.astype(trace.raw_grads[name].dtype) for name, grad in grads.items()}
    return dataclasses.replace(trace, raw_grads=grads, grads=dict(grads))


def with_losses(trace: Trace, change: Callable[[np.ndarray], np.ndarray]) -> Trace:
    """Other losses (T,)."""
    return dataclasses.replace(trace, losses=change(trace.losses).astype(trace.losses.dtype))


def with_buffers(trace: Trace, mean: Any, var: Any) -> Trace:
    """BatchNorm's first step made otherwise, of what was there and of the batch's statistic."""
    buffers = {name: array.copy() for name, array in trace.buffers.items()}
    for last, change in (("mean", mean), ("var", var)):
        array = buffers[f"bn.running_{last}"]
        array[1] = change(array[0], (array[1] - (1 - MOMENTUM) * array[0]) / MOMENTUM)
    return dataclasses.replace(trace, buffers=buffers)


def with_batch(trace: Trace, row: int, batch: dict[str, Any]) -> Trace:
    """Another batch at one step."""
    every = [trace.inputs_of(t) for t in range(len(trace))]
    every[row] = batch
    return _on(trace, every)


def roughly(trace: Trace) -> Trace:
    """The same but for rounding: gradients, losses and buffers by an eps or two."""
    eps = np.finfo(trace.metadata.dtype).eps
    rng = np.random.default_rng(1)

    def off(array: np.ndarray) -> np.ndarray:
        made: np.ndarray = array * (1 + 2 * eps * rng.uniform(-1, 1, array.shape))
        return made.astype(array.dtype)

    grads = {name: off(array) for name, array in trace.raw_grads.items()}
    buffers = {n: np.concatenate([a[:1], off(a[1:])]) for n, a in trace.buffers.items()}
    return dataclasses.replace(
        trace, raw_grads=grads, grads=dict(grads), losses=off(trace.losses), buffers=buffers
    )


def found(torch: Trace, jax: Trace, stage: str, step: int, leaf: str) -> list[Cause]:
    """The causes of a first finding, which bear PyTorch's names on both sides."""
    causes = causes_of(Side(torch), Side(jax), first(stage, step, leaf))
    assert all(cause.ratio <= 1 for cause in causes)
    return causes


def kinds(causes: list[Cause]) -> list[str]:
    """Theirs."""
    return [cause.kind for cause in causes]
