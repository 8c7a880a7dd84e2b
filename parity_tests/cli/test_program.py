"""How the program ends: exit codes, outputs that are closed or full, crashes, signals."""

import errno
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import Said, command, ran, started
from helpers.living import LONG, alive, children, needs_proc, parent, running, wait_until
from helpers.storing import write
from helpers.synthetic_traces import made

from twinstep.cli import USAGE, main, program
from twinstep.errors import InputError, LostError

TWINSTEP = (sys.executable, "-m", "twinstep")


def ended(words: Sequence[str], redirected: str = "", **options: Any) -> Said:
    """A command's exit code, stdout and stderr, with what a shell redirects."""
    return ran("sh", "-c", f'exec "$@" {redirected}', "sh", *words, **options)


PRINTING = ["--help", "--version", "list", "list --json -", "run zero_grad --help"]
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


@pytest.fixture(params=[*PRINTING, "show zero_grad", "compare"])
def words(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """A command that prints; compare's, of two that are not the same, gives 1 if it can say so."""
    others = (made(rounding_noise=0.5), made(rounding_noise=0.5, seed=1))
    folders = [str(write(tmp_path / str(i), trace)) for i, trace in enumerate(others)]
    return [*TWINSTEP, *request.param.split(), *(folders if request.param == "compare" else [])]


def test_a_closed_pipe_is_exit_code_141(words: list[str]) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    try:
        assert ended(words, stdout=writes)[::2] == (program.CLOSED, "")
    finally:
        os.close(writes)


@needs_full
def test_a_full_disk_is_a_line_and_exit_code_2(words: list[str]) -> None:
    said = f"twinstep: error: stdout cannot be written: {os.strerror(errno.ENOSPC)}\n"
    assert ended(words, ">/dev/full") == (program.BAD, "", said)


def test_no_stdout_is_a_line_and_exit_code_2() -> None:
    said = "twinstep: error: stdout is closed: there is nowhere to print to\n"
    assert ended([*TWINSTEP, "list"], ">&-") == (2, "", said)
    assert ended([*TWINSTEP, "list"], "<&- >&- 2>&-") == (2, "", "")


@needs_full
def test_what_stderr_is_changes_nothing() -> None:
    """The exit code says it too."""
    for where in ("2>&-", "2>/dev/full", "<&-"):
        assert ended([*TWINSTEP, "--version"], where)[0] == 0
    assert ended([*TWINSTEP, "frobnicate"], "2>&-") == (2, "", "")
    assert ended([*TWINSTEP, "frobnicate"], "2>/dev/full") == (2, "", "")


def test_what_is_closed_is_not_opened_as_something_else(tmp_path: Path) -> None:
    """A file that gets stderr's number would get what is said on stderr, of this and of others."""
    code = DRIVER.format(
        f"file = open({str(tmp_path / 'file')!r}, 'w')\n"
        "    import subprocess\n"
        "    subprocess.run([sys.executable, '-c', 'import os; os.write(2, b\"noise\")'])\n"
        "    return file.fileno()"
    )
    assert ended([sys.executable, "-c", code, "list"], "<&- 2>&-")[0] > 2
    assert (tmp_path / "file").read_text() == ""


DRIVER = """
import sys
from twinstep.cli import listing, main

def command(arguments):
    {}

listing.command = command
sys.exit(main())
"""
REPORT = "please report it with {}, which has the traceback"
CRASH = DRIVER.format("raise ValueError('planted\\nfault')")


def test_a_crash_is_a_line_that_names_a_file(tmp_path: Path) -> None:
    words = [sys.executable, "-c", CRASH, "list", "a b"]
    said = ended(words, env={"TMPDIR": str(tmp_path)})
    (kept,) = tmp_path.iterdir()
    assert said == (70, "", f"twinstep: crashed: ValueError: planted; {REPORT.format(kept)}\n")
    text = kept.read_text()
    assert text.startswith("twinstep list 'a b'\n")
    for name in ("Python 3", "twinstep ", "torch ", "jaxlib "):
        assert name in text
    assert text.endswith("ValueError: planted\nfault\n")


def raised(what: BaseException) -> Said:
    """How a command ends that raises."""

    def raises(_: Sequence[str]) -> int:
        raise what

    return command("list", call=partial(program.guarded, raises))


def test_a_crash_with_no_place_for_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    code, _, error = raised(RecursionError("planted"))
    assert code == 70
    assert "Traceback" in error
    assert error.splitlines()[-1].startswith("twinstep: crashed: RecursionError: planted; please")


NO_SPACE = "No space left on device"


@pytest.mark.parametrize(
    ("what", "code", "says"),
    [
        (InputError("seed is 'x'"), 2, "error: seed is 'x'"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (program.TerminatedError(), 143, ""),
        (LostError("one is lost\nand two"), 70, "one is lost\ntwinstep: and two"),
        (OSError(errno.ENOSPC, NO_SPACE, "a/b"), 2, f"error: a/b cannot be written: {NO_SPACE}"),
    ],
)
def test_what_ends_a_command(what: BaseException, code: int, says: str) -> None:
    assert raised(what) == (code, "", f"twinstep: {says}\n" if says else "")


def test_a_crash_of_a_worker_is_kept_as_ones_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code, _, error = raised(LostError("one is lost\ntwo crashed", "Traceback of two"))
    (kept,) = tmp_path.iterdir()
    assert "Traceback of two" in kept.read_text()
    last = f"twinstep: two crashed; {REPORT.format(kept)}\n"
    assert (code, error) == (70, f"twinstep: one is lost\n{last}")


def test_every_exit_code_is_in_the_help() -> None:
    codes = [0, 1, program.BAD, program.CRASHED, program.INTERRUPTED, program.CLOSED]
    documented = re.findall(r"^  (\d+) ", USAGE.partition("exit code:")[2], re.MULTILINE)
    assert list(map(int, documented)) == [*codes, program.TERMINATED]


def test_a_function_call_leaves_the_process_alone() -> None:
    """Only without arguments it is the process's own."""
    before = sys.stdout, sys.stderr, signal.getsignal(signal.SIGTERM)
    assert main(["--version"]) == 0
    assert (sys.stdout, sys.stderr, signal.getsignal(signal.SIGTERM)) == before


WORKING = "list(workers.in_processes(tasks.waits, [(folder,)] * 2, lambda *_: None, jobs=2))"
IN_C = """
    import ctypes
    c, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    Path(folder, str(os.getpid())).touch()
    c.pthread_mutex_lock(lock)
    c.pthread_mutex_lock(lock)  # for ever, whatever signal comes
"""


@needs_proc
@pytest.mark.parametrize(
    ("body", "number", "code", "says"),
    [
        (WORKING, signal.SIGINT, 130, "twinstep: interrupted\n"),
        (WORKING, signal.SIGTERM, 143, ""),
        (IN_C, signal.SIGINT, 130, "twinstep: interrupted\n"),
        (IN_C, signal.SIGTERM, 143, ""),
    ],
    ids=["Ctrl-C", "SIGTERM", "Ctrl-C in the midst of C", "SIGTERM in the midst of C"],
)
def test_a_signal_ends_all_in_a_line(
    body: str, number: signal.Signals, code: int, says: str, tmp_path: Path
) -> None:
    count = 2 if body == WORKING else 1
    with parent(DRIVER.format(body), count, tmp_path, "list") as process:
        if number == signal.SIGINT:  # a terminal sends it to all in the foreground
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        error = process.communicate(timeout=LONG)[1]
    assert (process.returncode, error) == (code, says)
    assert not any(map(alive, children(tmp_path)))


def workers_of(parent: int) -> list[int]:
    """The processes that it spawned, the first one first."""
    return sorted(n for n, of, words in running() if of == parent and "spawn_main" in words)


@needs_proc
def test_a_verification_whose_process_dies_is_a_row(tmp_path: Path) -> None:
    json_file = tmp_path / "found.json"
    words = ["verify", "chain_rule", "--jobs", "2", "--json", str(json_file)]
    with started(*TWINSTEP, *words) as process:
        assert wait_until(lambda: len(workers_of(process.pid)) == 2)
        os.kill(workers_of(process.pid)[0], signal.SIGKILL)  # float64's
        printed, error = process.communicate(timeout=4 * LONG)
    died = "its process was killed by signal 9, which is what happens when memory runs out"
    assert process.returncode == program.CRASHED
    assert error.splitlines()[-1] == f"twinstep: chain_rule (float64) has no verdict: {died}"
    assert re.search(r"^ *chain_rule +float64 .*\blost\b", printed, re.MULTILINE)
    assert re.search(r"^ *chain_rule +float32 .*\b(equal|rounding)\b", printed, re.MULTILINE)
    found = json.loads(json_file.read_text())
    assert found["same"] is False
    lost, verified = (result["verdict"] for result in found["results"])
    assert (lost, verified in ("equal", "rounding")) == (None, True)
    assert found["results"][0]["reason"] == died
