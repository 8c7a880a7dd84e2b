"""A training in a process of its own, beside the one that goes on here."""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

from twinstep.errors import InputError
from twinstep.trace import Outcome

Say = Callable[[str], None]
Train = Callable[[Say], Outcome]
"""Trains, says its log lines as they come, and gives how it ended."""


@contextlib.contextmanager
def aside(train: Train) -> Iterator[Train]:
    """Starts a training; gives what says its lines, those to come too, and waits for its end.

    That raises the training's own InputError. Leaving the context ends the process.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(there, train), daemon=True)
    process.start()
    there.close()

    def follow(say: Say) -> Outcome:
        while True:
            try:
                news = here.recv()
            except EOFError:
                process.join()
                raise RuntimeError(f"the training ended with {process.exitcode}") from None
            if isinstance(news, InputError):
                raise news
            if isinstance(news, Outcome):
                return news
            say(news)

    try:
        yield follow
    finally:
        process.terminate()
        process.join()


def _tell(there: Connection, train: Train) -> None:
    """What the process does: sends lines, then the outcome or what was wrong with the input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started it ends it
    with contextlib.suppress(BrokenPipeError):
        try:
            there.send(train(there.send))
        except InputError as error:
            there.send(error)
