"""Processes that do not answer as they should. It imports little, so that they start soon."""

import time
from typing import Any


def hangs(there: Any, setting: Any) -> None:
    """A process that never answers."""
    time.sleep(600)


def dies(there: Any, setting: Any) -> None:
    """A process that is killed when it gets something to do."""
    there.recv()


def fails(there: Any, setting: Any) -> None:
    """A process that meets what nobody thought of."""
    while True:
        there.recv()
        there.send("TypeError: planted")
