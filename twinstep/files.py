"""Files that people name: read only where they are regular and no larger than was said, and written
whole or not at all.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from twinstep.errors import InputError

Name = str | os.PathLike[str]

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def checked_path(what: str, name: Name) -> Path:
    """The path that was named. InputError for a blank, and for what no path can hold."""
    text = os.fspath(name)
    if not text.strip() or "\0" in text:
        raise InputError(f"{what} is {text!r}, expected a name")
    return Path(text)


def kind(name: Name) -> str | None:
    """What else than a regular file stands there, in two words; None: a regular one, or nothing.

    Raises OSError where that cannot be told.
    """
    try:
        return _kind(os.stat(name).st_mode)
    except FileNotFoundError:
        return None


def read(name: Name, max_bytes: int) -> bytes:
    """The content of a regular file of at most `max_bytes` bytes.

    Raises InputError for anything else, none of which is read or waited for, and OSError.
    """
    with opened(name) as file:
        found = os.fstat(file.fileno()).st_size
        # one more: it may be growing
        content = b"" if found > max_bytes else file.read(found + 1)
    check_size(name, max(found, len(content)), max_bytes)
    return content


@contextlib.contextmanager
def opened(name: Name) -> Iterator[BufferedReader]:
    """A regular file, to be read in parts.

    Raises InputError for anything else, none of which is waited for, and OSError.
    """
    check_regular_file(name, _kind(os.stat(name).st_mode))  # to open a device may do something
    # it may be another file by now: a pipe that nobody writes would be waited for without NONBLOCK
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    with open(descriptor, "rb") as file:
        check_regular_file(name, _kind(os.fstat(descriptor).st_mode))
        yield file


def check_size(name: Name, size: int, max_bytes: int) -> None:
    """Raises InputError for a file that is larger than was said."""
    if size > max_bytes:
        raise InputError(f"{name} has {size} bytes, expected at most {max_bytes}")


def check_regular_file(name: Name, found: str | None) -> None:
    """Raises InputError for what `kind` found."""
    if found:
        raise InputError(f"{name} is {found}, expected a regular file")


def replace(path: Path, *content: bytes | memoryview) -> None:
    """Writes a file whole or not at all; what was there keeps its permissions. Raises OSError.

    content: its parts, one after the other
    """
    path = Path(os.path.realpath(path))  # of a link, what it points to
    part = path.with_name(f".{os.getpid()}.part")  # short: the name may be as long as any can be
    try:
        with part.open("wb") as file:
            with contextlib.suppress(FileNotFoundError):
                part.chmod(stat.S_IMODE(path.stat().st_mode))
            for part_of_it in content:
                file.write(part_of_it)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def _kind(mode: int) -> str | None:
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no regular file")
