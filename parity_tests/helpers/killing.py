"""Processes that are killed within a write, and what they have to leave.

Little is imported, so that no thread is started which a fork would lack.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from helpers.storing import HERE

from twinstep import files

MOMENTS = ("half written", "not yet moved", "moved")  # of a write


def kill_at(number: int, moment: str) -> None:
    """Has this process be killed at a moment of its n-th write from now on, counted from 1."""
    done, real = 0, files.replace

    def replace(path: Any, *parts: Any) -> None:
        nonlocal done
        done += 1
        content = b"".join(map(bytes, parts))
        if done == number and moment != "moved":
            part = path.with_name(f".{os.getpid()}.part")
            part.write_bytes(content[: len(content) // 2 if moment == "half written" else None])
            os.kill(os.getpid(), signal.SIGKILL)
        real(path, *parts)
        if done == number:
            os.kill(os.getpid(), signal.SIGKILL)

    vars(files)["replace"] = replace


def finished(number: int, moment: str) -> int:
    """The writes that were made whole of a process that was killed so."""
    return number if moment == "moved" else number - 1


def forked(call: Callable[[], object]) -> int:
    """How a fork of this process ends that makes a call: its exit code, or a signal's, negative."""
    process = os.fork()
    if not process:
        os._exit(int(bool(call())))
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def child(code: str, *arguments: object, **options: Any) -> "subprocess.Popen[str]":
    """A new process of Python, which finds this house and the tests' helpers."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    env = os.environ | {"PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}
    return subprocess.Popen(command, env=env, text=True, **options)
