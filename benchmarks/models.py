"""What the whole models cost in both frameworks: `python benchmarks/models.py [--repeats N]`.

On one core, in float32: PyTorch's loop beside JAX's scan over the same steps; they take turns. The
last losses of both are held against each other first.
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from twinstep.bench import markdown
from twinstep.bench.timing import interleaved, ratios, spread
from twinstep.bench.training import call
from twinstep.cli.parsing import parse
from twinstep.problems import MODELS
from twinstep.problems.base import Spec
from twinstep.runs import launch

README = Path(__file__).parent / "README.md"
START, END = "<!-- models -->", "<!-- /models -->"
ASKED = 1.0
ALIKE = 0.2
"""How far the last losses may be apart: rounding parts ResNet's by 7e-2 in 20 steps, others'
by 1e-6; what judges is `verify models`."""


@dataclass(frozen=True)
class Options:
    """How long to look."""

    repeats: int = 9
    """Turns that each side gets."""
    steps: int = 20
    """Updates of a turn."""


def row(spec: Spec, repeats: int) -> tuple[str, ...]:
    """A model's figures, as the table has them."""
    sides = {
        "torch": launch.variants("torch", spec)["eager"],
        "jax": launch.variants("jax", spec)["scan"],
    }
    firsts = {name: call(side) for name, side in sides.items()}
    theirs, ours = (float(side.result().losses[-1]) for side in sides.values())
    apart = abs(ours / theirs - 1)
    if not apart <= ALIKE:
        raise SystemExit(f"{spec.name}: the last losses are {apart:.1e} apart, expected {ALIKE}")
    times = interleaved({name: partial(call, side) for name, side in sides.items()}, repeats)
    us = spread([1e6 * seconds / spec.total_steps for seconds in times["torch"]])
    ratio = ratios(times["torch"], times["jax"])
    return spec.name, str(us), str(ratio), f"{firsts['jax']:.1f}", f"{apart:.0e}"


def main(options: Options) -> int:
    """Takes the figures and puts them between the README's markers."""
    launch.set_threads("torch", 1)
    heads = ("model", "PyTorch eager, us a step", "JAX scan", "first call, s", "apart at the end")
    lines = []
    for kind in MODELS.values():
        lines.append(row(kind(steps=options.steps), options.repeats))
        print(*lines[-1], flush=True)
    table = "\n".join([*markdown.lined_up(heads, lines), ""])
    README.write_text(markdown.between(START, END, README.read_text(), table))
    return 0


if __name__ == "__main__":
    sys.exit(main(parse(Options, sys.argv[1:], "python benchmarks/models.py")))
