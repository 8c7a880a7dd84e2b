"""A disk that fills up: one line, exit code 2, and what was finished before stays readable.

And the same moments of `twinstep run --out`, killed: nothing half-written is taken for a trace.
"""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.storing import HERE, SHARDS, bits, write
from helpers.synthetic_traces import made, refused

from twinstep import cli, files, load_trace, open_trace
from twinstep.report import plots, write_json, write_text
from twinstep.trace import rows as held
from twinstep.trace.writing import MANIFEST, TraceWriter

Fill = Callable[[int], None]


@pytest.fixture
def fill(monkeypatch: pytest.MonkeyPatch) -> Fill:
    """Has the disk be full at the n-th file from now on, counted from 1, and ever after."""

    def full_from(number: int) -> None:
        done = 0

        def fsync(descriptor: int) -> None:
            nonlocal done
            done += 1
            if done >= number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(files.os, "fsync", fsync)

    return full_from


# ------------------------------------------------------------------------------------ a trace

WRITES = 8  # the empty manifest, three times a shard and the manifest that lists it, the last one


@pytest.mark.parametrize("number", range(1, WRITES + 1))
def test_a_trace_on_a_full_disk_is_readable_to_where_it_came(
    number: int, tmp_path: Path, fill: Fill
) -> None:
    folder = tmp_path / "trace"
    fill(number)
    refused(lambda: write(folder, made(rounding_noise=0.5)), str(folder), "No space left on device")
    assert not list(folder.glob(".*")) + list(folder.glob("*.part"))
    if number == 1:
        refused(lambda: open_trace(folder), MANIFEST)
        return
    shards = (number - 2) // 2
    assert len(open_trace(folder).shards) == shards
    assert not open_trace(folder).complete
    if shards:
        assert bits(load_trace(folder)) == bits(
            made(rounding_noise=0.5).slice(0, SHARDS[shards - 1][1])
        )


# ------------------------------------------------------------------ a file beside it, of results


@pytest.mark.parametrize("before", ["mine", None])
def test_a_file_is_written_whole_or_not_at_all(
    before: str | None, tmp_path: Path, fill: Fill
) -> None:
    from matplotlib.figure import Figure

    fill(1)
    for name, call in {
        "a.json": lambda target: write_json(target, list(range(1000))),
        "a.html": lambda target: write_text(target, "text"),
        "a.svg": lambda target: plots.save(Figure(), target),
        "a.png": lambda target: plots.save(Figure(), target),
    }.items():
        target = tmp_path / name
        if before is not None:
            target.write_text(before)
        says = f"{target} cannot be written: No space left on device"
        refused(lambda call=call, target=target: call(str(target)), says)  # type: ignore[misc]
        assert [path.read_text() for path in tmp_path.iterdir()] == [before] * (before is not None)
        target.unlink(missing_ok=True)


