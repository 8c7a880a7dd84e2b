"""What makes a program of a function: exit codes, closed or full outputs, signals, crashes.

Nothing that ends it is a traceback, and nothing but a verdict is exit code 1.
"""

import contextlib
import errno
import io
import os
import shlex
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from twinstep.errors import InputError, LostError

BAD, CRASHED, INTERRUPTED, CLOSED, TERMINATED = 2, 70, 130, 141, 143
PATIENCE = 2.0  # seconds that a signal waits for a call into C, such as a compilation, to come back
UNWINDING = 15.0  # and then for what ends workers and deletes temporary folders
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NAMED = ("twinstep", "numpy", "torch", "jax", "jaxlib", "flax", "optax", "rich")

Command = Callable[[Sequence[str]], int]


class OutputError(Exception):
    """What was printed cannot be written. No OSError: nobody else is to make something of it."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror)
        self.closed = error.errno == errno.EPIPE


class TerminatedError(BaseException):
    """This process was asked to end; passes through whatever handles errors."""


def run(command: Command) -> int:
    """Runs a command with the process's own arguments; the exit code. Signals end the process."""
    closed = sys.stdout is None
    _open_what_is_closed()
    if closed:
        return _said("error: stdout is closed: there is nowhere to print to", BAD)
    sys.stdout, sys.stderr = _over(sys.stdout, _Output), _over(sys.stderr, _Quiet)
    _take_signals()
    try:
        code = guarded(command, sys.argv[1:])
    except SystemExit as stop:  # a help text was printed
        code = stop.code if isinstance(stop.code, int) else 0
    if code in (INTERRUPTED, TERMINATED):
        os._exit(code)  # not by way of what C++ destroys, its own threads still running
    last = guarded(_flush, sys.argv[1:])  # what is still to be written may fail as well
    return last if last and code < BAD else code


def guarded(command: Command, arguments: Sequence[str]) -> int:
    """What a command gives, or the exit code for what ended it, which is said in a line."""
    try:
        return command(arguments)
    except InputError as error:
        return _said(f"error: {error}", BAD)
    except OutputError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # where what is left in it may go
        return CLOSED if error.closed else _said(f"error: stdout cannot be written: {error}", BAD)
    except LostError as error:
        *others, last = str(error).splitlines()
        for line in others:
            say(line)
        if not error.traceback:
            return _said(last, CRASHED)
        return _crashed(last, error.traceback, arguments)
    except KeyboardInterrupt:
        return _said("interrupted", INTERRUPTED)
    except TerminatedError:
        return TERMINATED
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            what = error.filename or "a file"
            return _said(f"error: {what} cannot be written: {error.strerror}", BAD)
        first = (str(error).strip().splitlines() or [""])[0]
        what = f"crashed: {type(error).__name__}: {first}"
        return _crashed(what, traceback.format_exc(), arguments)


def say(line: str) -> None:
    """Prints a line on stderr, if that can be."""
    with contextlib.suppress(OSError):
        print(f"twinstep: {line}", file=sys.stderr, flush=True)


def _said(line: str, code: int) -> int:
    say(line)
    return code


def _crashed(what: str, trace: str, arguments: Sequence[str]) -> int:
    """Asks for a report, and keeps what it needs in a file of its own."""
    text = f"{shlex.join(['twinstep', *arguments])}\n{_versions()}\n\n{trace}"
    try:
        handle, kept = tempfile.mkstemp(prefix="twinstep-crash-", suffix=".txt")
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        say(text)
        kept = "the text above"
    return _said(f"{what}; please report it with {kept}, which has the traceback", CRASHED)


def _versions() -> str:
    """Of Python, of the system, and of the packages that are there."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = [f"Python {platform.python_version()}", platform.platform()]
    for name in _NAMED:
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return ", ".join(found)


def _flush(_: Sequence[str]) -> int:
    sys.stdout.flush()
    return 0


class _Output(io.FileIO):
    """Where stdout goes."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputError(error) from None


class _Quiet(io.FileIO):
    """Where stderr goes, or nowhere: what is said there is never what a command is for."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _over(stream: Any, raw: type[io.FileIO]) -> Any:
    """The stream, as it is, over another way to write."""
    if os.name == "nt" or not isinstance(stream, io.TextIOWrapper):
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(raw(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _open_what_is_closed() -> None:
    """So that no file or pipe that is opened later is taken for stdin, stdout or stderr."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives


def _take_signals() -> None:
    """Ctrl-C and SIGTERM raise, once; and should that not end the process, it ends all the same."""
    kinds = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: TerminatedError}
    noticed = threading.Event()

    def notice(number: int, _: Any) -> None:
        if not noticed.is_set():
            noticed.set()
            raise kinds[signal.Signals(number)]

    def watch() -> None:
        number = os.read(reads, 1)[0]  # at once, where `notice` has to wait for the main thread
        if noticed.wait(PATIENCE):
            time.sleep(UNWINDING)
        if number == signal.SIGINT:
            say("interrupted")
        os._exit(128 + number)

    for number in kinds:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, notice)
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    threading.Thread(target=watch, daemon=True).start()
