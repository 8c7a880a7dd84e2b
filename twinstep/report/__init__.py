"""What was found, for people (terminal, page) and for machines (JSON)."""

import contextlib
import errno
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twinstep import files
from twinstep.errors import InputError
from twinstep.trace.writing import check_new_folder


def write_json(target: str, value: Any) -> None:
    """Writes strict JSON to a file, whole or not at all; "-" is stdout.

    Raises InputError where the file cannot be written.
    """
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    write_text(target, text)


def write_text(target: str, text: str) -> None:
    """Writes a file, whole or not at all. Raises InputError where it cannot be written."""
    write_bytes(target, text.encode())


def write_bytes(target: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file, whole or not at all; into a device or a pipe, straight. Raises InputError."""
    path = files.checked_path("output file", target)
    try:
        if _is_stdout(path):  # what was printed stays before it, and what will be, after
            sys.stdout.flush()
            descriptor = os.dup(1)
        elif files.kind(path) is None:
            files.replace(path, content)
            return
        else:  # a named pipe that nobody reads would be waited for without NONBLOCK
            descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
            os.set_blocking(descriptor, True)
        with open(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        why = "nothing reads it" if error.errno == errno.ENXIO else error.strerror
        raise InputError(f"{target} cannot be written: {why}") from None


def check_writable(target: str) -> None:
    """Raises InputError for a file that `write_text` could not write; leaves nothing behind."""
    path = files.checked_path("output file", target)
    try:
        if _is_stdout(path):
            return
        if (found := files.kind(path)) in ("a folder", "a socket"):
            raise InputError(f"{target} cannot be written: it is {found}")
        if found:
            return
        path = Path(os.path.realpath(path))
        if not path.parent.is_dir():
            raise InputError(f"{target} cannot be written: {path.parent} is no folder")
        if path.exists() and not os.access(path, os.W_OK):
            raise InputError(f"{target} cannot be written: Permission denied")
        probe = path.with_name(f".{os.getpid()}.part")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror}") from None


def check_outputs(
    outputs: Mapping[str, str | None],
    *,
    out: str | None = None,
    folders: Sequence[str] = (),
    inputs: Sequence[str] = (),
) -> None:
    """Raises InputError for what could not be written in the end; leaves nothing behind.

    outputs: {flag: file}, of which json may be "-", and plot ends in .png or .svg
    out, folders: the flag's value, and the folders of new traces that will be in it
    inputs: folders that are read and must not be written into
    """
    named: dict[object, str] = {}
    written = [os.path.realpath(folder) for folder in folders]
    if out is not None:
        files.checked_path("out", out)
    for folder, real in zip(folders, written, strict=True):
        if written.count(real) > 1:
            raise InputError(f"out: two traces would go to {folder}")
        check_new_folder(folder)
    for flag, target in outputs.items():
        if target is None or (flag, target) == ("json", "-"):
            continue
        files.checked_path(flag, target)
        if target == "-":
            raise InputError(f"{flag} is '-', expected a file")
        if flag == "plot" and Path(target).suffix.lower() not in (".png", ".svg"):
            raise InputError(f"plot is {target!r}, expected a name that ends in .png or .svg")
        check_writable(target)
        if files.kind(target):  # a device or a pipe takes any number
            continue
        real = os.path.realpath(target)
        for same in _identities(real):
            if same in named:
                raise InputError(f"{named[same]} and {flag} name one file, {target}")
            named[same] = flag
        for folder in written:
            if _within(real, folder) or _within(folder, real):
                raise InputError(f"{flag} is {target}, where out puts the trace {folder}")
        for folder in inputs:
            if _within(real, os.path.realpath(folder)):
                raise InputError(f"{flag} is {target}, which is in the trace {folder}")


def _within(path: str, folder: str) -> bool:
    return Path(path).is_relative_to(folder)


def _identities(real: str) -> list[object]:
    """A file's names: by its path, and, where it is there, by its number."""
    with contextlib.suppress(OSError):
        found = os.stat(real)
        return [real, (found.st_dev, found.st_ino)]
    return [real]


def _is_stdout(path: Path) -> bool:
    """Whether a path is where stdout goes already, as /dev/stdout is."""
    with contextlib.suppress(OSError):
        return sys.stdout is not None and os.path.samestat(os.fstat(1), os.stat(path))
    return False
