"""Two implementations side by side."""

from pathlib import Path
from typing import Any

_GAP = " | "


def print_twins(kind: Any) -> None:
    """The PyTorch file on the left, the JAX file on the right; on a narrow terminal, in turn."""
    from rich.console import Console
    from rich.syntax import Syntax
    from rich.table import Table

    sources = {name: source(kind, name) for name in ("torch", "jax")}
    console = Console()
    if not console.is_terminal:
        print(side_by_side(sources["torch"], sources["jax"]))
        return
    highlighted = {
        name: Syntax(text, "python", theme="ansi_dark", word_wrap=True)
        for name, text in sources.items()
    }
    if console.width < 150:
        for name, code in highlighted.items():
            console.rule(f"{name}_impl/{kind.implementation}.py")
            console.print(code)
        return
    table = Table(expand=True)
    for name in sources:
        table.add_column(f"{name}_impl/{kind.implementation}.py", ratio=1)
    table.add_row(*highlighted.values())
    console.print(table)


def source(kind: Any, framework: str) -> str:
    """The text of the file that implements an example; nothing is imported for it."""
    folder = Path(__file__).parents[2] / f"{framework}_impl"
    return (folder / f"{kind.implementation}.py").read_text()


def side_by_side(left: str, right: str) -> str:
    """Two texts in two columns, as plain text."""
    a, b = left.splitlines(), right.splitlines()
    width = max(map(len, a), default=0)
    count = max(len(a), len(b))
    a += [""] * (count - len(a))
    b += [""] * (count - len(b))
    return "\n".join(f"{x:<{width}}{_GAP}{y}".rstrip() for x, y in zip(a, b, strict=True))
