"""What makes a command answer soon: compiled programs that are kept, and two processes at once."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers import tasks
from helpers.commands import python

from twinstep import InputError
from twinstep.cli.background import in_background
from twinstep.errors import LostError


def trained(*flags: object, cache: Path) -> str:
    """What `twinstep run zero_grad` prints in a process and with a cache folder of its own."""
    words = ("-m", "twinstep", "run", "zero_grad", *flags)
    return python(*words, env={"TWINSTEP_CACHE": str(cache)}).well()


def kept(cache: Path) -> list[str]:
    """The programs in a cache folder."""
    return sorted(p.name for p in cache.rglob("*-cache"))


def test_programs_are_kept_and_found_again(tmp_path: Path) -> None:
    first = trained("--framework", "jax", cache=tmp_path)
    programs = kept(tmp_path)
    assert any("scan" in name for name in programs)
    assert trained("--framework", "jax", cache=tmp_path) == first
    assert kept(tmp_path) == programs  # nothing was compiled again
    trained("--framework", "jax", "--dtype", "float64", cache=tmp_path)
    assert len(kept(tmp_path)) > len(programs)  # what is another program is compiled


def test_cache_can_be_switched_off(tmp_path: Path) -> None:
    trained("--framework", "jax", "--no-compilation-cache", cache=tmp_path)
    assert kept(tmp_path) == []


def test_cache_folder_that_cannot_be_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    trained("--framework", "jax", cache=tmp_path / "file")


def test_both_frameworks_at_once_say_what_they_say_in_turn(tmp_path: Path) -> None:
    """Two processes where nothing is loaded yet; with --out, one."""
    at_once = trained(cache=tmp_path)
    assert trained("--out", tmp_path / "out", cache=tmp_path) == at_once
    assert at_once.index("== torch") < at_once.index("== jax")


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
    assert python("-c", AT_THE_END, *words).well().split() == [frozen]


def test_aside_says_all_lines_in_order() -> None:
    task: Any = partial(tasks.doubled, 3)
    lines: list[Any] = []
    with in_background(task) as follow:
        done: Any = follow(lines.append)
    assert (done, lines) == (6, [3, 6])


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ("bad input", InputError, "seed is 'x'"),
        ("9", LostError, "ended with exit code 9"),
    ],
)
def test_what_ends_it_aside_is_raised_here(how: str, error: type[Exception], says: str) -> None:
    task: Any = partial(tasks.ends, how)
    with in_background(task) as follow, pytest.raises(error, match=says):
        follow(print)


def test_process_ends_with_its_context(tmp_path: Path) -> None:
    task: Any = partial(tasks.waits, str(tmp_path))
    numbers: list[int] = []

    def enough(number: Any) -> None:
        numbers.append(number)
        raise TimeoutError

    with pytest.raises(TimeoutError), in_background(task) as follow:
        follow(enough)
    with pytest.raises(ProcessLookupError):
        os.kill(numbers[0], 0)
