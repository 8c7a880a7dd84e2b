"""Results as one HTML page that stands by itself: verdicts, code, plots, and what they mean.

Everything is in the file: no script, no font, no address. What a reader has to know to judge the
figures is said on the page; the tolerances that it names are read from `twinstep.judge.tolerance`.
"""

import dataclasses
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from twinstep.device_config import CPU, DeviceConfig
from twinstep.judge import tolerance
from twinstep.judge.findings import Comparison, Verdict
from twinstep.problems.base import Claim, Spec
from twinstep.problems.flags import shown
from twinstep.report import write_text
from twinstep.report.highlight import Row, twin_rows
from twinstep.report.palette import PALETTE
from twinstep.report.parts import PLOT_WIDTH, Badge, Cell, Line, badge, cell, line, share, template
from twinstep.report.plots import MODES, differences_figure, losses_figure, svg
from twinstep.report.show import path_of, source
from twinstep.runs.pool import Lost
from twinstep.runs.verification import Verification
from twinstep.trace.stages import STAGES

_SHOWN = [stage.name for stage in STAGES.values() if stage.noisy]


class Result(NamedTuple):
    """One verification, as text and pictures."""

    id: str
    label: str
    badge: Badge
    same: bool
    said: str
    reason: str
    first: Line | None
    first_mode: str
    steps: int
    cells: dict[str, Cell | None]
    free: Cell
    chaotic_from: int | None
    seconds: str
    facts: list[tuple[str, str]]
    command: str
    lines: list[Line]
    plots: dict[str, str]


class Example(NamedTuple):
    """All results of one example."""

    id: str
    spec: Spec
    summary: str
    code: list[Row]
    paths: tuple[str, str]
    claims: list[tuple[str, list[tuple[str, Claim]]]]
    results: list[Result]

    @property
    def failing(self) -> list[Result]:
        """The results that are not the same."""
        return [result for result in self.results if not result.same]


def page(found: Sequence[Verification | Lost], device_config: DeviceConfig = CPU) -> str:
    """The HTML page of some results; the same results give the same text.

    device_config: where they were trained, for the commands that repeat them
    """
    results = [result for result in found if not isinstance(result, Lost)]
    examples = _examples(results, device_config)
    counts = {v: sum(r.comparison.verdict is v for r in results) for v in Verdict}
    return str(
        template("page.html").render(
            examples=examples,
            failing=[(e, r) for e in examples for r in e.failing],
            total=len(results),
            lost=[str(one) for one in found if isinstance(one, Lost)],
            counts=[(badge(verdict), count) for verdict, count in counts.items() if count],
            verdicts=[(badge(verdict), verdict.same) for verdict in Verdict],
            stages={name: STAGES[name].holds for name in _SHOWN},
            palette=PALETTE,
            tolerance=tolerance,
            eps={dtype: f"{tolerance.eps(dtype):.1e}" for dtype in ("float64", "float32")},
        )
    )


def write_page(
    target: str, results: Sequence[Verification | Lost], device_config: DeviceConfig = CPU
) -> None:
    """Writes the page to a file, whole or not at all. Raises InputError."""
    write_text(target, page(results, device_config))


def command_of(spec: Spec, device_config: DeviceConfig = CPU) -> str:
    """The shell command that verifies this very spec; every value that is not the default."""
    example = [spec.name] if spec.table is None else [spec.table, "--row", spec.name]
    words = ["twinstep", "verify", *example, "--dtype", spec.dtype, "--seed", str(spec.seed)]
    default = {field.name: field.default for field in shown(spec)}
    for name, value in spec.hyper_parameters().items():
        said = name in ("dtype", "seed") or (spec.table is not None and name != "steps")
        if not said and value != default[name]:
            words += _flag(name, value)
    for field in dataclasses.fields(device_config):
        value = getattr(device_config, field.name)
        if value != field.default:
            words += _flag(field.name, value)
    return shlex.join(words)


def _flag(name: str, value: Any) -> list[str]:
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [flag if value else flag.replace("--", "--no-", 1)]
    if isinstance(value, (tuple, list)):
        return [flag, *map(str, value)]
    # a value that begins with a dash would be taken for a flag
    return [f"{flag}={value}"] if str(value).startswith("-") else [flag, str(value)]


def _examples(results: Sequence[Verification], device_config: DeviceConfig) -> list[Example]:
    """One an example, in the order in which they come first; their results in theirs."""
    names = dict.fromkeys(result.spec.name for result in results)
    grouped = {name: [r for r in results if r.spec.name == name] for name in names}
    examples = []
    for number, group in enumerate(grouped.values(), 1):
        spec = group[0].spec
        examples.append(
            Example(
                id=f"example-{number}",
                spec=spec,
                summary=(type(spec).__doc__ or "").split("\n")[0],
                code=twin_rows(source(spec, "torch"), source(spec, "jax")),
                paths=(path_of(spec, "torch"), path_of(spec, "jax")),
                claims=_claims(group),
                results=[
                    _result(result, f"result-{number}-{k}", _label(result, group), device_config)
                    for k, result in enumerate(group, 1)
                ],
            )
        )
    return examples


def _label(result: Verification, group: Sequence[Verification]) -> str:
    """What tells a result from the others of its example: the dtype, or the whole spec."""
    dtypes = [other.spec.dtype for other in group]
    if len(set(dtypes)) == len(dtypes):
        return result.spec.dtype
    return f"{result.spec.dtype}, seed {result.spec.seed}, run {_run_number(result, group)}"


