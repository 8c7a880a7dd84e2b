"""What a terminal shows, of any width, and a pipe: no cell is folded, no name can be mistaken."""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from helpers.commands import command
from helpers.screens import GATE, result, results, rows
from rich.cells import cell_len
from rich.console import Console

from twinstep.judge.findings import Verdict
from twinstep.problems import EXAMPLES
from twinstep.report import table
from twinstep.report.table import Column, shortened
from twinstep.report.verdicts import nearest, print_verifications
from twinstep.runs.pool import Lost
from twinstep.runs.verification import Verification

Found = Sequence[Verification | Lost]
WIDTHS = [*range(12, 60, 8), *range(60, 170, 10), 81, 99, 101, 119, 121, 200, 300]
VERDICTS = "|".join([*Verdict, "lost"])


def screen(width: int) -> Console:
    """A terminal of a width."""
    return Console(width=width, force_terminal=True, color_system=None)


def shown(found: Found, width: int) -> list[str]:
    """The lines that a terminal of a width shows of results."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "screen", lambda: screen(width))
        return command(call=lambda _: print_verifications(found)).out.splitlines()


def cells(line: str) -> list[str]:
    """The cells of a row of a terminal's table."""
    return re.split(r" {3,}", line.strip())


def head_of(lines: list[str]) -> list[str]:
    """The heads of the first table, if there is one."""
    heads = [line for line in lines if line.startswith(" example ")]
    return heads[0].replace("free run", "free_run").split() if heads else []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("made", [results, rows])
def test_nothing_is_folded_or_cut_off(made: Callable[[], Found], width: int) -> None:
    found = made()
    lines = shown(found, width)
    assert max(map(cell_len, lines)) <= width
    if head_of(lines):
        start = next(n for n, line in enumerate(lines) if line.startswith(" example "))
        body = lines[start + 2 :][: len(found)]
        for line, one in zip(body, found, strict=True):  # a line each, in order
            assert re.match(rf" \S.* {one.spec.dtype} .*\b({VERDICTS})\b", line), line
        names = [cells(line)[0] for line in body]
        assert len(set(names)) == len({one.spec.name for one in found})
    else:
        assert width < 70
        text = " ".join(" ".join(lines).split())
        assert all(f"dtype {one.spec.dtype}, verdict " in text for one in found) or width < 20


@pytest.mark.parametrize(
    ("width", "gone"),
    [
        (160, ""),
        (120, ""),
        (110, "seconds"),
        (100, "seconds steps"),
        (90, "seconds steps opt_state raw_grads params"),
        (80, "seconds steps opt_state raw_grads params loss"),
        (64, "seconds steps opt_state raw_grads params loss free_run"),
    ],
)
def test_columns_leave_in_order(width: int, gone: str) -> None:
    near = " nearest" if "opt_state" in gone else ""
    heads = f"example dtype steps verdict loss raw_grads opt_state params free_run{near} seconds"
    left = [head for head in heads.split() if head not in gone.split()]
    assert head_of(shown(results(), width)) == left


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
def test_what_matters_stays(width: int) -> None:
    """The verdict, and the figure nearest to its limit with the stage that it is of."""
    lines = shown(results(), width)
    heads, (off,) = head_of(lines), [line for line in lines if "3.0e+05" in line]
    assert cells(off)[0] == "linear_regression"
    assert "mismatch" in off
    if "nearest" in heads:
        assert "raw_grads 3.0e+05" in off
        assert any(line.rstrip().endswith("batch inf") for line in lines)
    text = " ".join(" ".join(lines).split())
    assert "(float64): mismatch step 3, raw_grads, weight[0, 1]: torch 0.004, jax 0.04, a" in text
    assert "sgd_single_sample (float64): lost killed by signal 9, which is what happens" in text
    assert "28 verified: 1 equal, 24 rounding, 2 mismatch, 1 lost" in text


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 160, 200])
def test_the_legend_flows_and_is_of_what_is_there(width: int) -> None:
    lines = shown(results(), width)
    parts = "\n".join(line.rstrip() for line in lines).split("\n\n")
    (legend,) = [part.splitlines() for part in parts if "difference of a single" in part]
    words, heads = " ".join(legend), head_of(lines)
    assert ("nearest: the figure" in words) == ("nearest" in heads or not heads)
    assert ("loss to params: " in words) == ({"loss", "params"} <= set(heads))
    for line, after in pairwise(legend):  # no word would still have fitted
        assert len(line) + 1 + len(after.split()[0]) > width
    assert words.endswith("if there is one.")


