"""What is said while many specs are verified, from events made by hand."""

import io

import pytest
from helpers.commands import command, python
from helpers.screens import result
from rich.console import Console

from twinstep.judge.findings import Verdict
from twinstep.problems import EXAMPLES
from twinstep.report.progress import ProgressBoard, progress
from twinstep.runs.pool import Finished, Lost, Progress

SPECS = [EXAMPLES[name](dtype="float64") for name in ("zero_grad", "mnist_rnn", "chain_rule")]


def drawn(board: ProgressBoard, width: int = 80) -> list[str]:
    """The lines that a terminal shows."""
    console = Console(width=width, file=io.StringIO())
    console.print(board.draw())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_what_each_is_at_is_shown_in_order() -> None:
    board = ProgressBoard(SPECS)
    assert drawn(board) == ["0 of 3 verified"]
    board.hear(Progress(1, "start", 0, 240))
    board.hear(Progress(0, "torch", 2, 5))
    assert drawn(board) == [
        "  zero_grad float64: torch trains, step 2 of 5",
        "  mnist_rnn float64: loads the frameworks",
        "0 of 3 verified",
    ]
    for side, says in (
        ("jax", "jax trains, step 60 of 240"),
        ("gate", "the gate, step 60 of 240"),
        ("claims", "what the document claims"),
        ("rehearsal", "rehearsal"),  # a side of days to come
    ):
        board.hear(Progress(1, side, 60, 240))
        assert drawn(board)[1] == f"  mnist_rnn float64: {says}"


def test_time_left_is_as_if_all_went_on_so() -> None:
    now = 100.0
    board = ProgressBoard(SPECS, lambda: now)
    for side in ("torch", "jax", "gate"):
        board.hear(Progress(1, side, 120, 240))
    now += 2
    assert drawn(board)[-1] == "0 of 3 verified"  # too soon to tell
    now += 8
    assert drawn(board)[-1] == "0 of 3 verified, about 0:50 left"  # a half of a third in 10 s
    board.hear(Finished(1, result(SPECS[1])))
    assert drawn(board) == ["1 of 3 verified, about 0:20 left"]
    now += 5400
    assert drawn(board) == ["1 of 3 verified, about 3:00:20 left"]
    board.hear(Finished(0, result(SPECS[0])))
    board.hear(Finished(2, result(SPECS[2])))
    assert drawn(board) == ["3 of 3 verified"]


def test_finished_rows_are_said_at_once() -> None:
    board = ProgressBoard(SPECS)
    board.hear(Progress(2, "gate", 1, 1))
    lines = [
        board.hear(Finished(2, result(SPECS[2], Verdict.MISMATCH))),
        board.hear(Finished(0, Lost(SPECS[0], "killed by signal 9"))),
        board.hear(Finished(1, result(SPECS[1]))),
    ]
    assert [str(line) for line in lines] == [
        "1/3 chain_rule float64: mismatch (2.9 s)",
        "2/3 zero_grad float64: lost, killed by signal 9",
        "3/3 mnist_rnn float64: rounding (2.9 s)",
    ]


@pytest.mark.parametrize("width", [20, 40, 80])
def test_no_line_is_folded(width: int) -> None:
    board = ProgressBoard(SPECS)
    for index in range(3):
        board.hear(Progress(index, "torch", 123_456, 1_000_000))
    lines = drawn(board, width)
    assert len(lines) == 4
    assert max(map(len, lines)) <= width


def told(show: bool) -> None:
    """Tells of one spec."""
    with progress(SPECS, show=show) as hear:
        hear(Progress(0, "torch", 2, 5))
        hear(Finished(0, result(SPECS[0])))


@pytest.mark.parametrize(
    ("show", "says"), [(True, "1/3 zero_grad float64: rounding (2.9 s)\n"), (False, "")]
)
def test_in_a_pipe_there_is_a_line_for_each_that_is_finished(
    show: bool, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert command(call=lambda _: told(show)) == (None, "", says)


ON_A_TERMINAL = """
import os, pty, sys
child, terminal = pty.fork()
if not child:
    from report.test_progress import SPECS, told
    from twinstep.report.progress import progress
    from twinstep.runs.pool import Progress
    try:
        with progress(SPECS, show=True) as hear:
            told(show=False)
            hear(Progress(0, "torch", 2, 5))
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        print("ended")
    os._exit(0)
said = b""
try:
    while part := os.read(terminal, 4096):
        said += part
except OSError:  # what a terminal gives when its other end is closed
    pass
sys.stdout.buffer.write(said)
"""


def test_ctrl_c_leaves_the_terminal_as_it_was() -> None:
    said = python("-c", ON_A_TERMINAL).well()
    assert -1 < said.rfind("\x1b[?25l") < said.rfind("\x1b[?25h")  # the cursor is there again
    assert said.rstrip().endswith("ended")
    assert "zero_grad float64: torch trains, step 2 of 5" in said
