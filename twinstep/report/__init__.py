"""What was found, for people (terminal) and for machines (JSON)."""

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
    path = Path(target)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror}") from None
