"""Two implementations side by side, mirrored lines level; in full, or only where they differ.

Between the columns stands `|` where two lines differ, `<` or `>` where one side has nothing, and
nothing where both are the same. A terminal too narrow for two columns gets one: what is the same
stands once, what differs first as PyTorch has it (t), then as JAX has it (j).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from twinstep.report.align import Pair, align, definitions
from twinstep.runs import launch

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

NARROW = 150  # columns of a terminal below which two halves would wrap most lines
_CONTEXT = 1  # lines shown before and after a difference
_COLORS = {"|": "yellow", "<": "magenta", ">": "cyan", "t": "magenta", "j": "cyan"}


class Skipped(NamedTuple):
    """Lines that are the same in both and not shown; where: the definition that comes after."""

    lines: int
    where: str

    def __str__(self) -> str:
        return f"... {self.lines} lines the same" + (f"; in {self.where}" if self.where else "")


class Twins(NamedTuple):
    """Both files: their paths, their lines, and what to show of them, in order."""

    paths: tuple[str, str]
    left: list[str]
    right: list[str]
    rows: list[Pair | Skipped]


def print_twins(kind: Any, *, diff: bool = False, console: "Console | None" = None) -> None:
    """The PyTorch file on the left, the JAX file on the right.

    kind: the example's spec or its class; diff: only what differs; console: default, stdout
    """
    from rich.console import Console

    console = console or Console()
    torch, jax = source(kind, "torch"), source(kind, "jax")
    twins = Twins(
        paths=(path_of(kind, "torch"), path_of(kind, "jax")),
        left=torch.splitlines(),
        right=jax.splitlines(),
        rows=rows(torch, jax, diff=diff),
    )
    if not console.is_terminal:
        for line in _plain(twins, numbers=diff):
            print(line, file=console.file)
        return
    draw = _one_column if console.width < NARROW else _two_columns
    console.print(draw(twins, _highlighted(torch), _highlighted(jax), numbers=diff))


def path_of(kind: Any, framework: str) -> str:
    """Where the file is that implements an example, from the folder that holds the packages."""
    return launch.program(framework, kind).replace(".", "/") + ".py"


def source(kind: Any, framework: str) -> str:
    """The text of the file that implements an example; nothing is imported for it."""
    return (Path(__file__).parents[2] / path_of(kind, framework)).read_text(encoding="utf-8")


def rows(left: str, right: str, *, diff: bool = False) -> list[Pair | Skipped]:
    """The rows of two texts side by side; with diff, long stretches of the same are Skipped."""
    pairs = align(left, right)
    if not diff:
        return list(pairs)
    a, b = left.splitlines(), right.splitlines()
    shown = _shown(pairs, a, b)
    result: list[Pair | Skipped] = []
    start = 0
    while start < len(pairs):
        end = start
        while end < len(pairs) and shown[end] == shown[start]:
            end += 1
        if shown[start]:
            result += pairs[start:end]
        else:
            same = sum(pair.same for pair in pairs[start:end])
            result.append(Skipped(same, _where(pairs[end], a, b) if pairs[end:] else ""))
        start = end
    return result


def mark(pair: Pair) -> str:
    """What stands between the columns."""
    if pair.same:
        return " "
    return ">" if pair.left is None else "<" if pair.right is None else "|"


def _where(pair: Pair, a: Sequence[str], b: Sequence[str]) -> str:
    """The definition that a row is in; for a definition's own row the one around it; or ""."""
    lines, number = (a, pair.left) if pair.left is not None else (b, pair.right or 0)
    name = definitions(lines)[number]
    is_header = lines[number].lstrip().startswith(("def ", "class "))
    return name.rpartition(".")[0] if is_header else name


