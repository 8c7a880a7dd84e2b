"""Times one run of one example in every way, and has the very runs judged."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from twinstep.bench.parity import BASE, Judgement, judgements
from twinstep.bench.rows import Row
from twinstep.bench.timing import interleaved, ratios, spread, timed
from twinstep.device_config import DeviceConfig
from twinstep.judge.findings import Verdict
from twinstep.problems.base import Spec
from twinstep.runs import launch
from twinstep.trace.variants import LABELS, Variant

OPTIONAL = ("foreach", "fused", "compile")  # not every optimizer or machine has them
COMPILED = ("compile", "step", "scan", "trace")
SHARE = 0.25  # of the limit, that a run may take: it is made several times, and there are others


@dataclass(frozen=True)
class Setting:
    """How figures are taken.

    cores: "one" or "all"; threads: how many those are
    repeats: turns of each side; limit: seconds after which no turn begins
    """

    cores: str = "one"
    threads: int = 1
    repeats: int = 15
    limit: float = 60.0
    compiled: bool = False
    device: str = "cpu"

    @property
    def device_config(self) -> DeviceConfig:
        """Where it trains."""
        return DeviceConfig(self.device)


def training_rows(spec: Spec, setting: Setting) -> list[Row]:
    """A row a way; no figure in one whose run is not the same, or that there is not."""
    device_config = setting.device_config
    torch = launch.variants("torch", spec, device_config.for_torch(), compiled=setting.compiled)
    jax = launch.variants("jax", spec, device_config)
    problems = {name: why for name, why in (torch | jax).items() if isinstance(why, str)}
    variants: dict[str, Variant] = {
        n: variant for n, variant in (torch | jax).items() if n not in problems
    }
    with launch.cache_disabled("jax"):
        firsts, failed = _first_calls(variants, setting.limit)
    problems |= failed
    variants = (
        {}
        if BASE in problems
        else {n: variant for n, variant in variants.items() if n not in problems}
    )
    sides = {name: partial(call, variant) for name, variant in variants.items()}
    times = interleaved(sides, setting.repeats, setting.limit)
    found: dict[str, Judgement] = {}
    if variants:
        results = {name: variant.result() for name, variant in variants.items()}
        theirs, ours = ({n: w for n, w in variants.items() if n in names} for names in (torch, jax))
        found = judgements(theirs, ours, results, spec, device_config)
    rows = []
    for name in (name for name in LABELS if name in torch | jax):
        row = _bare(spec, setting, name)
        if name in found:
            row = _judged(row, found[name])
        if row.problem is None and name in problems:
            row = replace(row, problem=problems[name])
        if row.problem is None and BASE in problems:
            row = replace(row, problem=f"{LABELS[BASE]}, which ratios are to: {problems[BASE]}")
        if row.problem is None:
            us = [1e6 * seconds / spec.total_steps for seconds in times[name]]
            ratio = ratios(times[BASE], times[name])
            row = replace(row, ratio=ratio, us=spread(us), first=firsts[name])
        rows.append(row)
    return rows


def _first_calls(
    variants: dict[str, Variant], limit: float
) -> tuple[dict[str, float], dict[str, str]]:
    """Seconds of each way's first call; and why a way is left out: it fails and may, or is slow.

    A way that is left out is not run again, so that it takes no other's figure with it.
    """
    firsts: dict[str, float] = {}
    failed: dict[str, str] = {}
    for name, variant in variants.items():
        try:
            seconds = firsts[name] = call(variant)
            if name in COMPILED and seconds > limit * SHARE:
                seconds = call(variant)  # once more, without the compiling
        except Exception as error:
            if name not in OPTIONAL:
                raise
            failed[name] = str(error).strip().partition("\n")[0] or type(error).__name__
        else:
            if seconds > limit * SHARE:
                failed[name] = f"a run takes {seconds:.0f} s, too long for --limit {limit:.0f}"
    return firsts, failed


def without_figures(spec: Spec, setting: Setting, problem: str) -> list[Row]:
    """The rows of a run that came to no end: nothing was proved."""
    names = [name for name in LABELS if setting.compiled or name != "compile"]
    bare = [_bare(spec, setting, name) for name in names]
    return [replace(row, verdict=str(Verdict.INVALID), problem=problem) for row in bare]


def _bare(spec: Spec, setting: Setting, name: str) -> Row:
    steps = spec.total_steps
    return Row(spec.name, steps, spec.dtype, setting.cores, setting.threads, name)


def _judged(row: Row, judgement: Judgement) -> Row:
    """The row with its verdict, and with the reason where there is to be no figure."""
    verdict = str(judgement.verdict)
    if judgement.verdict.same:
        return replace(row, verdict=verdict, chaotic_from=judgement.chaotic_from)
    return replace(row, verdict=verdict, problem=f"{verdict}: {judgement.reason}")


def call(variant: Variant) -> float:
    """Seconds of a run from its start."""
    with _ready(variant):
        return timed(variant.run)


@contextlib.contextmanager
def _ready(variant: Variant) -> Iterator[None]:
    """The way's settings in force, and the state back at its start."""
    with variant.settings():
        variant.reset()
        yield
