"""Processes that work for another: what they give, how they die, and that none is left behind."""

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import tasks
from helpers.living import LONG, alive, children, needs_proc, parent, wait_until

from twinstep import InputError, workers
from twinstep.problems import EXAMPLES
from twinstep.runs import pool
from twinstep.runs.pool import Finished, Lost, Progress, verify_all

KILLED = "its process was killed by signal 9, which is what happens when memory runs out"


def deaf(index: int, said: Any) -> None:
    """Hears nothing."""


def test_each_task_is_done_and_heard() -> None:
    heard: list[tuple[int, int]] = []
    given = [(3,), (4,), (5,)]
    for found in (
        workers.in_processes(tasks.doubled, given, lambda *said: heard.append(said), jobs=2),
        workers.in_this_process(tasks.doubled, given, lambda *said: heard.append(said)),
    ):
        assert dict(found) == {0: 6, 1: 8, 2: 10}
        assert sorted(heard) == [(0, 3), (0, 6), (1, 4), (1, 8), (2, 5), (2, 10)]
        heard.clear()


def test_one_process_each_only_where_asked_for() -> None:
    given: list[tuple[()]] = [()] * 3
    call = tasks.number_of_process
    one_each = dict(workers.in_processes(call, given, deaf, jobs=1, one_each=True))
    assert len(set(one_each.values())) == 3
    shared = dict(workers.in_processes(call, given, deaf, jobs=1))
    assert len(set(shared.values())) == 1
    assert not any(map(alive, (*one_each.values(), *shared.values())))


def test_a_process_that_dies_is_named_and_the_others_go_on() -> None:
    ways = ("SIGKILL", "fine", "SIGSEGV", "3", "exception", "fine")
    found: Any = dict(workers.in_processes(tasks.ends, [(how,) for how in ways], deaf, jobs=2))
    assert found[0] == (KILLED, "")
    assert (found[1], found[5]) == ("fine", "fine")
    assert found[2] == ("its process was killed by signal 11", "")
    assert found[3] == ("its process ended with exit code 3", "")
    assert found[4].why == "ValueError: planted"
    assert "in ends" in found[4].traceback
    (here,) = workers.in_this_process(tasks.ends, [("exception",)], deaf)
    assert here[1].why == "ValueError: planted"


def test_bad_input_is_raised_and_ends_all(tmp_path: Path) -> None:
    for call in (
        workers.in_processes(tasks.ends, [("bad input",)], deaf, jobs=2),
        workers.in_this_process(tasks.ends, [("bad input",)], deaf),
    ):
        with pytest.raises(InputError, match="seed is 'x'"):
            list(call)
    pieces = workers.in_processes(tasks.either, [(str(tmp_path),), ("bad input",)], deaf, jobs=2)
    with pytest.raises(InputError, match="seed is 'x'"):
        list(pieces)
    (waiting,) = (int(file.name) for file in tmp_path.iterdir())
    assert not alive(waiting)


def test_verify_all_keeps_the_rows_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_verify_one", tasks.verified)
    names = ["chain_rule", "linear_regression", "zero_grad", "gradient_update"]
    specs = [EXAMPLES[name]() for name in names]
    heard: list[Progress | Finished] = []
    found: list[Any] = verify_all(specs, jobs=2, hear=heard.append)
    assert (found[0], found[3]) == ("chain_rule", "gradient_update")
    assert isinstance(found[1], Lost)
    assert str(found[1]) == f"linear_regression ({specs[1].dtype}) has no verdict: {KILLED}"
    assert found[1].to_dict()["verdict"] is None
    assert "planted" in found[2].traceback
    for index, spec in enumerate(specs):
        assert [event for event in heard if event.index == index] == [
            Progress(index, "start", 0, spec.total_steps),
            Finished(index, found[index]),
        ]


def test_what_is_said_too_often_is_left_out() -> None:
    said: list[Any] = []
    progress = pool._report_rarely(said.append)
    for step in range(1001):
        progress("torch", step, 1000)
        progress("jax", step, 1000)
    assert said[:2] == [("torch", 0, 1000), ("jax", 0, 1000)]
    assert said[-2:] == [("torch", 1000, 1000), ("jax", 1000, 1000)]
    assert len(said) < 1000


APART = "list(workers.in_processes({}, [(folder,), (folder,)], lambda *_: None, jobs=2))"
WITH = "with {}:\n    Path(folder, 'me').touch()\n    time.sleep(600)"
PARENTS = {
    "workers": APART.format("tasks.waits"),
    "workers in the midst of C": APART.format("partial(tasks.waits, holding=True)"),
    "workers of a thread": f"run = lambda: {APART.format('tasks.waits')}\n"
    "thread = threading.Thread(target=run)\nthread.start()\nthread.join()",
    "a training in the background": WITH.format(
        "background.in_background(partial(tasks.waits, folder))"
    ),
    "a program that takes long to load": "command = [sys.executable, '-m', "
    "'twinstep.bound_to_parent', '-m', 'helpers.tasks', folder]\n"
    "subprocess.Popen(command, stdin=subprocess.PIPE).wait()",
    "a process of the bench": WITH.format("process._process(folder)"),
}


@needs_proc
@pytest.mark.parametrize("kind", PARENTS)
def test_no_worker_outlives_its_parent(kind: str, tmp_path: Path) -> None:
    with parent(PARENTS[kind], 2 if "workers" in kind else 1, tmp_path) as process:
        process.kill()
        assert wait_until(lambda: not any(map(alive, children(tmp_path))))


@needs_proc
@pytest.mark.parametrize("kind", ["workers", "a training in the background"])
def test_ctrl_c_is_the_parents_to_handle(kind: str, tmp_path: Path) -> None:
    with parent(PARENTS[kind], 2 if "workers" in kind else 1, tmp_path) as process:
        for child in children(tmp_path):
            blocked = re.findall(r"SigBlk:\s*(\w+)", Path(f"/proc/{child}/status").read_text())
            assert int(blocked[0], 16) & 1 << signal.SIGINT - 1  # from its first moment
            os.kill(child, signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        assert all(map(alive, children(tmp_path)))
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=LONG)[1]
        assert said.count("Traceback") == 1, said  # the parent's own
        assert said.endswith("KeyboardInterrupt\n")
        assert not any(map(alive, children(tmp_path)))
