"""What every script here does: train one example in both frameworks, side by side, and judge it."""

import io
import sys
from dataclasses import dataclass
from itertools import zip_longest

from picture import draw, room_for
from rich.cells import cell_len, set_cell_size

import twinstep
from twinstep.cli.parsing import parse_with
from twinstep.problems import Spec
from twinstep.report import plots
from twinstep.runs import launch
from twinstep.runs.claims import with_claims

HALF = 48  # columns of half a screen; a longer line stands above its mirror


@dataclass(frozen=True)
class Options:
    """Trains the example in PyTorch and in JAX, side by side, and judges every step."""

    plot: str | None = None
    """Where the plot goes, .svg or .png (default: results/EXAMPLE.svg)."""


def main(name: str, story: str | None) -> int:
    """Tells the story, trains, judges, draws; 0 where both train the same, 1 where not, else 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal without Chinese still gets the rest
        sys.stdout.reconfigure(errors="replace")
    kind = twinstep.examples()[name]
    try:
        options, spec = parse_with(Options, kind, sys.argv[1:], f"python examples/{name}.py")
        plot = options.plot or f"results/{name}.svg"
        with room_for(plot) as file:
            print(f"{(story or '').strip()}\n", flush=True)
            result = train(spec)
            plots.save(draw(result), file)
    except twinstep.InputError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 2
    for line in report(result):
        print(line)
    print(f"plot:         {plot}")
    return 0 if result.comparison.verdict.same else 1


def train(spec: Spec) -> twinstep.Verification:
    """Trains in both frameworks and judges every step."""
    launch.set_threads("torch", 1)  # so that a run gives the same bits on any number of cores
    return with_claims(twinstep.verify(spec))


def report(result: twinstep.Verification) -> list[str]:
    """The document's log lines side by side, what it claims, what was measured, the verdict."""
    lines = [*side_by_side(log(result, "torch"), log(result, "jax")), ""]
    for claim in result.claims:
        holds = {True: ": it holds", False: ": it does not hold", None: ""}[claim.holds]
        lines += [f"the document: {claim.says}", f"measured:     {claim.measured}{holds}"]
    return [*lines, f"verdict:      {result.comparison.verdict}, {result.comparison.reason}"]


def log(result: twinstep.Verification, framework: str) -> list[str]:
    """The lines that the document prints."""
    spec, outcome = result.spec, result.outcomes[framework]
    lines = [spec.log_line(step, loss) for step, loss in enumerate(outcome.losses.tolist())]
    return [line for line in lines if line] + spec.final_lines(outcome)


def side_by_side(torch: list[str], jax: list[str]) -> list[str]:
    """PyTorch's lines on the left, JAX's on the right."""
    short = [line for line in torch if cell_len(line) <= HALF]
    width = max(map(cell_len, ["PyTorch", *short]))
    rows = [f"{'PyTorch':<{width}} | JAX"]
    for left, right in zip_longest(torch, jax, fillvalue=""):
        if max(cell_len(left), cell_len(right)) <= HALF:
            rows.append(f"{set_cell_size(left, width)} | {right}")
        else:
            rows += [f"PyTorch: {left}", f"JAX:     {right}"]
    return rows
