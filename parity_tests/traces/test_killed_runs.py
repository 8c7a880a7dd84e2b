"""A run that is killed, at whatever moment, leaves what it finished."""

import shutil
import signal
import time
from pathlib import Path

import pytest
from helpers.killing import MOMENTS, child, finished
from helpers.storing import FIRST, SHARDS, WRITES, bits, check_left
from helpers.synthetic_traces import made, metadata, refused

import twinstep
from twinstep import Verdict, load_trace, open_trace
from twinstep.runs.verification import compare_stored
from twinstep.trace import rows as held
from twinstep.trace.writing import MANIFEST, TraceWriter

ENDLESS = """
import sys
from helpers.synthetic_traces import made
from twinstep.trace.writing import TraceWriter

writer = TraceWriter(sys.argv[1], made().metadata)
trace = made(100_000)
for step in range(len(trace)):
    writer.write(trace.slice(step, step + 1))
"""


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


KILLER = """
import signal, sys
from pathlib import Path
from helpers.killing import MOMENTS, forked, kill_at
from helpers.storing import WRITES, write
from helpers.synthetic_traces import made

for number in range(1, WRITES + 1):
    for moment in MOMENTS:
        def killed():
            kill_at(number, moment)
            write(Path(sys.argv[1], f"{number} {moment}"), made(rounding_noise=0.5))

        assert forked(killed) == -signal.SIGKILL
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the traces of runs that were killed at each write, at each moment of it."""
    folder = tmp_path_factory.mktemp("killed")
    assert child(KILLER, folder).wait(timeout=60) == 0
    return folder


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("number", range(1, WRITES + 1))
def test_a_run_killed_within_a_write(killed: Path, number: int, moment: str) -> None:
    folder, writes = killed / f"{number} {moment}", finished(number, moment)
    check_left(folder, writes, made(rounding_noise=0.5), SHARDS)
    if writes:  # nothing is written over what is there, be it as little
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
    shutil.copy(stored / FIRST, stored / stray)
    assert bits(load_trace(stored)) == bits(made(rounding_noise=0.5))
