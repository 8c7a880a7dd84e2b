"""A disk that fills up: one line, exit code 2, and what was finished before stays readable.

And the same moments of `twinstep run --out`, killed: nothing half-written is taken for a trace.
"""

import errno
import json
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from helpers.killing import MOMENTS, child, finished
from helpers.storing import SHARDS, WRITES, bits, check_left, write
from helpers.synthetic_traces import made, refused
from matplotlib.figure import Figure

from twinstep import cli, files, load_trace, open_trace
from twinstep.report import plots, write_json, write_text
from twinstep.trace import rows as held
from twinstep.trace.writing import TraceWriter

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


@pytest.mark.parametrize("number", range(1, WRITES + 1))
def test_a_trace_on_a_full_disk_is_readable_to_where_it_came(
    number: int, tmp_path: Path, fill: Fill
) -> None:
    folder = tmp_path / "trace"
    fill(number)
    refused(lambda: write(folder, made(rounding_noise=0.5)), str(folder), "No space left on device")
    assert not list(folder.glob(".*")) + list(folder.glob("*.part"))
    check_left(folder, number - 1, made(rounding_noise=0.5), SHARDS)


# ------------------------------------------------------------------ a file beside it, of results


WRITERS: dict[str, Callable[[str], object]] = {
    "a.json": lambda target: write_json(target, list(range(1000))),
    "a.html": lambda target: write_text(target, "text"),
    "a.svg": lambda target: plots.save(Figure(), target),
    "a.png": lambda target: plots.save(Figure(), target),
}


@pytest.mark.parametrize("before", ["mine", None])
@pytest.mark.parametrize("name", WRITERS)
def test_a_file_is_written_whole_or_not_at_all(
    name: str, before: str | None, tmp_path: Path, fill: Fill
) -> None:
    fill(1)
    target = tmp_path / name
    if before is not None:
        target.write_text(before)
    says = f"{target} cannot be written: No space left on device"
    refused(lambda: WRITERS[name](str(target)), says)
    assert [path.read_text() for path in tmp_path.iterdir()] == [before] * (before is not None)


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
CUTS = tuple((low, low + AT_ONCE) for low in range(0, STEPS, AT_ONCE))
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
KILLED = [(1, MOMENTS[0]), (2, MOMENTS[2]), (3, MOMENTS[0]), (6, MOMENTS[2]), (7, MOMENTS[1])]
# bytes of a file: how many shards may be left
LIMITS: dict[int, Sequence[int]] = {500: (), 1000: (0,), 2700: range(1, 10)}

CHILD = """
import json, os, resource, sys
from pathlib import Path
from helpers.killing import forked, kill_at
from twinstep import cli
from twinstep.trace import rows as held

held.MAX_ROWS, folder = int(sys.argv[1]), Path(sys.argv[2])
words, killed, limits = json.loads(sys.argv[3])

def in_child(name, prepare):
    def run():
        said = os.open(folder / f"{name}.txt", os.O_CREAT | os.O_WRONLY)
        os.dup2(said, 1)
        os.dup2(said, 2)
        prepare()
        os._exit(cli.main([*words, "--out", str(folder / name)]))

    ended[name] = forked(run)

ended = {}
# loaded once for all; no thread of PyTorch's is started here, which a forked child would lack
import torch_impl.linear_regression, twinstep.torch.driver
import twinstep.cli.run

for number, moment in killed:
    in_child(f"{number} {moment}", lambda: kill_at(number, moment))
for limit in limits:
    in_child(f"{limit}", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
print(json.dumps(ended))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what runs left that were killed, or whose files could grow no more."""
    folder = tmp_path_factory.mktemp("runs")
    task = json.dumps([RUN, KILLED, [*LIMITS]])
    said, _ = child(CHILD, AT_ONCE, folder, task, stdout=subprocess.PIPE).communicate(timeout=240)
    killed = {f"{number} {moment}": -signal.SIGKILL for number, moment in KILLED}
    assert json.loads(said) == killed | {str(limit): 2 for limit in LIMITS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held, "MAX_ROWS", AT_ONCE)
        assert cli.main([*RUN, "--out", str(folder / "whole")]) == 0
    return folder


@pytest.mark.parametrize(("number", "moment"), KILLED)
def test_a_killed_run_leaves_what_it_finished(
    number: int, moment: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, whole = runs / f"{number} {moment}" / "torch", runs / "whole" / "torch"
    steps = AT_ONCE * check_left(folder, finished(number, moment), load_trace(whole), CUTS)
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
    listed = LIMITS[limit] and 2 * len(open_trace(folder).shards) + 1
    shards = check_left(folder, listed or 0, load_trace(runs / "whole" / "torch"), CUTS)
    assert shards in (LIMITS[limit] or (0,))


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
