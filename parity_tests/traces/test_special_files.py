"""What people name may be a pipe, a device, a socket, a folder, or larger than any disk: refused in
one line where a file is read, without reading it and without waiting for it.

What hangs or reads without end here is ended by an alarm, and fails.
"""

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pooch
import pytest
from helpers.storing import SECOND, unreadable, write_pieces
from helpers.synthetic_traces import made, refused
from problems.test_datasets import TRAIN_IMAGES, TRAIN_LABELS, IdxFiles, small, write  # noqa: F401 - fixtures

from twinstep import cli, files, load_trace, open_trace
from twinstep.problems import datasets
from twinstep.report import check_writable, write_json, write_text
from twinstep.trace import writing
from twinstep.trace.writing import MANIFEST

GIANT = 2**42  # bytes of a file of nothing, which takes none of the disk


@pytest.fixture(autouse=True)
def never_for_long() -> Iterator[None]:
    """Ends a test that waits for a pipe."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits, or reads without end"))
    signal.alarm(30)
    yield
    signal.alarm(0)


def _socket(path: Path) -> None:
    # a socket's path is short
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)


def _giant(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(GIANT)


def _link(path: Path, to: str, make: Callable[[Path], object] = lambda path: None) -> None:
    make(other := path.parent / to)
    path.symlink_to(other)


PIPE, DEVICE, TOO_LARGE = "is a named pipe", "is a device", f"has {GIANT} bytes, expected at most"
# kind -> what puts it at a path, and what is said of it
KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, PIPE),
    "socket": (_socket, "is a socket"),
    "folder": (Path.mkdir, "is a folder"),
    "zeros": (lambda path: _link(path, "/dev/zero"), DEVICE),
    "terminal": (lambda path: _link(path, "/dev/tty"), DEVICE),
    "giant": (_giant, TOO_LARGE),
    "link to a giant": (lambda path: _link(path, f"other {path.name}", _giant), TOO_LARGE),
    "link to a pipe": (lambda path: _link(path, f"other {path.name}", os.mkfifo), PIPE),
}
EACH = pytest.mark.parametrize("kind", KINDS)


def put(kind: str, path: Path) -> str:
    """Puts it in the place of a file; what has to be said of it."""
    path.unlink(missing_ok=True)
    make, says = KINDS[kind]
    make(path)
    return f"{path} {says}" + (", expected a regular file" if says != TOO_LARGE else "")


# ---------------------------------------------------------------------------------- what is read


@EACH
def test_a_manifest(kind: str, stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    says = put(kind, stored / MANIFEST)
    assert refused(lambda: open_trace(stored)) == unreadable(stored, says)
    assert cli.main(["compare", str(stored), str(stored)]) == 2
    assert says in capsys.readouterr().err


@EACH
def test_a_shard(
    kind: str, stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(rounding_noise=0.5).save(tmp_path / "whole")
    says = put(kind, stored / SECOND)
    refused(lambda: load_trace(stored), says)
    assert cli.main(["compare", str(tmp_path / "whole"), str(stored)]) == 2
    assert says in capsys.readouterr().err


def test_a_trace_folder_that_is_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "trace")
    refused(lambda: open_trace(tmp_path / "trace"), "expected a folder")
    refused(lambda: made().save(tmp_path / "trace"), "cannot be written")


def test_a_shard_that_grows_while_it_is_read(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more is read than its manifest says, whatever its size was when it was opened."""
    shard = stored / SECOND
    told, fstat = shard.stat(), os.fstat
    with shard.open("ab") as file:
        file.truncate(GIANT)
    same = told.st_ino
    monkeypatch.setattr(os, "fstat", lambda fd: told if fstat(fd).st_ino == same else fstat(fd))
    refused(lambda: load_trace(stored), str(shard), "expected at most")


def test_what_is_put_in_the_place_of_a_file_as_it_is_opened(
    stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    regular = os.stat(stored / MANIFEST)
    says = put("pipe", stored / MANIFEST)
    monkeypatch.setattr(files.os, "stat", lambda name, **_: regular)  # it was one a moment ago
    refused(lambda: open_trace(stored), says)


def test_a_manifest_larger_than_is_read_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "MAX_MANIFEST", 1500)
    steps = [made().slice(step, step + 1) for step in range(6)]
    refused(lambda: write_pieces(tmp_path / "trace", *steps), "so many shards")
    assert open_trace(tmp_path / "trace").steps >= 1


@EACH
@pytest.mark.parametrize("packed", [True, False], ids=["gz", "unpacked"])
def test_mnist_in_a_folder(
    kind: str,
    packed: bool,
    tmp_path: Path,
    small: IdxFiles,  # noqa: F811 - a fixture
    write: Callable[..., Path],  # noqa: F811 - a fixture
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = write(tmp_path / "mnist", small, packed=packed)
    name = TRAIN_LABELS if packed else TRAIN_LABELS.removesuffix(".gz")
    says = put(kind, folder / name)
    refused(lambda: datasets.load_mnist(folder), says)
    arguments = ["mnist_rnn", "--data", "mnist", "--data-dir", str(folder)]
    assert cli.main(["run", *arguments]) == 2
    assert says in capsys.readouterr().err


@EACH
def test_mnist_in_the_cache(
    kind: str,
    tmp_path: Path,
    small: IdxFiles,  # noqa: F811 - a fixture
    write: Callable[..., Path],  # noqa: F811 - a fixture
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(datasets.DATA_VARIABLE, raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache")
    folder = write(tmp_path / "cache", small)
    refused(datasets.load_mnist, put(kind, folder / TRAIN_IMAGES))


# ------------------------------------------------------------------------------- what is written


@pytest.mark.parametrize("kind", ["folder", "socket"])
def test_what_cannot_be_written_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    put(kind, target := tmp_path / "target")
    refused(lambda: check_writable(str(target)), f"{target} cannot be written")
    refused(lambda: write_text(str(target), "text"), f"{target} cannot be written")


def test_a_pipe_that_nothing_reads(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    check_writable(str(pipe))
    refused(lambda: write_json(str(pipe), []), f"{pipe} cannot be written: nothing reads it")


def test_a_pipe_that_is_read_gets_all(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    numbers = list(range(100_000))  # more than a pipe holds at once
    for _ in range(1000):  # until the reader is there
        try:
            write_json(str(pipe), numbers)
            break
        except ValueError:
            time.sleep(0.01)
    reader.join()
    assert json.loads(got[0]) == numbers


def test_a_device_is_written_straight(capfd: pytest.CaptureFixture[str]) -> None:
    write_text("/dev/null", "text")
    assert os.stat("/dev/null").st_rdev == os.makedev(1, 3)
    print("before")
    write_text("/dev/stdout", "text\n")
    print("after")
    assert capfd.readouterr().out == "before\ntext\nafter\n"


def test_a_link_is_followed_and_permissions_stay(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to("target")
    write_text(str(link), "new")
    assert link.is_symlink()
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("new", 0o640)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "target"]
    long = tmp_path / ("n" * 255)  # as long as a name can be
    check_writable(str(long))
    write_text(str(long), "new")
