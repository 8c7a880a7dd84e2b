"""Processes that do tasks for this one, and never outlive it.

Each watches a pipe whose other end only this process holds, so that it ends when this one does,
whatever ended it; on Linux the kernel kills it besides. Ctrl-C is this process's to handle.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from multiprocessing import parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from twinstep.errors import InputError

GRACE = 2.0  # seconds that a process gets to leave nothing behind, before it is killed
_PR_SET_PDEATHSIG = 1
PROCESS_ERROR = "twinstep.cli.process: error: "
"""How one of several processes that share a batch begins the line that says why it failed."""

Say = Callable[[Any], None]
"""What a task is given as its last argument: sends something to the process that waits for it."""


class Lost(NamedTuple):
    """What stands for the result of a task whose process died, or that crashed.

    why: one line; traceback: that of the exception, "" where the process died
    """

    why: str
    traceback: str = ""


def start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A process that calls `target`. It ends with this one."""
    # spawned: a forked child would inherit the frameworks' thread pools in an unknown state
    context = multiprocessing.get_context("spawn")
    in_main = threading.current_thread() is threading.main_thread()
    process = context.Process(target=_tied, args=(in_main, target, arguments), daemon=True)
    with _without_interrupts():
        process.start()
    return process


def end(processes: Iterable[BaseProcess]) -> None:
    """Ends processes: they are asked to, and killed where they don't within GRACE."""
    processes = list(processes)
    for process in processes:
        process.terminate()
    last = time.monotonic() + GRACE
    for process in processes:
        process.join(max(0.0, last - time.monotonic()))
    for process in processes:
        process.kill()
        process.join()


def in_this_process(
    call: Callable[..., Any], tasks: Sequence[Sequence[Any]], hear: Callable[[int, Any], None]
) -> Generator[tuple[int, Any], None, None]:
    """Does the tasks in this process, one by one; otherwise as `apart`."""
    for index, task in enumerate(tasks):
        yield index, _attempt(call, task, partial(hear, index))


def in_processes(
    call: Callable[..., Any],
    tasks: Sequence[Sequence[Any]],
    hear: Callable[[int, Any], None],
    *,
    jobs: int,
    one_each: bool = False,
) -> Generator[tuple[int, Any], None, None]:
    """Calls `call(*task, say)` for each task in `jobs` processes; the number and result of each.

    They come as they are done; what a task says goes to `hear` with its number. A task whose
    process dies, or that raises an exception, has a Lost for its result, and the others go on;
    its InputError is raised here. one_each: each task gets a process of its own.
    Leaving ends all processes.
    """
    waiting = deque(enumerate(tasks))
    busy: dict[Connection, Worker] = {}
    idle: list[Worker] = []
    try:
        while waiting or busy:
            while waiting and len(busy) < jobs:
                worker = idle.pop() if idle else Worker(call)
                busy[worker.here] = worker
                worker.give(*waiting.popleft())
            ready = wait(list(busy))
            for worker in [worker for here, worker in busy.items() if here in ready]:
                answer = worker.answer()
                if isinstance(answer, Message):
                    hear(worker.index, answer.words)
                    continue
                del busy[worker.here]
                if one_each or worker.dead:
                    end([worker.process])
                else:
                    idle.append(worker)
                if isinstance(answer, InputError):
                    raise answer
                yield worker.index, answer
    finally:
        end(worker.process for worker in (*busy.values(), *idle))


def how_ended(process: BaseProcess) -> str:
    """In words: how a process died, that does not answer any more."""
    process.join(GRACE)
    return f"its process {exit_reason(process.exitcode)}"


def exit_reason(code: int | None) -> str:
    """In words: what an exit code says of a process."""
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    out_of_memory = ", which is what happens when memory runs out"
    return f"was killed by signal {-code}{out_of_memory if code == -9 else ''}"


def die_with_parent() -> None:
    """From now on the kernel kills this process when the thread that started it is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Message(NamedTuple):
    """What a task says before it is done."""

    words: Any


class Worker:
    """A process that does one task after the other."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.here, there = multiprocessing.get_context("spawn").Pipe()
        self.process = start(_serve, there, call)
        there.close()
        self.index = -1
        self.dead = False

    def give(self, index: int, task: Sequence[Any]) -> None:
        """Has it do a task, which has a number."""
        self.index = index
        with contextlib.suppress(ConnectionError):  # it is dead: that is its answer
            self.here.send(task)

    def answer(self) -> Any:
        """What it says, or what it found; waits for it."""
        try:
            return self.here.recv()
        except (EOFError, ConnectionError):
            self.dead = True
            return Lost(how_ended(self.process))


def _serve(there: Connection, call: Callable[..., Any]) -> None:
    """What a worker does: sends what each task says, then its result or what was bad input."""
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            task = there.recv()
            try:
                there.send(_attempt(call, task, lambda words: there.send(Message(words))))
            except InputError as error:
                there.send(error)


def _attempt(call: Callable[..., Any], task: Sequence[Any], say: Say) -> Any:
    """The result of a task, a Lost where it crashes. Raises its InputError."""
    try:
        return call(*task, say)
    except InputError:
        raise
    except Exception as error:
        return Lost(in_a_line(error), traceback.format_exc())


def in_a_line(error: BaseException) -> str:
    """An exception's kind and the first line of what it says."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """What starts meanwhile never gets a Ctrl-C; one that comes reaches this process afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # when it starts, it lets them through again
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _tied(in_main: bool, target: Callable[..., None], arguments: Sequence[Any]) -> None:
    """What a process does: its part, unless the one that started it ends, or ends it."""
    if in_main:  # else it would be killed as soon as that thread is done
        die_with_parent()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    code = 1
    try:
        target(*arguments)
        code = 0
    except SystemExit:
        code = 128 + signal.SIGTERM
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code)  # not by way of what C++ destroys, its own threads still running


def _end_with_parent() -> None:
    if parent := parent_process():
        parent.join()  # reads a pipe that it holds
    os._exit(1)


def _stop(*_: Any) -> None:
    """Unwinds, so that no temporary folder stays; from here on nobody wants to hear anything."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    raise SystemExit
