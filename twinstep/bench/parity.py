"""Judges the runs that were timed: a figure is worth something only for a run that is the same.

Every PyTorch variant is recorded and put through the gate, step by step, as `verify` does. Of JAX's
the one that leaves a trace is, in the very run that was timed. What each timed run has left, its
losses and its last parameters, is then held against the recorded steps of that variant, with the
allowance of a free run: what rounding does to this training. No bits are asked for: a compiler may
order a sum differently.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from twinstep.device_config import CPU, DeviceConfig
from twinstep.judge.findings import Comparison, Verdict
from twinstep.judge.judge import Judge
from twinstep.problems.base import Spec
from twinstep.runs import launch
from twinstep.runs.gate import Gate
from twinstep.trace.ledger import Trace
from twinstep.trace.variants import LABELS, TrainingResult, Variant

BASE = "eager"  # what ratios are to, and what the JAX side is held against


class Judgement(NamedTuple):
    """What became of a way's run: a verdict, why where it is not the same, how far it was judged.

    chaotic_from: the step from which on values were not judged; None: all of them were
    """

    verdict: Verdict
    reason: str
    chaotic_from: int | None


def judgements(
    torch: Mapping[str, Variant],
    jax: Mapping[str, Variant],
    results: Mapping[str, TrainingResult],
    spec: Spec,
    device_config: DeviceConfig = CPU,
) -> dict[str, Judgement]:
    """What became of every way's run.

    torch, jax: each framework's variants; `eager` and `trace` among them
    results: what the timed run of each has left
    """
    gate = Gate(spec, device_config)
    noisy = launch.driver("jax", spec, device_config, rounding_noise=True)
    found: dict[str, Judgement] = {}
    for name, variant in torch.items():
        step_by_step, ends = _judge(
            variant, noisy.chunks(), {name: results[name]}, gate, noisy, spec
        )
        found[name] = _worse([step_by_step, ends[name]])
    partner = torch[BASE].recorded()
    mine = {name: results[name] for name in jax}
    step_by_step, ends = _judge(jax["trace"], partner, mine, gate, noisy, spec)
    for name in jax:
        found[name] = _worse([step_by_step, ends[name]])
    if not found[BASE].verdict.same:  # a ratio to a run that is not the same says nothing
        reason = f"{LABELS[BASE]}, which ratios are to: {found[BASE].reason}"
        for name in found:
            if name in jax or found[name].verdict.same:
                found[name] = Judgement(found[BASE].verdict, reason, None)
    return found


def _judge(
    variant: Variant,
    partner: Iterator[Trace],
    results: Mapping[str, TrainingResult],
    gate: Gate,
    noisy: Any,
    spec: Spec,
) -> tuple[Comparison, dict[str, Comparison]]:
    """A way's recorded steps, judged alone and against another run; and what timed runs left.

    Nothing is kept that grows with the number of steps but the losses.
    """
    judge = Judge(spec.dtype)
    ends = {name: Judge(spec.dtype) for name in results}
    index = spec.chunks()
    for ours, theirs, rounding_noise, chunk in zip(
        variant.recorded(), partner, noisy.chunks(), index, strict=True
    ):
        gate(judge, ours, chunk)
        measured = ours.with_rounding_noise_of(rounding_noise)
        judge.free(measured, theirs)
        for name, result in results.items():
            ends[name].free(measured, with_result(ours, result, spec.total_steps))
    return judge.comparison(), {name: end.comparison() for name, end in ends.items()}


def with_result(trace: Trace, result: TrainingResult, total: int) -> Trace:
    """Recorded steps with a run's own losses and last parameters in their place, where it has them.

    total: the run's steps; the trace may be a piece of it
    """
    end = trace.start + len(trace)
    losses = np.array(trace.losses)
    first = total - len(result.losses)  # the step of the first loss that is known
    known = slice(max(first, trace.start), end)
    if known.start < known.stop:
        losses[known.start - trace.start :] = result.losses[
            known.start - first : known.stop - first
        ]
    params = dict(trace.params)
    if end == total:
        for name, array in params.items():
            params[name] = np.concatenate([array[:-1], result.params[name][None]])
    return dataclasses.replace(trace, losses=losses, params=params)


def _worse(comparisons: list[Comparison]) -> Judgement:
    """The first that is not the same, or what all come to."""
    for comparison in comparisons:
        if not comparison.verdict.same:
            return Judgement(comparison.verdict, comparison.reason, comparison.chaotic_from)
    equal = all(comparison.verdict is Verdict.EQUAL for comparison in comparisons)
    verdict = Verdict.EQUAL if equal else Verdict.ROUNDING
    # the gate judges every step; what a timed run left is judged until it is chaotic, or by its
    # bits
    last = comparisons[-1]
    return Judgement(verdict, "", None if last.verdict is Verdict.EQUAL else last.chaotic_from)
