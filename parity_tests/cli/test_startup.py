"""What makes a command answer soon: compiled programs that are kept, and two processes at once."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from twinstep import InputError
from twinstep.cli.background import Say, in_background
from twinstep.errors import LostError
from twinstep.trace.ledger import Outcome


def run(*words: str, cache: Path) -> subprocess.CompletedProcess[str]:
    """`twinstep` in a process of its own, with a cache folder of its own."""
    return subprocess.run(
        [sys.executable, "-m", "twinstep", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TWINSTEP_CACHE": str(cache)},
    )


def kept(cache: Path) -> list[str]:
    """The programs in a cache folder."""
    return sorted(p.name for p in cache.rglob("*-cache"))


def test_programs_are_kept_and_found_again(tmp_path: Path) -> None:
    first = run("run", "zero_grad", "--framework", "jax", cache=tmp_path)
    assert first.returncode == 0, first.stderr
    programs = kept(tmp_path)
    assert any("scan" in name for name in programs)
    second = run("run", "zero_grad", "--framework", "jax", cache=tmp_path)
    assert (second.stdout, second.stderr) == (first.stdout, first.stderr)
    assert kept(tmp_path) == programs  # nothing was compiled again
    run("run", "zero_grad", "--framework", "jax", "--dtype", "float64", cache=tmp_path)
    assert len(kept(tmp_path)) > len(programs)  # what is another program is compiled


def test_cache_can_be_switched_off(tmp_path: Path) -> None:
    done = run("run", "zero_grad", "--framework", "jax", "--no-compilation-cache", cache=tmp_path)
    assert done.returncode == 0, done.stderr
    assert kept(tmp_path) == []


def test_cache_folder_that_cannot_be_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = run("run", "zero_grad", "--framework", "jax", cache=tmp_path / "file")
    assert (done.returncode, done.stderr) == (0, "")


def test_both_frameworks_at_once_say_what_they_say_in_turn(tmp_path: Path) -> None:
    """Two processes where nothing is loaded yet; with --out, one."""
    at_once = run("run", "zero_grad", cache=tmp_path)
    in_turn = run("run", "zero_grad", "--out", str(tmp_path / "out"), cache=tmp_path)
    assert at_once.returncode == in_turn.returncode == 0, at_once.stderr
    assert at_once.stdout == in_turn.stdout
    assert at_once.stdout.index("== torch") < at_once.stdout.index("== jax")


AT_THE_END = """
import atexit, gc, sys, types
atexit.register(lambda: print(gc.get_freeze_count() > 0))
if sys.argv[1:]:
    sys.modules["triton"] = types.ModuleType("triton")
from twinstep.runs import launch
with launch._uncollected():
    pass
"""


@pytest.mark.parametrize(("words", "frozen"), [([], "True"), (["triton"], "False")])
def test_triton_finds_nothing_kept_at_the_end(words: list[str], frozen: str) -> None:
    """It comes with PyTorch for CUDA, and prints thirty lines of what it takes for leaks."""
    done = subprocess.run(
        [sys.executable, "-c", AT_THE_END, *words], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [frozen]


OUTCOME = Outcome(losses=np.ones(1), initial_params={}, params={}, grads={}, metrics={})


def speaks(say: Say) -> Outcome:
    """A training of two lines."""
    say("one")
    say("two")
    return OUTCOME


def refuses(say: Say) -> Outcome:
    """A training of bad input."""
    raise InputError("seed is 'x', expected a number")


def dies(say: Say) -> Outcome:
    """A training that is killed."""
    os._exit(9)


def hangs(say: Say) -> Outcome:
    """A training that takes long; it leaves its process number."""
    say(str(os.getpid()))
    time.sleep(600)
    return OUTCOME


def test_aside_says_all_lines_in_order() -> None:
    lines: list[str] = []
    with in_background(speaks) as follow:
        assert follow(lines.append) == OUTCOME
    assert lines == ["one", "two"]


def test_bad_input_aside_is_bad_input_here() -> None:
    with in_background(refuses) as follow, pytest.raises(InputError, match="seed is 'x'"):
        follow(print)


def test_process_that_dies_is_noticed() -> None:
    with in_background(dies) as follow, pytest.raises(LostError, match="ended with exit code 9"):
        follow(print)


def test_process_ends_with_its_context() -> None:
    class EnoughError(Exception):
        """What stops this side while the other goes on."""

    lines: list[str] = []

    def enough(line: str) -> None:
        lines.append(line)
        raise EnoughError

    with pytest.raises(EnoughError), in_background(hangs) as follow:
        follow(enough)
    with pytest.raises(ProcessLookupError):
        os.kill(int(lines[0]), 0)