def _run_number(result: Verification, group: Sequence[Verification]) -> int:
    return next(k for k, other in enumerate(group, 1) if other is result)


def _claims(group: Sequence[Verification]) -> list[tuple[str, list[tuple[str, Claim]]]]:
    """What the document says, and what was measured in each dtype."""
    found: dict[str, list[tuple[str, Claim]]] = {}
    for result in group:
        for claim in result.claims:
            found.setdefault(claim.says, []).append((_label(result, group), claim))
    return list(found.items())


def _result(result: Verification, name: str, label: str, device_config: DeviceConfig) -> Result:
    comparison = result.comparison
    gate = comparison.worst.get("gate", {})
    return Result(
        id=name,
        label=label,
        badge=badge(comparison.verdict),
        same=comparison.verdict.same,
        said=_said(comparison),
        reason=comparison.reason,
        first=None if comparison.first is None else line("", comparison.first, result.spec.dtype),
        first_mode=_first_mode(comparison),
        steps=comparison.steps,
        cells={stage: cell(gate[stage].ratio) if stage in gate else None for stage in _SHOWN},
        free=cell(comparison.smallest_allowance("free")),
        chaotic_from=comparison.chaotic_from,
        seconds=f"{result.seconds:.1f}",
        facts=_facts(result),
        command=command_of(result.spec, device_config),
        lines=[
            line(said, finding, result.spec.dtype)
            for mode, said in MODES.items()
            for stage in STAGES
            if (finding := comparison.worst.get(mode, {}).get(stage))
            and (stage != "batch" or finding.difference != 0)
        ],
        plots=_plots(result, name),
    )


def _plots(result: Verification, name: str) -> dict[str, str]:
    where = f"of {result.spec.name} in {result.spec.dtype} over the steps"
    losses = losses_figure([result], width=PLOT_WIDTH)
    plots = {"loss": svg(losses, f"{name}-l-", f"The losses {where}, both frameworks")}
    seen = result.comparison, result.history, result.spec.dtype
    for mode, said in MODES.items():
        label = f"The difference and the allowance of every stage {where}, {said}"
        figure = differences_figure(*seen, [mode], width=PLOT_WIDTH)
        plots[mode] = svg(figure, f"{name}-{mode[0]}-", label)
    return plots


def _said(comparison: Comparison) -> str:
    """The verdict and how near it was, in a sentence for people."""
    if not comparison.steps:
        return comparison.reason
    gate, free = (comparison.smallest_allowance(mode) for mode in MODES)
    match comparison.verdict:
        case Verdict.EQUAL:
            return "Every number of every step is the same, bit for bit, in both comparisons."
        case Verdict.ROUNDING:
            until = f" up to step {comparison.chaotic_from - 1}" if comparison.chaotic_from else ""
            return (
                f"Each step by itself uses at most {share(gate)} of what rounding explains, "
                f"the free run {share(free)}{until}."
            )
        case Verdict.DRIFT:
            return (
                f"Each step by itself uses at most {share(gate)} of what rounding explains, but "
                f"the free run grew to {share(free)} of it."
            )
        case Verdict.MISMATCH:
            return f"More than rounding explains: {comparison.reason}."
    return f"Nothing was proved: {comparison.reason}."


def _first_mode(comparison: Comparison) -> str:
    """Which comparison noticed: the judge takes from the free run only what no gate can see."""
    first = comparison.first
    if first is None:
        return ""
    if first.step == 0:
        return "before the first update"
    if first.stage == "batch":
        return "in what the two sides trained on"
    # without a gate, as where two saved traces are compared, the free run is all there is
    if comparison.verdict is Verdict.DRIFT or not comparison.worst.get("gate"):
        return "in the free run"
    return "in the gate"


def _facts(result: Verification) -> list[tuple[str, str]]:
    """What one has to know to repeat or to trust it."""
    comparison = result.comparison
    names = {"torch": "PyTorch", "jax": "JAX"}
    facts = [("seed", str(result.spec.seed)), ("steps", str(comparison.steps))]
    for framework, run in result.runs.items():
        versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
        said = f"{versions} on {run.device}, matrix precision {run.precision}"
        facts.append((names.get(framework, framework), said))
    batches = [stages["batch"] for stages in comparison.worst.values() if "batch" in stages]
    if batches and all(finding.difference == 0 for finding in batches):
        facts.append(("batches", "the same samples at every step"))
    facts.append(("free run's allowance", comparison.bound))
    facts += [("note", note) for note in comparison.notes]
    if comparison.chaotic_from:
        facts.append(
            (
                "free run judged",
                f"to step {comparison.chaotic_from - 1}: from there on rounding alone "
                "parts two runs of this training",
            )
        )
    if result.distances:
        torch, jax = result.distances["torch"], result.distances["jax"]
        nearer = f"{names[result.nearer]} nearer" if result.nearer in names else "both as near"
        facts.append(("away from float64", f"PyTorch {torch:.1e}, JAX {jax:.1e}: {nearer}"))
    for name, cost in (result.costs or {}).items():
        said = f"parameters {cost.fast.params:.1e} from float64, {cost.full.params:.1e} without it"
        if cost.same_bits:
            said = f"none on {result.runs[name].device}: the same bits without it"
        facts.append((f"fast mode, {names[name]}", said))
    for name, percent in result.accuracy.items():
        of = result.outcomes[name].metrics["test_images"]
        facts.append((f"test images, {names[name]}", f"{percent:.2f} % of {of:.0f}"))
    facts.append(("took", f"{result.seconds:.1f} s"))
    return facts
