"""Two files of Python as the rows of an HTML table, mirrored lines level with each other."""

from typing import NamedTuple

from twinstep.report.align import align


class Row(NamedTuple):
    """A row of the table: line numbers from 1 and highlighted text; None: nothing on that side."""

    left_number: int | None
    left: str | None
    right_number: int | None
    right: str | None
    same: bool


def twin_rows(left: str, right: str) -> list[Row]:
    """The rows of two files; their text is HTML already."""
    a, b = _lines(left), _lines(right)
    return [
        Row(
            None if pair.left is None else pair.left + 1,
            None if pair.left is None else a[pair.left],
            None if pair.right is None else pair.right + 1,
            None if pair.right is None else b[pair.right],
            pair.same,
        )
        for pair in align(left, right)
    ]


def _lines(text: str) -> list[str]:
    """Each line of a file as HTML; highlighted as a whole, since docstrings span lines."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    lexer = PythonLexer(stripnl=False, ensurenl=True)
    html: str = highlight(text, lexer, HtmlFormatter(nowrap=True))
    return html.splitlines()
