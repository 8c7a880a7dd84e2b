"""How the program ends: exit codes, outputs that are closed or full, crashes, signals."""

import contextlib
import errno
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cli.test_workers import LONG, alive, children, needs_proc, wait_until
from helpers.storing import HERE, write
from helpers.synthetic_traces import made

from twinstep.cli import USAGE, main, program
from twinstep.errors import InputError, LostError

Ended = tuple[int, str, str]
TWINSTEP = (sys.executable, "-m", "twinstep")


def ended(words: Sequence[str], redirected: str = "", **options: Any) -> Ended:
    """A command's exit code, stdout and stderr, with what a shell redirects."""
    command = ["sh", "-c", f'exec "$@" {redirected}', "sh", *words]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    done = subprocess.run(command, text=True, check=False, cwd=HERE, **options)
    return done.returncode, done.stdout, done.stderr


# --------------------------------------------------------------------------- closed and full


PRINTING = [
    "--help",
    "--version",
    "list",
    "list --json -",
    "run zero_grad --help",
    "show zero_grad",
]
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


@pytest.mark.parametrize("words", [*PRINTING, "compare"])
def test_a_closed_pipe_is_exit_code_141(words: str, stored: Path) -> None:
    no_text: Any = None
    reads, writes = os.pipe()
    os.close(reads)
    try:
        command = [*words.split(), *([str(stored)] * 2 if words == "compare" else [])]
        assert ended([*TWINSTEP, *command], stdout=writes) == (program.CLOSED, no_text, "")
    finally:
        os.close(writes)


@needs_full
@pytest.mark.parametrize("words", [*PRINTING, "compare"])
def test_a_full_disk_is_a_line_and_exit_code_2(words: str, tmp_path: Path) -> None:
    command = words.split()
    if command == ["compare"]:  # of two that are not the same: what it found is not said either
        others = (made(rounding_noise=0.5), made(rounding_noise=0.5, seed=1))
        command += [str(write(tmp_path / str(i), trace)) for i, trace in enumerate(others)]
    code, _, error = ended([*TWINSTEP, *command], ">/dev/full")
    assert code == program.BAD
    full = os.strerror(errno.ENOSPC)
    assert error == f"twinstep: error: stdout cannot be written: {full}\n"


def test_no_stdout_is_a_line_and_exit_code_2() -> None:
    said = "twinstep: error: stdout is closed: there is nowhere to print to\n"
    assert ended([*TWINSTEP, "list"], ">&-") == (2, "", said)
    assert ended([*TWINSTEP, "list"], "<&- >&- 2>&-") == (2, "", "")


@needs_full
def test_what_stderr_is_changes_nothing(stored: Path) -> None:
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


# ----------------------------------------------------------------------------------- crashes


DRIVER = """
import sys
from twinstep.cli import listing, main

def command(arguments):
    {}

listing.command = command
sys.exit(main())
"""
CRASH = DRIVER.format("raise ValueError('planted\\nfault')")


def test_a_crash_is_a_line_that_names_a_file(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    words = [sys.executable, "-c", CRASH, "list", "a b"]
    code, printed, error = ended(words, env=environment)
    (kept,) = tmp_path.iterdir()
    assert (code, printed) == (program.CRASHED, "")
    assert error == (
        f"twinstep: crashed: ValueError: planted; please report it with {kept}, "
        "which has the traceback\n"
    )
    text = kept.read_text()
    assert text.startswith("twinstep list 'a b'\n")
    for name in ("Python 3", "twinstep ", "torch ", "jaxlib "):
        assert name in text
    assert text.endswith("ValueError: planted\nfault\n")


def test_a_crash_with_no_place_for_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))

    def crash(_: Sequence[str]) -> int:
        raise RecursionError("planted")

    assert program.guarded(crash, ["list"]) == 70
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.splitlines()[-1].startswith("twinstep: crashed: RecursionError: planted; please")


@pytest.mark.parametrize(
    ("what", "code", "says"),
    [
        (InputError("seed is 'x'"), 2, "twinstep: error: seed is 'x'\n"),
        (KeyboardInterrupt(), 130, "twinstep: interrupted\n"),
        (program.TerminatedError(), 143, ""),
        (LostError("one is lost\nand two"), 70, "twinstep: one is lost\ntwinstep: and two\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "a/b"),
            2,
            "twinstep: error: a/b cannot be written: No space left on device\n",
        ),
    ],
)
def test_what_ends_a_command(
    what: BaseException, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(_: Sequence[str]) -> int:
        raise what

    assert (program.guarded(command, []), capsys.readouterr().err) == (code, says)


def test_a_crash_of_a_worker_is_kept_as_ones_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def command(_: Sequence[str]) -> int:
        raise LostError("one is lost\ntwo crashed", "Traceback of two")

    assert program.guarded(command, []) == 70
    (kept,) = tmp_path.iterdir()
    assert "Traceback of two" in kept.read_text()
    assert capsys.readouterr().err.splitlines() == [
        "twinstep: one is lost",
        f"twinstep: two crashed; please report it with {kept}, which has the traceback",
    ]


def test_every_exit_code_is_in_the_help() -> None:
    codes = [0, 1, program.BAD, program.CRASHED, program.INTERRUPTED, program.CLOSED]
    documented = re.findall(r"^  (\d+) ", USAGE.partition("exit code:")[2], re.MULTILINE)
    assert list(map(int, documented)) == [*codes, program.TERMINATED]


def test_a_function_call_leaves_the_process_alone() -> None:
    """Only without arguments it is the process's own."""
    before = sys.stdout, sys.stderr, signal.getsignal(signal.SIGTERM)
    assert main(["--version"]) == 0
    assert (sys.stdout, sys.stderr, signal.getsignal(signal.SIGTERM)) == before


# ----------------------------------------------------------------------------------- signals


WORKING = (
    """list(workers.in_processes(tasks.waits, [(folder,), (folder,)], lambda *_: None, jobs=2))"""
)
IN_C = """
    import ctypes
    c, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    Path(folder, str(os.getpid())).touch()
    c.pthread_mutex_lock(lock)
    c.pthread_mutex_lock(lock)  # for ever, whatever signal comes
"""
SLOW = "import os, tasks\nfrom pathlib import Path\nfrom twinstep import workers\nfolder = {!r}\n"


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
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW.format(str(tmp_path)) + DRIVER.format(body), "list"],
        cwd=HERE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        count = 2 if body == WORKING else 1
        assert wait_until(lambda: len(children(tmp_path)) == count)
        if number == signal.SIGINT:  # a terminal sends it to all in the foreground
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        error = process.communicate(timeout=LONG)[1]
    assert (process.returncode, error) == (code, says)
    assert not any(map(alive, children(tmp_path)))


def workers_of(parent: int) -> list[int]:
    """The processes that it spawned, the first one first."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                command = (folder / "cmdline").read_bytes()
                found += [int(folder.name)] if b"spawn_main" in command else []
    return sorted(found)


@needs_proc
def test_a_verification_whose_process_dies_is_a_row(tmp_path: Path) -> None:
    json_file = tmp_path / "found.json"
    words = ["verify", "chain_rule", "--jobs", "2", "--json", str(json_file)]
    process = subprocess.Popen(
        [*TWINSTEP, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
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
    assert [result["verdict"] for result in found["results"]] in (
        [None, "equal"],
        [None, "rounding"],
    )
    assert found["results"][0]["reason"] == died
