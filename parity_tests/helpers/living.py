"""Which processes live, and what they are; and waiting for what takes a moment."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.commands import started

LONG = 60  # seconds that a busy machine may take for what needs a moment
needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks in /proc")


def alive(number: int) -> bool:
    """Whether there is a process; one that only waits to be asked how it ended is none."""
    try:
        os.kill(number, 0)
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def children(folder: Path) -> list[int]:
    """The processes that left their number in a folder, as `tasks.waits` does."""
    return [int(file.name) for file in folder.iterdir() if file.name.isdigit()]


HEAD = """
import os, subprocess, sys, threading, time
from functools import partial
from pathlib import Path
from helpers import tasks
from twinstep import workers
from twinstep.bench import process
from twinstep.cli import background

process._serve = tasks.serves
folder = os.environ["FOLDER"]
"""


@contextlib.contextmanager
def parent(code: str, count: int, folder: Path, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that runs this code until so many numbers are in the folder; killed in the end.

    Ctrl-C is to reach it and its workers, not the tests: so its session is its own.
    """
    command = (sys.executable, "-c", HEAD + code, *words)
    with started(*command, env={"FOLDER": str(folder)}, start_new_session=True) as process:
        try:
            assert wait_until(lambda: len(children(folder)) == count)
            yield process
        finally:
            process.kill()
    assert wait_until(lambda: not any(map(alive, children(folder))))


def running() -> Iterator[tuple[int, int, str]]:
    """Every process: its number, its parent's, and its command line."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
            yield int(folder.name), parent, words.decode(errors="replace")


def wait_until(true: Callable[[], bool]) -> bool:
    """Whether something has come true in time."""
    end = time.monotonic() + LONG
    while not (now := true()) and time.monotonic() < end:
        time.sleep(0.02)
    return now
