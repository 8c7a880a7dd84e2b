"""docs/porting/functional.md and losses.md: PyTorch's functions, what equals them in JAX, and how
far off what people write in their place is.

`python -m parity_tests.helpers.porting_functions` prints the pages as measured now; `--write`
writes them.
"""

import importlib
import math
import pkgutil
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
import torch

from twinstep.runs import launch

# where pytest finds these, and `python -m` does not
sys.path.insert(0, str(Path(__file__).parents[1]))

import helpers
from helpers.kit_parity import Case, Function, Port, cast, in_jax, in_torch

PAGES = Path(__file__).parents[2] / "docs" / "porting"
CASES_SEEN = 4  # of a function's calls: the first ones show most

_HEAD = """# Porting {what}

{intro}

Off by is how far the naive port is from PyTorch: the largest difference of an output or a gradient,
relative to PyTorch's largest entry, of a few calls in float64; "not finite" where one is NaN or
infinite and the other is not, "other shapes" where an output has another shape or dtype.

Written by `python -m parity_tests.helpers.porting_functions --write`.

| function | equal in JAX | naive port | off by | why |
|---|---|---|---|---|
"""
_FUNCTIONAL = """\
What to write for each function of `torch.nn.functional`: `twinstep.jax.nn.functional` has it under
its name, with its arguments, axes and gradients. Beside it stands the call of JAX, Flax or optax
that equals it, for those who need no kit, and what is often written and is another function."""
_LOSSES = """\
What to write for each loss of `torch.nn.functional` and its class in `torch.nn`:
`twinstep.jax.nn.functional` and `twinstep.jax.nn` have both under their names, with their
reductions, class axis and gradients. Beside it stands the call of JAX or optax that equals it, and
what is often written and is another loss."""


def tables() -> Iterator[tuple[str, str, Port, list[Case]]]:
    """(the table's name, function, its row, its calls)"""
    for found in pkgutil.iter_modules(helpers.__path__):
        if found.name.startswith("functional_"):
            module = importlib.import_module(f"helpers.{found.name}")
            for name, port in module.PORTS.items():
                yield found.name, name, port, getattr(module, "CASES", {}).get(name, [])


def is_loss(table: str, name: str) -> bool:
    """Whether a function stands on the page of losses."""
    return "losses" in table and name not in ("cosine_similarity", "pairwise_distance", "pdist")


def rows(losses: bool) -> dict[str, tuple[Port, list[Case]]]:
    """{function: (its row, its calls)} of a page."""
    found = {n: (p, c) for t, n, p, c in tables() if is_loss(t, n) is losses}
    return dict(sorted(found.items()))


def off_by(name: str, ours: Function, cases: list[Case]) -> float:
    """The largest relative difference of an output or a gradient; inf: not finite; -1: shapes."""
    worst = 0.0
    theirs = getattr(torch.nn.functional, name)
    with jax.enable_x64(True):
        for case in cases[:CASES_SEEN]:
            args, kwargs = cast([list(case.args), dict(case.kwargs)], "float64")
            wanted = in_torch(theirs, args, kwargs, case.fixed)
            try:
                found = in_jax(ours, args, kwargs)
            except (TypeError, ValueError, IndexError):
                continue  # it has no such option
            pairs = [*zip(found.outputs, wanted.outputs, strict=False)]
            pairs += [(found.grads[place], grad) for place, grad in wanted.grads.items()]
            for one, other in pairs:
                if one.shape != other.shape:
                    return -1.0
                worst = max(worst, relative(one, other))
    return worst


def relative(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference as a part of the largest entry."""
    if one.dtype.kind not in "fc":
        return float(not np.array_equal(one, other))
    finite = np.isfinite(one) & np.isfinite(other)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    if not (finite | same).all():
        return math.inf
    gaps, sizes = np.abs(one - other)[finite], np.abs(other)[finite]
    return float(gaps.max(initial=0) / (sizes.max(initial=0) or 1.0))


def shown(gap: float) -> str:
    """As the page has it: one digit of what is small, two of what is a difference."""
    if gap < 0:
        return "other shapes"
    if math.isinf(gap):
        return "not finite"
    return f"{gap:.2g}" if gap >= 1e-3 else f"{gap:.0e}".replace("e-0", "e-")


def measured(losses: bool) -> dict[str, str]:
    """{function: how far its naive port is off, as shown}"""
    return {
        name: shown(off_by(name, port.naive_call, cases)) if port.naive_call else ""
        for name, (port, cases) in rows(losses).items()
    }


def page(losses: bool, gaps: Mapping[str, str]) -> str:
    """The page with gaps that were measured."""
    what, intro = ("losses", _LOSSES) if losses else ("functions", _FUNCTIONAL)
    lines = [_HEAD.format(what=what, intro=intro)]
    for name, (port, _) in rows(losses).items():
        pure = f"`{port.pure}`" if port.pure else "none"
        naive = f"`{port.naive}`" if port.naive else ""
        lines.append(f"| `{name}` | {pure} | {naive} | {gaps[name]} | {port.why} |\n")
    return "".join(lines)


def stated(text: str) -> dict[str, str]:
    """{function: how far its naive port is off, as a page has it}"""
    row = r"^\| `(\w+)` \|.*\| ([^|]*) \| [^|]* \|$"
    return {name: gap.strip() for name, gap in re.findall(row, text, re.MULTILINE)}


def other_words(losses: bool, text: str) -> list[str]:
    """The lines of a page that are not those of the tables, whatever its gaps are."""
    said = {name: stated(text).get(name, "?") for name in rows(losses)}
    return sorted({*text.splitlines()} ^ {*page(losses, said).splitlines()})


def other_gaps(losses: bool, text: str) -> list[str]:
    """The gaps of a page that are not so, a sentence each."""
    said = stated(text)
    return [
        f"{name}: the page says {said.get(name, '?')}, measured {gap}"
        for name, gap in measured(losses).items()
        if not as_stated(said.get(name, "?"), gap)
    ]


def as_stated(stated: str, gap: str) -> bool:
    """Whether a gap is what the page says, as near as another machine comes to it."""
    if stated == gap:
        return True
    try:
        return 1 / 3 <= float(stated) / float(gap) <= 3
    except (ValueError, ZeroDivisionError):
        return False


FILES = {False: PAGES / "functional.md", True: PAGES / "losses.md"}
"""{whether it is of losses: the page}"""


def main(arguments: list[str]) -> int:
    """Prints the pages as measured now, or with --write writes them."""
    launch.set_up_xla()
    torch.set_num_threads(1)
    for losses, file in FILES.items():
        text = page(losses, measured(losses))
        if "--write" in arguments:
            file.write_text(text)
        else:
            print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