def _shown(pairs: Sequence[Pair], a: Sequence[str], b: Sequence[str]) -> list[bool]:
    """Which rows a diff shows: what differs, the lines around it, and gaps not worth a row."""

    def blank(pair: Pair) -> bool:
        left = "" if pair.left is None else a[pair.left]
        right = "" if pair.right is None else b[pair.right]
        return not (left.strip() or right.strip())

    differs = [not pair.same and not blank(pair) for pair in pairs]
    shown = [
        differs[i] or (any(differs[max(0, i - _CONTEXT) : i + _CONTEXT + 1]) and not blank(pair))
        for i, pair in enumerate(pairs)
    ]
    start = 0
    while start < len(pairs):
        end = start
        while end < len(pairs) and shown[end] == shown[start]:
            end += 1
        hidden = pairs[start:end]
        few = sum(pair.same for pair in hidden) <= 1
        if not shown[start] and (few or all(map(blank, hidden))):
            shown[start:end] = [True] * len(hidden)
        start = end
    return shown


def _plain(twins: Twins, *, numbers: bool) -> Iterator[str]:
    """Two columns as text, as wide as the files are."""
    width = max(map(len, [twins.paths[0], *twins.left]))

    def cell(lines: Sequence[str], number: int | None) -> str:
        text = "" if number is None else lines[number]
        said = "" if number is None else str(number + 1)
        return f"{said:>3}  {text}" if numbers else text

    indent = 5 if numbers else 0
    yield f"{'':{indent}}{twins.paths[0]:<{width}}   {'':{indent}}{twins.paths[1]}"
    for row in twins.rows:
        if isinstance(row, Skipped):
            yield str(row)
            continue
        left, right = cell(twins.left, row.left), cell(twins.right, row.right)
        yield f"{left:<{width + indent}} {mark(row)} {right}".rstrip()


def _two_columns(
    twins: Twins, left: "list[Text]", right: "list[Text]", *, numbers: bool
) -> "Table":
    """Two columns for a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(expand=True, padding=(0, 1))
    for side in ("left", "right"):
        if numbers:
            table.add_column(justify="right", style="dim", no_wrap=True)
        table.add_column(ratio=1, overflow="fold")
        if side == "left":
            table.add_column(no_wrap=True)

    def add(
        left_number: str, left: "Text", between: "Text", right_number: str, right: "Text"
    ) -> None:
        if numbers:
            table.add_row(left_number, left, between, right_number, right)
        else:
            table.add_row(left, between, right)

    titles = [Text(path, style="bold underline") for path in twins.paths]
    add("", titles[0], Text(""), "", titles[1])
    for row in twins.rows:
        if isinstance(row, Skipped):
            add("", Text(str(row), style="dim italic"), Text(""), "", Text(""))
            continue
        sign = mark(row)
        add(
            _number(row.left),
            Text("") if row.left is None else left[row.left],
            Text(sign, style=_COLORS.get(sign, "")),
            _number(row.right),
            Text("") if row.right is None else right[row.right],
        )
    return table


def _one_column(twins: Twins, left: "list[Text]", right: "list[Text]", *, numbers: bool) -> "Table":
    """One column for a narrow terminal: of rows that differ, first all of PyTorch's lines."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(no_wrap=True)
    for _ in range(2 if numbers else 0):
        table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(ratio=1, overflow="fold")

    def add(sign: str, here: int | None, there: int | None, text: "Text") -> None:
        between = (_number(here), _number(there)) if numbers else ()
        table.add_row(Text(sign, style=_COLORS.get(sign, "")), *between, text)

    for sign, path in zip("tj", twins.paths, strict=True):
        add(sign, None, None, Text(path, style="bold underline"))
    ours: list[int] = []

    def flush() -> None:
        for number in ours:
            add("j", None, number, right[number])
        ours.clear()

    for row in twins.rows:
        if isinstance(row, Skipped) or row.same:
            flush()
        if isinstance(row, Skipped):
            add("", None, None, Text(str(row), style="dim italic"))
        elif row.same and row.left is not None:
            add("", row.left, row.right, left[row.left])
        else:
            if row.left is not None:
                add("t", row.left, None, left[row.left])
            if row.right is not None:
                ours.append(row.right)
    flush()
    return table


def _number(line: int | None) -> str:
    return "" if line is None else str(line + 1)


def _highlighted(text: str) -> "list[Text]":
    """The lines of a Python file in colours, found for it as a whole: docstrings span lines."""
    from rich.syntax import Syntax

    whole = Syntax("", "python", theme="ansi_dark").highlight(text)
    return list(whole.split("\n", allow_blank=True))[: len(text.splitlines())]