@pytest.mark.parametrize(
    "arguments", ["list", "compare {0} {0}", "verify chain_rule --report page"]
)
def test_a_full_device_is_one_line_after_what_was_found(
    arguments: str,
    stored: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("twinstep.cli.verify.verify_all", lambda *_, **__: [])
    monkeypatch.setattr("twinstep.cli.verify.print_verifications", lambda _: print("equal"))
    monkeypatch.setattr("twinstep.report.page.page", lambda *_: "written all the same")
    words = [*arguments.format(stored).split(), "--json", "/dev/full"]
    assert cli.main(words) == 2
    printed = capsys.readouterr()
    assert printed.err == (
        "twinstep: error: /dev/full cannot be written: No space left on device\n"
    )
    assert "equal" in printed.out or "zero_grad" in printed.out
    if "--report" in words:
        assert Path("page").read_text() == "written all the same"


# --------------------------------------------------------------------------- twinstep run --out

STEPS, AT_ONCE = 40, 4  # so ten shards
RUN = [
    "run",
    "linear_regression_adam",
    "--framework",
    "torch",
    "--dtype",
    "float64",
    "--steps",
    "40",
]
# the number of a write (the manifest, a shard, the manifest, ...), and the moment of it
KILLED = [
    (1, "half written"),
    (2, "moved"),
    (3, "half written"),
    (6, "moved"),
    (7, "not yet moved"),
]
LIMITS = {
    500: (),
    1000: (0,),
    2700: (1, 2, 3, 4, 5, 6, 7, 8, 9),
}  # bytes of a file: how many shards may be left

CHILD = """
import json, os, resource, signal, sys
from pathlib import Path
from twinstep import cli

from twinstep import files
from twinstep.trace import rows as held

held.MAX_ROWS, folder = int(sys.argv[1]), Path(sys.argv[2])
words, killed, limits = json.loads(sys.argv[3])
files.real = files.replace

def kill_at(number, moment):
    done = 0

    def replace(path, content):
        nonlocal done
        done += 1
        if done == number and moment != "moved":
            part = path.with_name(f".{os.getpid()}.part")
            part.write_bytes(content[: len(content) // 2 if moment == "half written" else None])
            os.kill(os.getpid(), signal.SIGKILL)
        files.real(path, content)
        if done == number:
            os.kill(os.getpid(), signal.SIGKILL)

    files.replace = replace

def in_child(name, prepare):
    process = os.fork()
    if not process:
        said = os.open(folder / f"{name}.txt", os.O_CREAT | os.O_WRONLY)
        os.dup2(said, 1)
        os.dup2(said, 2)
        prepare()
        os._exit(cli.main([*words, "--out", str(folder / name)]))
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

ended = {}
# loaded once for all; no thread of PyTorch's is started here, which a forked child would lack
import torch_impl.linear_regression, twinstep.torch.driver
import twinstep.cli.run

for number, moment in killed:
    name = f"{number} {moment}"
    ended[name] = in_child(name, lambda: kill_at(number, moment))
for limit in limits:
    set_limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    ended[str(limit)] = in_child(str(limit), set_limit)
print(json.dumps(ended))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what runs left that were killed, or whose files could grow no more."""
    folder = tmp_path_factory.mktemp("runs")
    task = json.dumps([RUN, KILLED, [*LIMITS]])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(AT_ONCE), str(folder), task],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=240,
        env=os.environ | {"PYTHONPATH": str(HERE.parent)},
    )
    killed = {f"{number} {moment}": -signal.SIGKILL for number, moment in KILLED}
    assert json.loads(done.stdout) == killed | {str(limit): 2 for limit in LIMITS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held, "MAX_ROWS", AT_ONCE)
        assert cli.main([*RUN, "--out", str(folder / "whole")]) == 0
    return folder


def holds(folder: Path, shards: int, whole: Path) -> None:
    """Asserts that a trace is readable, and is the beginning of the whole one."""
    assert len(open_trace(folder).shards) == shards
    if not shards:
        refused(lambda: load_trace(folder), str(folder), "no steps")
        return
    expected = bits(load_trace(whole).slice(0, shards * AT_ONCE))
    assert bits(load_trace(folder)) == expected | {"metrics": open_trace(folder).metrics}


@pytest.mark.parametrize(("number", "moment"), KILLED)
def test_a_killed_run_leaves_what_it_finished(
    number: int, moment: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, whole = runs / f"{number} {moment}" / "torch", runs / "whole" / "torch"
    finished = number if moment == "moved" else number - 1
    if not finished:
        refused(lambda: open_trace(folder), str(folder), MANIFEST)
    else:
        shards = min((finished - 1) // 2, STEPS // AT_ONCE)
        holds(folder, shards, whole)
        assert open_trace(folder).complete is (finished == 2 * STEPS // AT_ONCE + 2)
        steps = shards * AT_ONCE
        if 0 < steps < STEPS:
            assert cli.main(["compare", str(folder), str(whole)]) == 2
            assert "a run that did not end" in capsys.readouterr().err
            assert cli.main(["compare", str(folder), str(whole), "--steps", str(steps)]) == 0
    # nothing is written over what is there, be it as little
    assert cli.main([*RUN, "--out", str(folder.parent)]) == 2
    assert "torch is not empty" in capsys.readouterr().err


@pytest.mark.parametrize("limit", LIMITS)
def test_a_run_whose_files_cannot_grow_is_one_line(limit: int, runs: Path) -> None:
    folder = runs / str(limit) / "torch"
    *_, last = (runs / f"{limit}.txt").read_text().splitlines()
    assert last.startswith(f"twinstep: error: {folder}/")
    assert last.endswith("cannot be written: File too large")
    assert not list(folder.glob(".*"))
    if not LIMITS[limit]:
        refused(lambda: open_trace(folder), MANIFEST)
    else:
        shards = len(open_trace(folder).shards)
        assert shards in LIMITS[limit]
        holds(folder, shards, runs / "whole" / "torch")


def test_a_writer_that_could_not_write_can_go_on(tmp_path: Path, fill: Fill) -> None:
    """The disk has room again: the step that did not fit is written after all."""
    with TraceWriter(tmp_path / "trace", made().metadata) as writer:
        writer.write(made().slice(0, 2))
        fill(1)
        refused(lambda: writer.write(made().slice(2, 6)), "No space left")
        fill(10)
        writer.write(made().slice(2, 6))
        writer.finish({})
    assert bits(load_trace(tmp_path / "trace")) == bits(made())
