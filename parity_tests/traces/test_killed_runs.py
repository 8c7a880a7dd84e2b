"""A run that is killed, at whatever moment, leaves what it finished."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.storing import HERE, SHARDS, bits
from helpers.synthetic_traces import made, metadata, refused

import twinstep
from twinstep import Verdict, load_trace, open_trace
from twinstep.runs.verification import compare_stored
from twinstep.trace import rows as held
from twinstep.trace.writing import MANIFEST, TraceWriter

# -------------------------------------------------------------------------------------- killed runs

ENDLESS = """
import sys
from helpers.synthetic_traces import made
from twinstep.trace.writing import TraceWriter

writer = TraceWriter(sys.argv[1], made().metadata)
trace = made(100_000)
for step in range(len(trace)):
    writer.write(trace.slice(step, step + 1))
"""


def child(code: str, *arguments: object) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], cwd=HERE)


@pytest.mark.parametrize("shards", [1, 4, 15])
def test_a_run_killed_at_any_moment_leaves_what_it_finished(shards: int, tmp_path: Path) -> None:
    folder = tmp_path / "trace"
    run = child(ENDLESS, folder)
    try:
        for _ in range(3000):
            # read while it is written: half a manifest is never seen
            if (folder / MANIFEST).exists() and open_trace(folder).steps >= shards:
                break
            time.sleep(0.01)
    finally:
        run.kill()
        run.wait()
    opened = open_trace(folder)
    assert run.returncode == -signal.SIGKILL
    assert opened.steps >= shards
    assert not opened.complete
    assert bits(load_trace(folder)) == bits(made(100_000).slice(0, opened.steps))


WRITES = 8  # the empty manifest, three times a shard and the manifest that lists it, the last one
KILLED = ("half written", "not yet moved", "moved")

KILLER = """
import os, signal, sys
from pathlib import Path
from helpers.synthetic_traces import made
from helpers.storing import write
from traces.test_killed_runs import KILLED, WRITES
from twinstep import files

def kill_at(number, moment):
    done = 0
    real = files.replace

    def replace(path, content):
        nonlocal done
        done += 1
        if done == number and moment != "moved":
            part = path.with_name(path.name + ".part")
            part.write_bytes(content[: len(content) // 2 if moment == "half written" else None])
            os.kill(os.getpid(), signal.SIGKILL)
        real(path, content)
        if done == number:
            os.kill(os.getpid(), signal.SIGKILL)

    files.replace = replace

for number in range(1, WRITES + 1):
    for moment in KILLED:
        process = os.fork()
        if not process:
            kill_at(number, moment)
            write(Path(sys.argv[1], f"{number} {moment}"), made(rounding_noise=0.5))
            os._exit(0)
        assert os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGKILL
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the traces of runs that were killed at each write, at each moment of it."""
    folder = tmp_path_factory.mktemp("killed")
    # this module is imported by it for its constants; neither framework starts a thread in it
    assert child(KILLER, folder).wait(timeout=60) == 0
    return folder


@pytest.mark.parametrize("moment", KILLED)
@pytest.mark.parametrize("number", range(1, WRITES + 1))
def test_a_run_killed_within_a_write(killed: Path, number: int, moment: str) -> None:
    folder = killed / f"{number} {moment}"
    finished = number if moment == "moved" else number - 1
    if finished == 0:
        refused(lambda: open_trace(folder), str(folder), MANIFEST)
        return
    shards = min((finished - 1) // 2, len(SHARDS))
    opened = open_trace(folder)
    assert opened.complete is (finished == WRITES)
    if not shards:
        refused(lambda: load_trace(folder), str(folder), "no steps")
    else:
        assert bits(load_trace(folder)) == bits(
            made(rounding_noise=0.5).slice(0, SHARDS[shards - 1][1])
        )
    # nothing is written over what is there, be it as little
    refused(lambda: TraceWriter(folder, metadata()), str(folder), "not empty")


VERIFIED = """
import os, signal, sys
import twinstep
from twinstep.trace import rows as held

from twinstep.runs import launch

held.MAX_ROWS = 4
launch.set_threads("torch", 1)

def progress(side, step, steps):
    if step == 12:
        os.kill(os.getpid(), signal.SIGKILL)

spec = twinstep.examples()["linear_regression_adam"](dtype="float64", steps=20)
twinstep.verify(spec, out=sys.argv[1], progress=progress)
"""


def test_a_killed_verification_is_readable_to_where_it_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = child(VERIFIED, tmp_path / "killed")
    monkeypatch.setattr(held, "MAX_ROWS", 4)
    spec = twinstep.examples()["linear_regression_adam"](dtype="float64", steps=20)
    said: list[tuple[str, int, int]] = []
    twinstep.verify(spec, out=tmp_path / "whole", progress=lambda *now: said.append(now))
    turns = [(side, step, 20) for step in range(0, 20, 4) for side in ("torch", "jax", "gate")]
    assert said == [*turns, *((side, 20, 20) for side in ("torch", "jax"))]
    assert run.wait(timeout=120) == -signal.SIGKILL
    for framework in ("torch", "jax"):
        short, whole = tmp_path / "killed" / framework, tmp_path / "whole" / framework
        assert (open_trace(short).complete, open_trace(short).steps) == (False, 12)
        assert (open_trace(whole).complete, open_trace(whole).steps) == (True, 20)
        assert len(open_trace(short).shards) == 3
        assert bits(load_trace(short)) == bits(load_trace(whole).slice(0, 12))
        refused(lambda a=short, b=whole: compare_stored(a, b), str(short), "12", "20")  # type: ignore[misc]
        assert compare_stored(short, whole, steps=12).verdict is Verdict.EQUAL
    verdict = compare_stored(tmp_path / "killed" / "torch", tmp_path / "killed" / "jax").verdict
    assert verdict is Verdict.ROUNDING
    refused(lambda: twinstep.verify(spec, out=tmp_path / "whole"), "torch", "not empty")
    assert open_trace(tmp_path / "whole" / "torch").complete


@pytest.mark.parametrize("stray", ["x.safetensors.part", "steps-00000006-00000009.safetensors"])
def test_files_that_the_manifest_does_not_list_are_no_part(stored: Path, stray: str) -> None:
    shutil.copy(stored / "steps-00000000-00000002.safetensors", stored / stray)
    assert bits(load_trace(stored)) == bits(made(rounding_noise=0.5))
