"""One trace of consecutive pieces."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from twinstep.errors import InputError
from twinstep.trace.ledger import Trace, keeps_rows
from twinstep.trace.stages import LEAVES


def concatenate(chunks: Sequence[Trace]) -> Trace:
    """One trace from consecutive pieces. Raises InputError when they do not follow each other."""
    if not chunks:
        raise InputError("a trace of no steps: expected at least 1")
    first, last = chunks[0], chunks[-1]
    for before, after in itertools.pairwise(chunks):
        if before.start + len(before) != after.start:
            raise InputError(
                f"steps {after.start} follow steps that end at {before.start + len(before)}"
            )
    joined: dict[str, Any] = {}
    rows: dict[str, np.ndarray] = {}
    every = np.arange(first.start, last.start + len(last))
    for stage in LEAVES:
        joined[stage.field] = {}
        for leaf in dict.fromkeys(leaf for chunk in chunks for leaf in chunk.leaves(stage)):
            held = [chunk for chunk in chunks if leaf in chunk.leaves(stage)]
            arrays = [chunk.leaves(stage)[leaf] for chunk in held]
            forms = [(array.shape[1:], array.dtype) for array in arrays]
            for chunk, form in zip(held, forms, strict=True):
                if form != forms[0]:
                    raise InputError(
                        f"the {stage.name} of {leaf} are from step {chunk.start} on not of the "
                        "shape and dtype that they had"
                    )
            steps = np.concatenate([chunk.steps_of(stage.name, leaf) for chunk in held])
            if keeps_rows(f"{stage.name}/{leaf}", steps, every):
                rows[f"{stage.name}/{leaf}"] = steps
            once = stage.name == "grads" and all(
                chunk.held_once(leaf)
                for chunk in chunks
                if leaf in chunk.grads or leaf in chunk.raw_grads
            )
            joined[stage.field][leaf] = (
                joined["raw_grads"][leaf]
                if once
                else np.concatenate(
                    [arrays[0][: stage.initial], *(array[stage.initial :] for array in arrays)]
                )
            )
    known = np.concatenate([chunk.steps_of("loss", "loss") for chunk in chunks])
    if len(known) < len(every):
        rows["loss/loss"] = known

    def measured(pick: str) -> Any:
        pieces = [getattr(chunk, pick) for chunk in chunks]
        return {name: np.concatenate([p[name] for p in pieces]) for name in pieces[0]}

    noisy = all(
        chunk.rounding_noise is not None and chunk.rounding_scale is not None for chunk in chunks
    )
    return dataclasses.replace(
        last,
        **joined,
        losses=np.concatenate([chunk.losses for chunk in chunks]),
        rounding_noise=measured("rounding_noise") if noisy else None,
        rounding_scale=measured("rounding_scale") if noisy else None,
        inputs={
            name: {n: a for chunk in chunks for n, a in chunk.inputs.get(name, {}).items()}
            for name in dict.fromkeys(name for chunk in chunks for name in chunk.inputs)
        },
        start=first.start,
        rows=rows,
    )
