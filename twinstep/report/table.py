"""Tables that fit: on a narrow screen columns leave and names are cut; no cell is ever folded.

What does not fit even so becomes a list of paragraphs. In a pipe a table is as wide as it is: what
reads it splits it at its spaces.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE, Box
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 160
_MIN_NAME_WIDTH = 12  # columns that are left to a name, though it be cut


@dataclass(frozen=True)
class Column:
    """A column of a table; of the first one the cells are names.

    leaves: the smaller the sooner it leaves a screen that is too narrow; None: it stays
    enters: it comes in for the column that `leaves` at this number, and those after it
    """

    head: str
    cells: Sequence[str]
    right: bool = False
    styles: Sequence[str] = ()
    leaves: int | None = None
    enters: int = 0


def screen() -> Console:
    """Stdout: as wide as the terminal, or plain and wide in a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=PIPED_WIDTH, no_color=True)


def box(console: Console) -> Box | None:
    """What a table is drawn with."""
    return SIMPLE if console.is_terminal else None


def show(console: Console, columns: Sequence[Column]) -> list[str]:
    """Prints a table as wide as fits; gives the heads of the columns that are there."""
    if not console.is_terminal:
        kept = _without(columns, 0)
        table = _table(console, kept)
        wide = max(console.width, _width(table))
        Console(file=console.file, width=wide, no_color=True).print(table)
        return [column.head for column in kept]
    for kept, least in _choices(columns, console.width):
        over = _width(_table(console, kept)) - console.width
        names = kept[0].cells
        if over > 0:
            available = max(map(cell_len, names)) - over
            shorter = shortened(names, available) if available >= least else None
            if shorter is None:
                continue
            names = shorter
        console.print(_table(console, kept, names))
        return [column.head for column in kept]
    paragraphs(console, [_sentence(kept, row) for row in range(len(columns[0].cells))])
    console.print()
    return [column.head for column in kept]


def paragraphs(console: Console, pairs: Sequence[tuple[str, str]]) -> None:
    """Prints a head and what is below it, of any length, line by line as wide as the screen."""
    indent = 4 if console.width >= 40 else 1
    for head, body in pairs:
        console.print(Text(head))
        console.print(Padding(Text(body), (0, 0, 0, indent)))


def shortened(names: Sequence[str], width: int) -> list[str] | None:
    """Names cut in the middle, each to what only itself can be; None where that cannot be done."""
    shorter = {name: _shortened(name, width, set(names)) for name in names}
    found = [text for name in names if (text := shorter[name]) is not None]
    return found if len(found) == len(names) else None


def _shortened(name: str, width: int, names: Collection[str]) -> str | None:
    if cell_len(name) <= width:
        return name
    for share in (0.5, 0.3, 0.7, 0.1, 0.9):
        head = name[: round(share * (width - 1))]
        tail = name[len(name) - (width - 1 - len(head)) :]
        if sum(one.startswith(head) and one.endswith(tail) for one in names) == 1:
            return f"{head}…{tail}"
    return None


def _choices(columns: Sequence[Column], width: int) -> Iterator[tuple[list[Column], int]]:
    """(columns, the least that a name may be cut to): from all of them to those that stay."""
    leaving = sorted(column.leaves for column in columns if column.leaves is not None)
    for gone in [0, *leaving]:
        yield _without(columns, gone), max(24, width // 3)
    yield _without(columns, leaving[-1] if leaving else 0), _MIN_NAME_WIDTH


def _without(columns: Sequence[Column], gone: int) -> list[Column]:
    """The columns when those that leave up to this number have left."""
    return [
        column
        for column in columns
        if column.enters <= gone and (column.leaves is None or column.leaves > gone)
    ]


def _sentence(columns: Sequence[Column], row: int) -> tuple[str, str]:
    first, *others = columns
    return first.cells[row], ", ".join(f"{other.head} {other.cells[row]}" for other in others)


def _width(table: Table) -> int:
    # a height too, for a dumb terminal is 80 wide whatever else is said
    return Console(width=100_000, height=1).measure(table).maximum


def _table(
    console: Console, columns: Sequence[Column], names: Sequence[str] | None = None
) -> Table:
    table = Table(box=box(console), pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.head, justify="right" if column.right else "left", no_wrap=True)
    cells = [names or columns[0].cells, *[column.cells for column in columns[1:]]]
    for row in range(len(columns[0].cells)):
        table.add_row(
            *(
                Text(texts[row], style=column.styles[row] if column.styles else "")
                for column, texts in zip(columns, cells, strict=True)
            )
        )
    return table
