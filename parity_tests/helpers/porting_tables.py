"""docs/porting/functional.md, losses.md and layers.md: what PyTorch has, what equals it in JAX, and
how far off what people write in its place is.

`python -m parity_tests.helpers.porting_tables` prints the pages as measured now; `--write` writes
them.
"""

import math
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from twinstep.runs import launch

# where pytest finds these, and `python -m` does not
sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers import porting_functions, porting_layers
from helpers.kit_parity import Port

Rows = dict[str, tuple[Port, Callable[[], float]]]
"""{a row's first cell: (what it says, how far its naive port is off)}"""


class Page(NamedTuple):
    """A table: its file's name, what it is of, the words above it, its first column, its rows."""

    name: str
    what: str
    intro: str
    column: str
    rows: Callable[[], Rows]

    @property
    def file(self) -> Path:
        """Where it lies."""
        return Path(__file__).parents[2] / "docs" / "porting" / f"{self.name}.md"


_HEAD = """# Porting {what}

{intro}

Written by `python -m parity_tests.helpers.porting_tables --write`.

| {column} | equal in JAX | naive port | off by | why |
|---|---|---|---|---|
"""
_OFF_BY = """\
Off by is how far the naive port is from PyTorch: the largest difference of an output or a gradient,
relative to PyTorch's largest entry, of a few calls in float64; "not finite" where one is NaN or
infinite and the other is not, "other shapes" where an output has another shape or dtype."""
_FUNCTIONAL = f"""\
What to write for each function of `torch.nn.functional`: `twinstep.jax.nn.functional` has it under
its name, with its arguments, axes and gradients. Beside it stands the call of JAX, Flax or optax
that equals it, for those who need no kit, and what is often written and is another function.

{_OFF_BY}"""
_LOSSES = f"""\
What to write for each loss of `torch.nn.functional` and its class in `torch.nn`:
`twinstep.jax.nn.functional` and `twinstep.jax.nn` have both under their names, with their
reductions, class axis and gradients. Beside it stands the call of JAX or optax that equals it, and
what is often written and is another loss.

{_OFF_BY}"""

PAGES = (
    Page("functional", "functions", _FUNCTIONAL, "function",
         lambda: porting_functions.rows(losses=False)),
    Page("losses", "losses", _LOSSES, "function", lambda: porting_functions.rows(losses=True)),
    Page("layers", "layers", porting_layers.INTRO, "PyTorch's call and the kit's",
         porting_layers.rows),
)  # fmt: skip


def shown(gap: float) -> str:
    """As the page has it: one digit of what is small, two of what is a difference."""
    if gap < 0:
        return "other shapes"
    if math.isinf(gap):
        return "not finite"
    return f"{gap:.2g}" if gap >= 1e-3 else f"{gap:.0e}".replace("e-0", "e-")


def measured(page: Page) -> dict[str, str]:
    """{first cell: how far its naive port is off, as shown}"""
    return {
        cell: shown(gap()) if port.naive_call else "" for cell, (port, gap) in page.rows().items()
    }


def written(page: Page, gaps: Mapping[str, str]) -> str:
    """The page's text with gaps that were measured."""
    lines = [_HEAD.format(what=page.what, intro=page.intro, column=page.column)]
    for cell, (port, _) in page.rows().items():
        pure = f"`{port.pure}`" if port.pure else "none"
        naive = f"`{port.naive}`" if port.naive else ""
        lines.append(f"| {cell} | {pure} | {naive} | {gaps[cell]} | {port.why} |\n")
    return "".join(lines)


def stated(text: str) -> dict[str, str]:
    """{first cell: how far its naive port is off, as a page has it}"""
    row = r"^\| (`[^|]*) \|.*\| ([^|]*) \| [^|]* \|$"
    return {cell: gap.strip() for cell, gap in re.findall(row, text, re.MULTILINE)}


def other_words(page: Page, text: str) -> list[str]:
    """The lines of a page that are not those of the tables, whatever its gaps are."""
    said = {cell: stated(text).get(cell, "?") for cell in page.rows()}
    return sorted({*text.splitlines()} ^ {*written(page, said).splitlines()})


def other_gaps(page: Page, text: str) -> list[str]:
    """The gaps of a page that are not so, a sentence each."""
    said = stated(text)
    return [
        f"{cell}: the page says {said.get(cell, '?')}, measured {gap}"
        for cell, gap in measured(page).items()
        if not as_stated(said.get(cell, "?"), gap)
    ]


def as_stated(stated: str, gap: str) -> bool:
    """Whether a gap is what the page says, as near as another machine comes to it."""
    if stated == gap:
        return True
    try:
        return 1 / 3 <= float(stated) / float(gap) <= 3
    except (ValueError, ZeroDivisionError):
        return False


def main(arguments: list[str]) -> int:
    """Prints the pages as measured now, or with --write writes them."""
    launch.set_up_xla()
    torch.set_num_threads(1)
    for page in PAGES:
        text = written(page, measured(page))
        if "--write" in arguments:
            page.file.write_text(text)
        else:
            print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