def test_in_a_pipe_every_column_is_there_and_every_name_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")  # of the terminal that it is not for
    for found in (results(), rows()):
        said = command(call=lambda _, found=found: print_verifications(found))
        lines = said.out.splitlines()
        heads = "example dtype steps verdict loss raw_grads opt_state params free run seconds"
        assert lines[0].split() == heads.split()
        for line, one in zip(lines[1:], found, strict=False):
            assert line.startswith(f"{one.spec.name}  ")
            assert len(re.split(r" {2,}", line.strip())) == 10
        assert not re.search(r"[…─\x1b]", "\n".join(lines))


def test_the_width_is_the_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    assert table.screen().width == table.PIPED_WIDTH
    monkeypatch.setenv("FORCE_COLOR", "1")  # which makes a terminal of what is none
    assert table.screen().width == 72


def test_names_are_markup_of_nothing() -> None:
    one = result(EXAMPLES["zero_grad"]())
    object.__setattr__(one.spec, "name", "a[red]b[/] :smile:")
    assert cells(shown([one], 120)[3])[0] == "a[red]b[/] :smile:"


def test_the_nearest_figure_is_the_worst() -> None:
    def of(free: float = 0.1, **gate: float) -> str:
        return nearest(result(EXAMPLES["zero_grad"](), gate=gate, free=free).comparison)

    assert of(**GATE) == "free run 0.1"
    assert of(**{**GATE, "opt_state": 0.4}) == "opt_state 0.4"
    assert of(batch=float("inf"), loss=7.0) == "batch inf"
    assert of(0.0, loss=0.0) == "0"
    assert of(float("nan"), loss=0.5) == "free run inf"


def test_what_is_cut_is_never_ambiguous() -> None:
    assert shortened(["abcdefghij", "xyz"], 5) == ["ab…ij", "xyz"]
    alike = ["Adam(lr=0.01, eps=0.1, amsgrad=True)", "Adam(lr=0.02, eps=0.1, amsgrad=True)"]
    cut = shortened(alike, 16)
    assert cut is not None
    assert len(set(cut)) == 2
    assert all(len(name) == 16 for name in cut)
    middle = [f"{'a' * 30}{letter}{'b' * 30}" for letter in "xy"]
    assert shortened(middle, 20) is None
    assert shortened(["same" * 9] * 2, 9) is not None  # one example in two dtypes


def test_names_that_cannot_be_cut_are_listed_whole() -> None:
    names = [f"{'a' * 30}{letter}{'b' * 30}" for letter in "xy"]
    columns = [Column("name", names), Column("verdict", ["equal", "mismatch"])]
    said = command(call=lambda _: table.show(screen(40), columns))
    text = "".join(line.strip() for line in said.out.splitlines())
    assert text == f"{names[0]}verdict equal{names[1]}verdict mismatch"


@pytest.mark.parametrize("width", [30, 60, 80, 100, 120, 160])
def test_examples_are_listed_at_any_width(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    lines = re.sub(r"\x1b\[[\d;]*m", "", command("list").well()).splitlines()
    assert max(map(cell_len, lines)) <= width
    first = [line.split()[0] for line in lines if line.strip()]
    assert [word for word in first if word in EXAMPLES] == [*EXAMPLES]
