"""What was found, for people (terminal, page) and for machines (JSON)."""

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from twinstep.errors import InputError


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
    path = Path(target)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise InputError(f"{target} cannot be written: {error.strerror}") from None


def refuse_unwritable(target: str) -> None:
    """Raises InputError for a file that `write_text` could not write; leaves nothing behind."""
    path = Path(target)
    if path.is_dir():
        raise InputError(f"{target} cannot be written: it is a folder")
    probe = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror}") from None
