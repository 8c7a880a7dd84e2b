"""A training in a process of its own, beside the one that goes on here."""

import contextlib
from collections.abc import Callable, Iterator

from twinstep import workers
from twinstep.errors import InputError, LostError
from twinstep.trace.ledger import Outcome

Say = Callable[[str], None]
Train = Callable[[Say], Outcome]
"""Trains, says its log lines as they come, and gives how it ended."""


@contextlib.contextmanager
def in_background(train: Train) -> Iterator[Train]:
    """Starts a training; gives what says its lines, those to come too, and waits for its end.

    That raises the training's own InputError, and LostError where its process died or crashed.
    Leaving the context ends the process.
    """
    worker = workers.Worker(train)
    worker.give(0, ())

    def follow(say: Say) -> Outcome:
        while isinstance(answer := worker.answer(), workers.Message):
            say(answer.words)
        if isinstance(answer, workers.Lost):
            raise LostError(f"the training was lost: {answer.why}", answer.traceback)
        if isinstance(answer, InputError):
            raise answer
        outcome: Outcome = answer
        return outcome

    try:
        yield follow
    finally:
        workers.end([worker.process])
