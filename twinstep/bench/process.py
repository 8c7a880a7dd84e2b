"""Every number of cores in a process of its own: it has to be set before threads start."""

import contextlib
import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Literal

from twinstep import workers
from twinstep.bench.costs import gate_cost, start_cost
from twinstep.bench.rows import ASKED_OF_GATE, ASKED_OF_START, Cost, Found
from twinstep.bench.training import Setting, training_rows, without_figures
from twinstep.errors import InputError
from twinstep.problems.base import Spec
from twinstep.runs import launch

STARTING = 180.0  # seconds that a process may take beyond its turns, to compile and to judge
COMPILING = 240.0  # more of them, where torch.compile has to compile too


@dataclass(frozen=True)
class Task:
    """One thing to time: "training" or "gate" with its spec, or "start"."""

    kind: Literal["training", "gate", "start"]
    spec: Spec | None = None


def settings(
    cores: Literal["one", "all", "both"], **options: Any
) -> tuple[list[Setting], list[str]]:
    """The settings to take figures in, and what to say of those that there cannot be."""
    if not hasattr(os, "sched_setaffinity"):
        count = os.cpu_count() or 1
        note = "this system keeps no process on one core: figures are of all cores only"
        return [Setting("all", count, **options)], [note]
    count = len(os.sched_getaffinity(0))
    wanted = ["one", "all"] if cores == "both" else [cores]
    if count == 1 and "all" in wanted:
        return [Setting("one", 1, **options)], ["there is one core here: it is all of them"]
    return [Setting(name, 1 if name == "one" else count, **options) for name in wanted], []


def measured(tasks: Sequence[Task], setting: Setting) -> Iterator[list[Found]]:
    """What each task finds, in order. InputError for a device that is not there.

    A task that takes far longer than `setting.limit` is given up, and a new process goes on.
    """
    limit = setting.limit + STARTING + (COMPILING if setting.compiled else 0)
    waiting = deque(tasks)
    while waiting:
        with _process(setting) as (ask, process):
            while waiting:
                task = waiting.popleft()
                try:
                    answer = _answer(ask, process, task, limit)
                except _LostError as lost:
                    yield _given_up(task, setting, str(lost))
                    break
                yield _given_up(task, setting, answer) if isinstance(answer, str) else answer


class _LostError(Exception):
    """A process that does not answer."""


def _answer(ask: Connection, process: BaseProcess, task: Task, limit: float) -> list[Found] | str:
    """What a process finds within `most` seconds, or what went wrong in it."""
    try:
        ask.send(task)
        if not ask.poll(limit):
            raise _LostError(f"not done after {limit:.0f} s")
        answer: list[Found] | str | InputError = ask.recv()
    except (EOFError, ConnectionError):
        raise _LostError(workers.how_ended(process)) from None
    if isinstance(answer, InputError):
        raise answer
    return answer


def _given_up(task: Task, setting: Setting, problem: str) -> list[Found]:
    """What stands for the figures that there are not."""
    if task.kind == "training" and task.spec is not None:
        return [*without_figures(task.spec, setting, problem)]
    if task.spec is not None:
        name, steps = task.spec.name, task.spec.total_steps
        return [Cost("gate", None, ASKED_OF_GATE, name, steps, problem)]
    return [Cost("start", None, ASKED_OF_START, problem=problem)]


def find(task: Task, setting: Setting) -> list[Found]:
    """Does a task, here."""
    if task.spec is None:
        return [start_cost(setting)]
    if task.kind == "gate":
        return [gate_cost(task.spec, setting)]
    return [*training_rows(task.spec, setting)]


@contextlib.contextmanager
def _process(setting: Setting) -> Iterator[tuple[Connection, BaseProcess]]:
    """A process with the setting's cores; what to send tasks to, and it. Leaving ends it."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = workers.start(_serve, there, setting)
    there.close()
    try:
        yield here, process
    finally:
        here.close()
        workers.end([process])


def _serve(there: Connection, setting: Setting) -> None:
    """What the process does: answers each task with what it finds, or with what went wrong."""
    if setting.cores == "one" and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            task = there.recv()
            try:
                launch.set_threads("torch", setting.threads)
                launch.enable_cache("jax")  # what judges; what is timed compiles anew
                there.send(find(task, setting))
            except InputError as error:
                there.send(error)
            except Exception as error:
                there.send(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
